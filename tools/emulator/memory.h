// What the fibers do to memory: bounds, races and traffic.
#pragma once

#include "emulator.h"

namespace emulator::memory {

void set_buffers(const Range* buffers, size_t count);
Counts counts();

void enter_launch(Range dynamic_shared, Range call);
void enter_block();
void enter_thread(int thread, const void* stack, size_t stack_bytes);
void leave_thread();
void pass_barrier();
void wait_at_barrier(const void* site);  // a thread, for the profile

}  // namespace emulator::memory
