// What every kernel uses: element types, launching, and memory that is shared by a thread block.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <mutex>
#include <optional>

#include "../common/element.h"

// Names the block's dynamic shared memory, whose size the launch gives. The emulator has its own definition.
#ifndef MASKMATCH_DYNAMIC_SHARED
#define MASKMATCH_DYNAMIC_SHARED(name) extern __shared__ __align__(16) float name[]
#endif

// Keeps the compilers from moving a warp's loads across, where more of them at a time would need too many registers.
// The lanes must be together. The emulator has its own definition.
#ifndef MASKMATCH_KEEP_ORDER
#define MASKMATCH_KEEP_ORDER() __syncwarp()
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

// Four floats in shared memory, aligned to 16 bytes, at a time.
__device__ inline void load4(const float* from, float* values) {
  const float4 four = *reinterpret_cast<const float4*>(from);
  values[0] = four.x, values[1] = four.y, values[2] = four.z, values[3] = four.w;
}
__device__ inline void store4(float* to, const float* values) {
  *reinterpret_cast<float4*>(to) = make_float4(values[0], values[1], values[2], values[3]);
}

// What a device has; zeros where there is none.
struct Device {
  int multiprocessors, shared_bytes,
      shared_bytes_a_block;  // shared memory of a multiprocessor, and of a block that asks

  Device(int index) : multiprocessors(0), shared_bytes(0), shared_bytes_a_block(0) {
    cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, index);
    cudaDeviceGetAttribute(&shared_bytes, cudaDevAttrMaxSharedMemoryPerMultiprocessor, index);
    cudaDeviceGetAttribute(&shared_bytes_a_block, cudaDevAttrMaxSharedMemoryPerBlockOptin, index);
  }
};

// The current device; a process asks the driver once for each.
inline Device current_device() {
  constexpr int kMost = 64;
  static std::once_flag asked[kMost];
  static std::optional<Device> known[kMost];
  int index = 0;
  if (cudaGetDevice(&index) != cudaSuccess || index >= kMost) return Device(index);
  std::call_once(asked[index], [&] { known[index].emplace(index); });
  return *known[index];
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
