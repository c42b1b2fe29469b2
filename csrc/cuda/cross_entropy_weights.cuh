// Class weights, in every form of upsample_cross_entropy.
#pragma once

#include "upsample_cross_entropy.cuh"

namespace maskmatch::cuda {
namespace {  // each file that includes this has its own

__device__ float class_weight_of(const CrossEntropyArgs& args, int c) {
  return args.class_weight ? args.class_weight[c] : 1.0f;
}

// C without weights; used by label smoothing alone.
__device__ float class_weight_sum(const CrossEntropyArgs& args) {
  if (!args.class_weight || args.label_smoothing == 0) return static_cast<float>(args.classes);
  float sum = 0;
  for (int c = 0; c < args.classes; ++c) sum += args.class_weight[c];
  return sum;
}

}  // namespace
}  // namespace maskmatch::cuda
