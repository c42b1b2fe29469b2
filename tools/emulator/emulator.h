// Runs CUDA kernels on one CPU thread, for tests: every thread of a block is a fiber, and blocks run one after the
// other. Compiled with -fsanitize=thread, whose runtime is replaced by emulator.cpp, the kernels' own loads and stores
// are seen: they must lie inside the buffers that the caller named, must not race with another thread's since the last
// barrier, and are counted.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

namespace emulator {

struct Index {
  unsigned x, y, z;
};

struct Range {
  const void* begin;
  size_t bytes, element_bytes;
};

// ---- for the host ----

// Devices that kernels may be launched on: one as modest as any since 2020, the least of those that kernels are
// compiled for, and an H200. `images` is what shares the device's multiprocessors, so that a launch of one image is as
// that of a batch.
struct Device {
  int multiprocessors, shared_bytes, shared_bytes_a_block;
};
constexpr Device kDevices[] = {{20, 100 << 10, 99 << 10}, {40, 64 << 10, 64 << 10}, {132, 228 << 10, 227 << 10}};
constexpr int kMostImages = 64;
void set_device(int index, int images);  // 0 and 1 before the first call
int device();                            // another number for each index and number of images
Device device_of(int number);

// What the kernels did since `reset`. Sectors are 32 bytes; each counts once a block for loads and once for stores.
struct Counts {
  int64_t sectors_loaded, sectors_stored;
  int64_t loads, stores;  // a thread's accesses to global memory
  int64_t specials;       // exponentials and logarithms
  int64_t blocks;         // of the largest launch
};

// Names the global memory that kernels may use, sets the order of threads and blocks (0: ascending, else a shuffle of
// that seed), and clears the counts.
void reset(const Range* buffers, size_t count, uint64_t order);
Counts counts();

// What warps did, by the place in the machine code of the host: an offset in the module that holds it. A warp does what
// its busiest lane does: bytes moved by it, calls of special functions, or barriers.
enum class Event { kLoad, kStore, kSharedLoad, kSharedStore, kSpecial, kBarrier };
struct Site {
  int64_t launch;  // counted since `profile`
  int64_t offset;
  Event event;
  int64_t amount;
};
void profile();
std::vector<Site> take_profile();  // since `profile`, which this ends

// What the kernels were launched with since the last call.
struct Launch {
  int threads;  // a block
  size_t dynamic_shared_bytes;
  int64_t blocks;
  int64_t kernel;  // its offset in the module that holds it
};
std::vector<Launch> take_launches();
int64_t offset_in_module(const void* address);

// Runs function(call.begin) once for every thread; `call` holds the kernel's arguments. Throws std::runtime_error with
// what a thread did wrong. `kernel` is the kernel's address.
void launch(Index grid, Index block, size_t dynamic_shared_bytes, Range call, void (*function)(const void*),
            const void* kernel);

// ---- for kernels ----

[[noreturn]] void fail(const char* what);

void* dynamic_shared();

// `line` tells one barrier from another: threads that wait at different ones are an error, as are threads that end
// while others wait.
void block_barrier(int line);
bool block_or(int line, bool predicate);
void warp_barrier(int line);

// Lanes exchange 8 bytes: all lanes of `mask` wait for each other, then each reads slot `source`.
uint64_t exchange(int line, uint32_t mask, uint64_t value, int source);
uint32_t ballot(int line, uint32_t mask, bool predicate);
int lane();

template <class Value>
Value shuffle(int line, uint32_t mask, Value value, int (*source_of)(int lane, int by), int by) {
  static_assert(sizeof(Value) <= sizeof(uint64_t), "a shuffle moves up to 8 bytes");
  const int source = source_of(lane(), by);
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  bits = exchange(line, mask, bits, source >= 0 && source < 32 ? source : lane());
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

int atomic_add(int* address, int value);

float counted(float special);

}  // namespace emulator

// Where the running fiber is.
extern emulator::Index threadIdx, blockIdx, blockDim, gridDim;
