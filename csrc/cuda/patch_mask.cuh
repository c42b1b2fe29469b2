// The CUDA form of patch_mask, on raw pointers.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "../common/element.h"
#include "../common/patch_key.h"

namespace maskmatch::cuda {

constexpr int kMaxChannels = 256;

struct PatchMaskArgs {
  const void* images;  // [N, C, H, W] or, channels_last, [N, H, W, C]
  ElementType type;    // of the images; the output has the same, or float for kUint8
  bool channels_last;
  int64_t count;
  int32_t channels, height, width, patch_size, rows, columns;
  int64_t hidden;
  Strategy strategy;
  const int64_t* seeds;  // [N]
  bool* grid;            // [N, rows, columns]
  void* output;          // as images
  // value * scale + bias normalises, `fill` is a hidden pixel's normalised value
  float scale[kMaxChannels], bias[kMaxChannels], fill[kMaxChannels];
};

// Enqueues the kernels; returns the first launch error.
cudaError_t launch_patch_mask(const PatchMaskArgs& args, cudaStream_t stream);

}  // namespace maskmatch::cuda
