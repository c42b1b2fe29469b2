// The CUDA form of upsample_cross_entropy and its backward, on raw pointers.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "../common/bilinear.h"
#include "element.h"

namespace maskmatch::cuda {

enum class LossMode { kLoss, kLossAndGradient, kGradient };

// What a thread block found among its pixels.
struct LossTotals {
  float loss;
  int64_t valid, confident;
};

struct CrossEntropyArgs {
  LossMode mode;
  ElementType type;    // of the logits: not kUint8
  const void* logits;  // [N, C, h, w]
  int64_t count;
  int classes;
  Bilinear rows, columns;  // from h to H and from w to W
  const void* target;      // [N, H, W]
  bool target_is_uint8;    // else int64
  int64_t ignore_index;
  const float* confidence;  // [N, H, W] or null
  float threshold;
  const float* pixel_weight;  // [N, H, W] or null
  const float* class_weight;  // [C] or null
  float label_smoothing;
  const float* grad_output;  // [N, H, W], kGradient only
  float* log_sum;            // [N, H, W] of log sum exp; read by kGradient, written by kLoss or null
  float* pixel_loss;         // [N, H, W] or null
  void* gradient;            // [N, C, h, w]: float for kLossAndGradient, of the logits' type for kGradient
  LossTotals* block_totals;  // [loss_blocks(args)], working space; not for kGradient
  float* loss;               // [] or null, the summed loss
  int64_t* counts;           // [2], non-ignored and confident pixels; not for kGradient
};

// Thread blocks that a launch takes.
int64_t loss_blocks(const CrossEntropyArgs& args);

// Enqueues the kernels; returns the first launch error.
cudaError_t launch_upsample_cross_entropy(const CrossEntropyArgs& args, cudaStream_t stream);

}  // namespace maskmatch::cuda
