// The CUDA form of upsample_cross_entropy and its backward, on raw pointers.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "../common/bilinear.h"
#include "../common/loss_args.h"

namespace maskmatch::cuda {

// What a thread block found among its pixels.
struct LossTotals {
  float loss;
  int64_t valid, confident;
};

using CrossEntropyArgs = LossArgs<Bilinear, LossTotals>;  // totals: [loss_blocks(args)]

// Thread blocks that a launch takes.
int64_t loss_blocks(const CrossEntropyArgs& args);

// Enqueues the kernels; returns the first launch error.
cudaError_t launch_upsample_cross_entropy(const CrossEntropyArgs& args, cudaStream_t stream);

}  // namespace maskmatch::cuda
