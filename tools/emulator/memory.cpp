// Bounds, races and traffic of the kernels' loads and stores. GCC's and Clang's -fsanitize=thread calls __tsan_read4
// and the like before each of them; here these functions are ours. Without that flag nothing is seen.
#include "memory.h"

#include <algorithm>
#include <cstdio>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

// Where the module's zero-initialised variables lie. Those that kernels touch are __shared__, or the indices.
extern char __bss_start[] __attribute__((visibility("hidden")));
extern char _end[] __attribute__((visibility("hidden")));

namespace emulator::memory {
namespace {

constexpr size_t kSector = 32;
constexpr size_t kSharedCell = 4;  // shared arrays have elements of four bytes or more

// Who touched an element last. Epochs count barriers and blocks, so that what happened in an earlier epoch of the same
// block is ordered before now.
struct Cell {
  uint32_t write_epoch, read_epoch;
  int16_t writer, reader;  // threads; kMany readers
};
constexpr int16_t kMany = -1;
constexpr size_t kMaxThreads = 1024, kWarp = 32;

struct Region {
  const char* begin;
  size_t bytes, cell_bytes;
  bool shared;
  std::vector<Cell> cells;               // one an element
  std::vector<uint32_t> loaded, stored;  // a sector: the last block, by its first epoch, that did
};

std::vector<Region> buffers;
Region static_shared, dynamic_shared;
Range call;
Counts totals;
int64_t blocks = 0;  // of this launch
uint32_t epoch = 0, block_epoch = 0, launch_epoch = 0;
int16_t thread = 0;
const char *stack_begin = nullptr, *stack_end = nullptr;
bool in_kernel = false;
bool profiling = false;
int64_t launches = 0;  // since `profile`

// What a place in a kernel did: each thread of the running block, and the warps of all blocks before.
struct Events {
  std::vector<int64_t> threads;
  int64_t warps = 0;
};
std::map<std::tuple<int64_t, const void*, Event>, Events> profiled;

Region region_of(const Range& range, bool shared) {
  Region region{static_cast<const char*>(range.begin), range.bytes, range.element_bytes, shared, {}, {}, {}};
  region.cells.resize(range.bytes / range.element_bytes + 1);
  if (!shared) {
    region.loaded.resize(range.bytes / kSector + 1);
    region.stored.resize(range.bytes / kSector + 1);
  }
  return region;
}

bool holds(const char* begin, size_t bytes, const char* address, size_t size) {
  return address >= begin && address + size <= begin + bytes;
}

[[noreturn]] void report(const char* what, const Region* region, const char* address, size_t size, bool store) {
  char text[200];
  const char* kind = !region ? "" : region->shared ? " shared memory" : " global memory";
  const long offset = region ? static_cast<long>(address - region->begin) : 0;
  std::snprintf(text, sizeof text, "%s: %s of %zu bytes%s%s%s", what, store ? "store" : "load", size, kind,
                region ? " at byte " : "", region ? std::to_string(offset).c_str() : "");
  fail(text);
}

void check_races(Region& region, const char* address, size_t size, bool store, bool atomic) {
  const size_t offset = address - region.begin;
  for (size_t i = offset / region.cell_bytes; i <= (offset + size - 1) / region.cell_bytes; ++i) {
    Cell& cell = region.cells[i];
    const bool written_now = cell.write_epoch == epoch && cell.writer != thread;
    const bool read_now = cell.read_epoch == epoch && cell.reader != thread;
    // Blocks of one launch are not ordered.
    const bool written_elsewhere = !region.shared && cell.write_epoch > launch_epoch && cell.write_epoch < block_epoch;
    const bool read_elsewhere = !region.shared && cell.read_epoch > launch_epoch && cell.read_epoch < block_epoch;
    if (!atomic && (written_now || written_elsewhere || (store && (read_now || read_elsewhere)))) {
      report("race", &region, address, size, store);
    }
    if (region.shared && !store && cell.write_epoch < block_epoch) {
      report("nobody has written this", &region, address, size, store);
    }
    if (store) {
      cell.write_epoch = epoch;
      cell.writer = thread;
    } else {
      cell.reader = cell.read_epoch == epoch && cell.reader != thread ? kMany : thread;
      cell.read_epoch = epoch;
    }
  }
}

void count_sectors(Region& region, const char* address, size_t size, bool store) {
  ++(store ? totals.stores : totals.loads);
  auto& seen = store ? region.stored : region.loaded;
  const size_t offset = address - region.begin;
  for (size_t sector = offset / kSector; sector <= (offset + size - 1) / kSector; ++sector) {
    if (seen[sector] == block_epoch) continue;
    seen[sector] = block_epoch;
    ++(store ? totals.sectors_stored : totals.sectors_loaded);
  }
}

bool is_index(const char* address) {
  for (const Index* index : {&threadIdx, &blockIdx, &blockDim, &gridDim}) {
    if (holds(reinterpret_cast<const char*>(index), sizeof *index, address, 1)) return true;
  }
  return false;
}

void record(const void* site, Event event, int64_t amount) {
  if (!profiling) return;
  Events& events = profiled[{launches, site, event}];
  events.threads.resize(kMaxThreads);
  events.threads[thread] += amount;
}

// Lanes of a warp do the same things together, so that the warp does what its busiest lane does.
void fold_profile() {
  for (auto& [key, events] : profiled) {
    for (size_t first = 0; first < events.threads.size(); first += kWarp) {
      const auto begin = events.threads.begin() + first;
      events.warps += *std::max_element(begin, begin + kWarp);
      std::fill(begin, begin + kWarp, 0);
    }
  }
}

void access(const void* where, size_t size, bool store, const void* site, bool atomic = false) {
  const char* address = static_cast<const char*>(where);
  if (!in_kernel || (address >= stack_begin && address < stack_end)) return;
  for (Region* region : {&dynamic_shared, &static_shared}) {
    if (!holds(region->begin, region->bytes, address, size)) continue;
    if (!store && is_index(address)) return;
    check_races(*region, address, size, store, atomic);
    return record(site, store ? Event::kSharedStore : Event::kSharedLoad, size);
  }
  for (Region& region : buffers) {
    if (!holds(region.begin, region.bytes, address, size)) continue;
    check_races(region, address, size, store, atomic);
    count_sectors(region, address, size, store);
    return record(site, store ? Event::kStore : Event::kLoad, size);
  }
  const bool argument = holds(static_cast<const char*>(call.begin), call.bytes, address, size);
  if (store || !argument) report("out of bounds", nullptr, address, size, store);
}

}  // namespace

void set_buffers(const Range* ranges, size_t count) {
  buffers.clear();
  for (size_t i = 0; i < count; ++i) buffers.push_back(region_of(ranges[i], false));
  totals = {};
}

Counts counts() { return totals; }

void enter_launch(Range dynamic, Range kernel_call) {
  dynamic_shared = region_of(dynamic, true);
  static_shared = region_of({__bss_start, static_cast<size_t>(_end - __bss_start), kSharedCell}, true);
  call = kernel_call;
  launch_epoch = epoch;
  ++launches;
  blocks = 0;
}

void enter_block() {
  if (profiling) fold_profile();
  block_epoch = ++epoch;
  totals.blocks = std::max(totals.blocks, ++blocks);
}

void pass_barrier() { ++epoch; }

void wait_at_barrier(const void* site) { record(site, Event::kBarrier, 1); }

void enter_thread(int index, const void* stack, size_t bytes) {
  thread = static_cast<int16_t>(index);
  stack_begin = static_cast<const char*>(stack);
  stack_end = stack_begin + bytes;
  in_kernel = true;
}

void leave_thread() { in_kernel = false; }

}  // namespace emulator::memory

