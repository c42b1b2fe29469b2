// What upsample_cross_entropy adds up beside the gradient: loss and counts, of a thread block and then of all blocks.
#pragma once

#include "../common/loss_divisor.h"
#include "kernel.cuh"
#include "upsample_cross_entropy.cuh"

namespace maskmatch::cuda {

constexpr int kThreads = 512;  // of a block, in every kernel of the operator

// The thread block's sum, in thread 0; every thread must call this.
static __device__ LossTotals block_sum(LossTotals totals) {
  __shared__ LossTotals warps[kThreads / 32];
  for (int offset = 16; offset > 0; offset /= 2) {
    totals.loss += __shfl_down_sync(~0u, totals.loss, offset);
    totals.valid += __shfl_down_sync(~0u, totals.valid, offset);
    totals.confident += __shfl_down_sync(~0u, totals.confident, offset);
  }
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = totals;
  __syncthreads();
  for (int warp = 1; warp < static_cast<int>(blockDim.x / 32) && threadIdx.x == 0; ++warp) {
    totals.loss += warps[warp].loss;
    totals.valid += warps[warp].valid;
    totals.confident += warps[warp].confident;
  }
  return totals;
}

struct SumArgs {
  const LossTotals* totals;  // [blocks]
  int64_t blocks;
  Normalize normalize;
  const float* given_divisor;
  float* loss;
  float* divisor;
};

// The sums over the thread blocks, always in the same order, and the division.
static __global__ void __launch_bounds__(kThreads) sum_blocks(SumArgs args) {
  __shared__ double losses[kThreads];
  __shared__ int64_t valid[kThreads], confident[kThreads];
  const int thread = threadIdx.x;
  losses[thread] = 0;
  valid[thread] = confident[thread] = 0;
  for (int64_t i = thread; i < args.blocks; i += kThreads) {
    losses[thread] += args.totals[i].loss;
    valid[thread] += args.totals[i].valid;
    confident[thread] += args.totals[i].confident;
  }
  for (int half = kThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (thread < half) {
      losses[thread] += losses[thread + half];
      valid[thread] += valid[thread + half];
      confident[thread] += confident[thread + half];
    }
  }
  if (thread == 0) {
    const float divisor = divisor_of(args.normalize, args.given_divisor, valid[0], confident[0]);
    *args.divisor = divisor;
    *args.loss = static_cast<float>(losses[0]) / divisor;
  }
}

}  // namespace maskmatch::cuda
