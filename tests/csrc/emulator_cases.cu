// What the emulator must offer to kernels and what it must refuse: `emulator_cases NAME` runs one case;
// test_emulator.py says what each should do.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdio>
#include <stdexcept>
#include <string>

namespace {

constexpr int kThreads = 96;

struct Args {
  int* out;  // [kThreads]
};

// Every thread's sum of its warp's threads, by shuffles; then the odd threads of its warp, by a ballot.
__global__ void warps(Args args) {
  int sum = threadIdx.x;
  for (int lanes = 16; lanes > 0; lanes /= 2) sum += __shfl_xor_sync(~0u, sum, lanes);
  const unsigned odd = __ballot_sync(~0u, threadIdx.x % 2 == 1);
  const int first = __shfl_sync(~0u, static_cast<int>(threadIdx.x), 0);
  args.out[threadIdx.x] = sum + (odd == 0xaaaaaaaau ? 0 : 1000000) + first;
}

__global__ void atomics(Args args) {
  __shared__ int total;
  if (threadIdx.x == 0) total = 0;
  __syncthreads();
  atomicAdd(&total, static_cast<int>(threadIdx.x));
  __syncthreads();
  args.out[threadIdx.x] = total;
}

__global__ void dynamic_memory(Args args) {
  MASKMATCH_DYNAMIC_SHARED(values);
  values[threadIdx.x] = static_cast<float>(threadIdx.x);
  const bool any = __syncthreads_or(threadIdx.x == 70);
  args.out[threadIdx.x] = static_cast<int>(values[kThreads - 1 - threadIdx.x]) + (any ? 0 : 1000);
}

__global__ void beyond_shared(Args args) {
  MASKMATCH_DYNAMIC_SHARED(values);
  values[threadIdx.x + 1] = 0;
  args.out[threadIdx.x] = 0;
}

__global__ void beyond_global(Args args) { args.out[threadIdx.x + 1] = 0; }

__global__ void shared_race(Args args) {
  __shared__ int values[kThreads];
  values[threadIdx.x] = 0;
  __syncthreads();
  values[threadIdx.x] = threadIdx.x;
  args.out[threadIdx.x] = values[threadIdx.x ^ 1];
}

__global__ void global_race(Args args) {  // of two blocks
  args.out[threadIdx.x] = blockIdx.x;
}

__global__ void never_written(Args args) {
  __shared__ int values[kThreads];
  if (threadIdx.x != 3) values[threadIdx.x] = threadIdx.x;
  __syncthreads();
  args.out[threadIdx.x] = values[threadIdx.x];
}

__global__ void skipped_barrier(Args args) {
  if (threadIdx.x == 5) return;
  __syncthreads();
  args.out[threadIdx.x] = 0;
}

__global__ void two_barriers(Args args) {
  if (threadIdx.x == 5) {
    __syncthreads();
  } else {
    __syncthreads();
  }
  args.out[threadIdx.x] = 0;
}

// Every half number converted there and back, and the float between each two, which rounds to the even one.
int conversion_errors() {
  int errors = 0;
  for (uint32_t bits = 0; bits < 0x7c00; ++bits) {
    const float low = __half2float({static_cast<uint16_t>(bits)});
    const float high = bits + 1 < 0x7c00 ? __half2float({static_cast<uint16_t>(bits + 1)}) : 65536.0f;
    errors += __float2half_rn(low).bits != bits || __float2half_rn(-low).bits != (bits | 0x8000);
    errors += __float2half_rn((low + high) / 2).bits != (bits + 1) / 2 * 2;
  }
  for (uint32_t bits = 0; bits + 1 < 0x7f80; ++bits) {
    const float low = __bfloat162float({static_cast<uint16_t>(bits)});
    const float high = __bfloat162float({static_cast<uint16_t>(bits + 1)});
    errors += __float2bfloat16_rn(low).bits != bits;
    errors += __float2bfloat16_rn(low + (high - low) / 2).bits != (bits + 1) / 2 * 2;
  }
  const float infinity = INFINITY, nan = NAN;
  errors += __float2half_rn(infinity).bits != 0x7c00 || !std::isnan(__half2float(__float2half_rn(nan)));
  errors += __float2bfloat16_rn(infinity).bits != 0x7f80 || !std::isnan(__bfloat162float(__float2bfloat16_rn(nan)));
  return errors;
}

struct Case {
  const char* name;
  void (*kernel)(Args);
  unsigned blocks;
  size_t shared_bytes;
};

const Case cases[] = {
    {"warps", warps, 1, 0},
    {"atomics", atomics, 1, 0},
    {"dynamic_memory", dynamic_memory, 1, kThreads * sizeof(float)},
    {"beyond_shared", beyond_shared, 1, kThreads * sizeof(float)},
    {"beyond_global", beyond_global, 1, 0},
    {"shared_race", shared_race, 1, 0},
    {"global_race", global_race, 2, 0},
    {"never_written", never_written, 1, 0},
    {"skipped_barrier", skipped_barrier, 1, 0},
    {"two_barriers", two_barriers, 1, 0},
};

}  // namespace

int main(int count, char** arguments) {
  const std::string name = count > 1 ? arguments[1] : "";
  if (name == "conversions") return std::printf("%d\n", conversion_errors()) < 0;
  for (const Case& tried : cases) {
    if (name != tried.name) continue;
    int out[kThreads] = {};
    const emulator::Range buffer{out, sizeof out, sizeof(int)};
    emulator::reset(&buffer, 1, 7);
    cudaLaunchConfig_t config{dim3(tried.blocks), dim3(kThreads), tried.shared_bytes, nullptr};
    try {
      cudaLaunchKernelEx(&config, tried.kernel, Args{out});
    } catch (const std::runtime_error& error) {
      return std::printf("%s\n", error.what()) < 0;
    }
    for (const int value : out) std::printf("%d ", value);
    return 0;
  }
  return 1;
}
