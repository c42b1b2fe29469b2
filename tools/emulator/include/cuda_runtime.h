// The part of the CUDA language and runtime that the kernels use, for a host compiler: put this folder first on the
// include path and compile a .cu as C++. See ../emulator.h.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <tuple>

#include "../emulator.h"
#include "cuda_runtime_api.h"

#define __host__
#define __device__
#define __global__
#define __grid_constant__
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
#define __shared__ static  // blocks run one after the other, so that one copy serves them all
#define MASKMATCH_DYNAMIC_SHARED(name) float* const name = static_cast<float*>(emulator::dynamic_shared())

#define MASKMATCH_KEEP_ORDER()

struct dim3 : emulator::Index {
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : Index{x, y, z} {}
};

struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes;
  cudaStream_t stream;
};

enum cudaDeviceAttr {
  cudaDevAttrMultiProcessorCount,
  cudaDevAttrMaxSharedMemoryPerMultiprocessor,
  cudaDevAttrMaxSharedMemoryPerBlockOptin
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };

inline cudaError_t cudaGetDevice(int* device) {
  *device = emulator::device();
  return cudaSuccess;
}
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  const emulator::Device of = emulator::device_of(device);
  *value = attribute == cudaDevAttrMultiProcessorCount                ? of.multiprocessors
           : attribute == cudaDevAttrMaxSharedMemoryPerMultiprocessor ? of.shared_bytes
                                                                      : of.shared_bytes_a_block;
  return cudaSuccess;
}
template <class Kernel>
cudaError_t cudaFuncSetAttribute(Kernel*, cudaFuncAttribute, int bytes) {
  return bytes <= emulator::device_of(emulator::device()).shared_bytes_a_block ? cudaSuccess : cudaErrorInvalidValue;
}

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  struct Call {
    void (*kernel)(Parameters...);
    std::tuple<std::decay_t<Parameters>...> arguments;
  };
  const Call call{kernel, {arguments...}};
  emulator::launch(
      config->gridDim, config->blockDim, config->dynamicSmemBytes, {&call, sizeof call, 1},
      [](const void* memory) {
        const Call& of_thread = *static_cast<const Call*>(memory);
        std::apply(of_thread.kernel, of_thread.arguments);
      },
      reinterpret_cast<const void*>(kernel));
  return cudaSuccess;
}

#define __syncthreads() emulator::block_barrier(__LINE__)
#define __syncthreads_or(predicate) emulator::block_or(__LINE__, predicate)
#define __syncwarp() emulator::warp_barrier(__LINE__)
#define __shfl_down_sync(mask, value, delta) \
  emulator::shuffle(__LINE__, mask, value, [](int lane, int by) { return lane + by; }, delta)
#define __shfl_xor_sync(mask, value, lanes) \
  emulator::shuffle(__LINE__, mask, value, [](int lane, int by) { return lane ^ by; }, lanes)
#define __shfl_sync(mask, value, source) \
  emulator::shuffle(__LINE__, mask, value, [](int, int from) { return from; }, source)
#define __ballot_sync(mask, predicate) emulator::ballot(__LINE__, mask, predicate)

inline int atomicAdd(int* address, int value) { return emulator::atomic_add(address, value); }

inline float __int_as_float(int value) {
  float result;
  std::memcpy(&result, &value, sizeof result);
  return result;
}
inline int __float_as_int(float value) {
  int result;
  std::memcpy(&result, &value, sizeof result);
  return result;
}

struct alignas(16) float4 {
  float x, y, z, w;
};
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline int __popc(uint32_t bits) { return __builtin_popcount(bits); }
inline int __ffs(uint32_t bits) { return __builtin_ffs(static_cast<int>(bits)); }
inline float __fdividef(float dividend, float divisor) { return dividend / divisor; }
using std::max;
using std::min;

#define exp2f(x) emulator::counted(std::exp2(static_cast<float>(x)))
#define log2f(x) emulator::counted(std::log2(static_cast<float>(x)))
#define __log2f(x) log2f(x)
