// What the kernels of upsample_cross_entropy and of its backward are given, on every device. No C++ library header is
// included here: see cpu/simd/kernels.h.
#pragma once

#include <stdint.h>

#include "element.h"

namespace maskmatch {

enum class LossMode { kLoss, kLossAndGradient, kGradient };

// What the sum is divided by: the non-ignored pixels, the confident ones among them, or a number that is given. kNone:
// there is no sum, but every pixel's loss.
enum class Normalize { kAll, kConfident, kGiven, kNone };

// Raw pointers to dense memory. `Axis` says where an axis is sampled, `Totals` what a task of the device finds. All but
// both is filled in by cross_entropy.h.
template <class Axis, class Totals>
struct LossArgs {
  LossMode mode;
  ElementType type;    // of the logits: not kUint8, on the CPU kFloat alone
  const void* logits;  // [N, C, h, w]
  int64_t count;
  int classes;
  Axis rows, columns;    // from h to H and from w to W
  const void* target;    // [N, H, W]
  bool target_is_uint8;  // else int64
  int64_t ignore_index;
  const float* confidence;  // [N, H, W] or null
  float threshold;
  const float* pixel_weight;  // [N, H, W] or null
  const float* class_weight;  // [C] or null
  float label_smoothing;
  const float* grad_output;  // [N, H, W], kGradient only
  float* log_sum;            // [N, H, W] of log sum exp; read by kGradient, written by kLoss or null
  float* pixel_loss;         // [N, H, W] or null
  void* gradient;            // [N, C, h, w]: float for kLossAndGradient, of the logits' type for kGradient; or null
  Totals* totals;            // of every task, working space; on CUDA not for kGradient
  float* loss;               // [] or null, the summed loss, divided
  Normalize normalize;
  const float* given_divisor;  // [], kGiven only
  float* divisor;              // [] or null, what the summed loss was divided by
};

}  // namespace maskmatch
