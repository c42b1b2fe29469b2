// The CUDA form of multiscale_pseudo_label, on raw pointers.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "../common/bilinear.h"
#include "../common/element.h"

namespace maskmatch::cuda {

constexpr int kMaxScales = 32;

struct PseudoLabelScale {
  const void* logits;  // [N, C, h, w]
  Bilinear rows, columns;
  float weight;
  bool flipped;
};

struct PseudoLabelArgs {
  PseudoLabelScale scales[kMaxScales];
  int scale_count;
  ElementType type;  // of the logits: not kUint8
  int64_t count;
  int classes, height, width;
  bool average_probability;
  uint8_t* label;     // [N, height, width]
  float* confidence;  // [N, height, width]
};

// Enqueues the kernel; returns the launch error.
cudaError_t launch_multiscale_pseudo_label(const PseudoLabelArgs& args, cudaStream_t stream);

}  // namespace maskmatch::cuda
