// The CUDA form of patch_mask, on raw pointers.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "../common/patch_key.h"

namespace maskmatch::cuda {

constexpr int kMaxChannels = 64;

struct PatchMaskArgs {
  const void* images;  // [N, C, H, W] or, channels_last, [N, H, W, C]
  bool is_uint8;       // else float
  bool channels_last;
  int64_t count, channels, height, width, patch_size, rows, columns, hidden;
  Strategy strategy;
  float scale[kMaxChannels], bias[kMaxChannels], fill[kMaxChannels];
  const int64_t* seeds;  // [N]
  uint64_t* keys;        // [N, rows * columns], working space
  bool* grid;            // [N, rows, columns]
  float* output;         // as images
};

// Enqueues the kernels; returns the first launch error.
cudaError_t launch_patch_mask(const PatchMaskArgs& args, cudaStream_t stream);

}  // namespace maskmatch::cuda