namespace emulator {

using namespace memory;

// Fibers change hands at barriers alone, so that a plain update is atomic.
int atomic_add(int* address, int value) {
  access(address, sizeof *address, true, __builtin_return_address(0), true);
  const int old = *address;
  *address = old + value;
  return old;
}

float counted(float special) {
  ++totals.specials;
  record(__builtin_return_address(0), Event::kSpecial, 1);
  return special;
}

void profile() {
  profiled.clear();
  launches = 0;
  profiling = true;
}

std::vector<Site> take_profile() {
  fold_profile();
  profiling = false;
  std::vector<Site> sites;
  for (const auto& [key, events] : profiled) {
    const auto [launch, site, event] = key;
    sites.push_back({launch - 1, offset_in_module(site), event, events.warps});
  }
  return sites;
}

}  // namespace emulator

#define MASKMATCH_HOOKS(bytes)                                                    \
  void __tsan_read##bytes(void* address) {                                        \
    emulator::memory::access(address, bytes, false, __builtin_return_address(0)); \
  }                                                                               \
  void __tsan_write##bytes(void* address) {                                       \
    emulator::memory::access(address, bytes, true, __builtin_return_address(0));  \
  }                                                                               \
  void __tsan_unaligned_read##bytes(void* address) {                              \
    emulator::memory::access(address, bytes, false, __builtin_return_address(0)); \
  }                                                                               \
  void __tsan_unaligned_write##bytes(void* address) {                             \
    emulator::memory::access(address, bytes, true, __builtin_return_address(0));  \
  }

// Atomics of the launching code, which is compiled with the kernels.
#define MASKMATCH_ATOMICS(bits)                                                                    \
  int##bits##_t __tsan_atomic##bits##_load(const int##bits##_t* address, int) { return *address; } \
  void __tsan_atomic##bits##_store(int##bits##_t* address, int##bits##_t value, int) { *address = value; }

extern "C" {
MASKMATCH_ATOMICS(8)
MASKMATCH_ATOMICS(32)
MASKMATCH_ATOMICS(64)
MASKMATCH_HOOKS(1)
MASKMATCH_HOOKS(2)
MASKMATCH_HOOKS(4)
MASKMATCH_HOOKS(8)
MASKMATCH_HOOKS(16)
void __tsan_read_range(void* address, unsigned long bytes) {
  emulator::memory::access(address, bytes, false, __builtin_return_address(0));
}
void __tsan_write_range(void* address, unsigned long bytes) {
  emulator::memory::access(address, bytes, true, __builtin_return_address(0));
}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_init() {}
}
