// What the sum of upsample_cross_entropy is divided by, on every device.
#pragma once

#include <math.h>
#include <stdint.h>

#include "loss_args.h"
#include "philox.h"  // MASKMATCH_HOST_DEVICE

namespace maskmatch {

// Where nothing counts the loss is 0, and so is its gradient.
MASKMATCH_HOST_DEVICE inline float divisor_of(Normalize normalize, const float* given, int64_t valid,
                                              int64_t confident) {
  if (normalize == Normalize::kGiven) return *given > 0 ? *given : HUGE_VALF;
  const int64_t count = normalize == Normalize::kAll ? valid : confident;
  return static_cast<float>(count > 0 ? count : 1);
}

}  // namespace maskmatch
