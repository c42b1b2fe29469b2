// What every kernel uses: element types, launching, and memory that is shared by a thread block.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "element.h"

// Names the block's dynamic shared memory, whose size the launch gives. The emulator has its own definition.
#ifndef MASKMATCH_DYNAMIC_SHARED
#define MASKMATCH_DYNAMIC_SHARED(name) extern __shared__ float name[]
#endif

namespace maskmatch::cuda {

__device__ inline float to_float(uint8_t value) { return static_cast<float>(value); }
__device__ inline float to_float(float value) { return value; }
__device__ inline float to_float(__half value) { return __half2float(value); }
__device__ inline float to_float(__nv_bfloat16 value) { return __bfloat162float(value); }

template <class Element>
__device__ Element from_float(float value);
template <>
__device__ inline float from_float<float>(float value) {
  return value;
}
template <>
__device__ inline __half from_float<__half>(float value) {
  return __float2half_rn(value);
}
template <>
__device__ inline __nv_bfloat16 from_float<__nv_bfloat16>(float value) {
  return __float2bfloat16_rn(value);
}

// Shared memory that a block of the current device may have when the kernel asks for it; 0 where there is no device.
inline size_t max_shared_bytes() {
  int device = 0, bytes = 0;
  if (cudaGetDevice(&device) != cudaSuccess) return 0;
  if (cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device) != cudaSuccess) return 0;
  return static_cast<size_t>(bytes);
}

// Enqueues kernel(args) and returns the launch error.
template <class Args>
cudaError_t launch(void (*kernel)(Args), int64_t blocks, int threads, size_t shared_bytes, cudaStream_t stream,
                   const Args& args) {
  if (blocks == 0) return cudaSuccess;
  if (shared_bytes > 48 << 10) {  // what every kernel may have
    const auto attribute = cudaFuncAttributeMaxDynamicSharedMemorySize;
    const cudaError_t error = cudaFuncSetAttribute(kernel, attribute, static_cast<int>(shared_bytes));
    if (error != cudaSuccess) return error;
  }
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(blocks));
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  return cudaLaunchKernelEx(&config, kernel, args);
}

inline int64_t ceil_div(int64_t dividend, int64_t divisor) { return (dividend + divisor - 1) / divisor; }

}  // namespace maskmatch::cuda
