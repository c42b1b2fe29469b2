// The scheduler of fibers. What the fibers do to memory is in memory.cpp.
#include "emulator.h"

#include <dlfcn.h>
#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <memory>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "memory.h"

emulator::Index threadIdx, blockIdx, blockDim, gridDim;

namespace emulator {
namespace {

constexpr size_t kStackBytes = 256 << 10;
constexpr int kWarp = 32;

enum class State { kReady, kAtBlockBarrier, kAtWarpBarrier, kDone };

struct Fiber {
  State state;
  int line;  // of the barrier
  Index thread;
  jmp_buf resume;
  bool started;
  char* stack;
};

struct Call {
  void (*function)(const void*);
  const void* context;
};

std::vector<Fiber> fibers;  // of the running block
std::vector<char*> stacks;  // kept from block to block
Fiber* running = nullptr;
jmp_buf scheduler;
Call call;
std::string error;
std::mt19937_64 order;
bool shuffled = false;
bool block_predicate = false;  // of block_or, so far
std::vector<uint64_t> lanes;   // a slot a thread
std::unique_ptr<char[]> dynamic_memory;

std::string where() {
  return " (thread " + std::to_string(threadIdx.x) + " of block " + std::to_string(blockIdx.x) + ")";
}

// makecontext starts a fiber on its stack; all later switches are cheap jumps.
void run_fiber() {
  call.function(call.context);
  running->state = State::kDone;
  _longjmp(scheduler, 1);
}

void start(Fiber& fiber) {
  ucontext_t context;
  getcontext(&context);
  context.uc_stack.ss_sp = fiber.stack;
  context.uc_stack.ss_size = kStackBytes;
  context.uc_link = nullptr;
  fiber.started = true;
  makecontext(&context, run_fiber, 0);
  setcontext(&context);
}

// Runs a fiber until it waits, ends or fails.
void resume(Fiber& fiber) {
  running = &fiber;
  threadIdx = fiber.thread;
  memory::enter_thread(static_cast<int>(&fiber - fibers.data()), fiber.stack, kStackBytes);
  if (_setjmp(scheduler) == 0) {
    if (fiber.started) _longjmp(fiber.resume, 1);
    start(fiber);
  }
  memory::leave_thread();
  running = nullptr;
  if (!error.empty()) throw std::runtime_error(error);
}

void wait(State state, int line) {
  running->state = state;
  running->line = line;
  if (_setjmp(running->resume) == 0) _longjmp(scheduler, 1);
}

std::vector<int> ready_fibers() {
  std::vector<int> ready;
  for (size_t i = 0; i < fibers.size(); ++i) {
    if (fibers[i].state == State::kReady) ready.push_back(static_cast<int>(i));
  }
  if (shuffled) std::shuffle(ready.begin(), ready.end(), order);
  return ready;
}

// Whether fibers begin to end all wait at the same barrier.
bool all_wait(size_t begin, size_t end, State state) {
  for (size_t i = begin; i < end; ++i) {
    if (fibers[i].state != state || fibers[i].line != fibers[begin].line) return false;
  }
  return true;
}

// Lets complete warps, or the complete block, past their barrier. False where nothing moves.
bool release() {
  bool released = false;
  for (size_t begin = 0; begin < fibers.size(); begin += kWarp) {
    const size_t end = std::min(begin + kWarp, fibers.size());
    if (!all_wait(begin, end, State::kAtWarpBarrier)) continue;
    for (size_t i = begin; i < end; ++i) fibers[i].state = State::kReady;
    released = true;
  }
  if (released || !all_wait(0, fibers.size(), State::kAtBlockBarrier)) return released;
  for (Fiber& fiber : fibers) fiber.state = State::kReady;
  memory::pass_barrier();
  return true;
}

std::string describe_deadlock() {
  int done = 0, line = 0, other_line = 0;
  for (const Fiber& fiber : fibers) {
    if (fiber.state == State::kDone) {
      ++done;
    } else if (line == 0) {
      line = fiber.line;
    } else if (fiber.line != line) {
      other_line = fiber.line;
    }
  }
  const std::string text =
      "threads of block " + std::to_string(blockIdx.x) + " wait at the barrier of line " + std::to_string(line);
  if (other_line) return text + " while others wait at that of line " + std::to_string(other_line);
  return text + ", which " + std::to_string(done) + " threads never reach";
}

void run_block() {
  for (size_t i = 0; i < fibers.size(); ++i) {
    const unsigned index = static_cast<unsigned>(i);
    fibers[i].state = State::kReady;
    fibers[i].started = false;
    fibers[i].stack = stacks[i];
    fibers[i].thread = {index % blockDim.x, index / blockDim.x % blockDim.y, index / blockDim.x / blockDim.y};
  }
  memory::enter_block();
  for (;;) {
    for (const int i : ready_fibers()) resume(fibers[i]);
    const bool done = std::all_of(fibers.begin(), fibers.end(), [](const Fiber& f) { return f.state == State::kDone; });
    if (done) return;
    if (!release()) throw std::runtime_error(describe_deadlock());
  }
}

void prepare_stacks(size_t threads) {
  while (stacks.size() < threads) {
    void* stack =
        mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (stack == MAP_FAILED) throw std::runtime_error("no memory for the fibers' stacks");
    stacks.push_back(static_cast<char*>(stack));
  }
}

}  // namespace

void reset(const Range* buffers, size_t count, uint64_t seed) {
  shuffled = seed != 0;
  order.seed(seed);
  memory::set_buffers(buffers, count);
}

Counts counts() { return memory::counts(); }

std::vector<Launch> launches;

std::vector<Launch> take_launches() { return std::exchange(launches, {}); }

int chosen_device = 0;

void set_device(int index, int images) {
  if (index < 0 || index > 2 || images < 1 || images > kMostImages) throw std::runtime_error("no such device");
  chosen_device = index * kMostImages + images - 1;
}

int device() { return chosen_device; }

Device device_of(int number) {
  Device device = kDevices[number / kMostImages];
  device.multiprocessors = std::max(1, device.multiprocessors / (number % kMostImages + 1));
  return device;
}

int64_t offset_in_module(const void* address) {
  Dl_info module;
  if (!dladdr(address, &module)) return -1;
  return static_cast<const char*>(address) - static_cast<const char*>(module.dli_fbase);
}

void launch(Index grid, Index block, size_t dynamic_shared_bytes, Range range, void (*function)(const void*),
            const void* kernel) {
  const size_t threads = static_cast<size_t>(block.x) * block.y * block.z;
  if (threads == 0 || threads > 1024) throw std::runtime_error("a block must have 1 to 1024 threads");
  const size_t count = static_cast<size_t>(grid.x) * grid.y * grid.z;
  launches.push_back(
      {static_cast<int>(threads), dynamic_shared_bytes, static_cast<int64_t>(count), offset_in_module(kernel)});
  prepare_stacks(threads);
  fibers.resize(threads);
  lanes.resize(threads);
  dynamic_memory.reset(new char[dynamic_shared_bytes]);
  memory::enter_launch({dynamic_memory.get(), dynamic_shared_bytes, sizeof(float)}, range);
  call = {function, range.begin};
  error.clear();
  blockDim = block;
  gridDim = grid;
  std::vector<unsigned> blocks(count);
  std::iota(blocks.begin(), blocks.end(), 0u);
  if (shuffled) std::shuffle(blocks.begin(), blocks.end(), order);
  for (const unsigned index : blocks) {
    blockIdx = {index % grid.x, index / grid.x % grid.y, index / grid.x / grid.y};
    run_block();
  }
}

void fail(const char* what) {
  error = what + where();
  running->state = State::kDone;
  _longjmp(scheduler, 1);
}

void* dynamic_shared() { return dynamic_memory.get(); }

void block_barrier(int line) {
  memory::wait_at_barrier(__builtin_return_address(0));
  wait(State::kAtBlockBarrier, line);
}

bool block_or(int line, bool predicate) {
  memory::wait_at_barrier(__builtin_return_address(0));
  // Nobody sets it before everybody has read the last one.
  wait(State::kAtBlockBarrier, line);
  block_predicate = false;
  wait(State::kAtBlockBarrier, -line);
  block_predicate |= predicate;
  wait(State::kAtBlockBarrier, line);
  return block_predicate;
}

void warp_barrier(int line) { wait(State::kAtWarpBarrier, line); }

int lane() { return static_cast<int>((running - fibers.data()) % kWarp); }

uint64_t exchange(int line, uint32_t mask, uint64_t value, int source) {
  if (mask != ~0u) fail("the emulator knows shuffles and ballots of whole warps only");
  const size_t self = running - fibers.data();
  lanes[self] = value;
  warp_barrier(line);
  const uint64_t result = lanes[std::min(self / kWarp * kWarp + source, fibers.size() - 1)];
  warp_barrier(-line);
  return result;
}

uint32_t ballot(int line, uint32_t mask, bool predicate) {
  uint32_t votes = 0;
  for (int source = 0; source < kWarp; ++source) {
    votes |= static_cast<uint32_t>(exchange(line, mask, predicate, source) != 0) << source;
  }
  return votes;
}

}  // namespace emulator
