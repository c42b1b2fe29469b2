// The CUDA form of uniform, on raw pointers.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace maskmatch::cuda {

struct UniformArgs {
  const int64_t* seeds;  // [rows]
  int64_t rows, count;
  uint32_t stream;
  float* numbers;  // [rows, count]
};

// Enqueues the kernel; returns the launch error.
cudaError_t launch_uniform(const UniformArgs& args, cudaStream_t stream);

}  // namespace maskmatch::cuda
