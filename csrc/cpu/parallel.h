// Tasks on torch's own thread pool, each thread with a scratch buffer.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <cstdint>
#include <memory>

namespace maskmatch {

// Calls run(task, scratch) for every task; `scratch` is aligned to a cache line and holds `floats` floats.
template <class Run>
void parallel_tasks(int64_t tasks, int64_t floats, const Run& run) {
  torch::stable::parallel_for(0, tasks, 1, [&](int64_t begin, int64_t end) {
    constexpr size_t kCacheLine = 64;
    struct alignas(kCacheLine) Line {
      float values[kCacheLine / sizeof(float)];
    };
    const std::unique_ptr<Line[]> scratch(new Line[floats * sizeof(float) / kCacheLine + 1]);
    for (int64_t task = begin; task < end; ++task) run(task, scratch[0].values);
  });
}

}  // namespace maskmatch
