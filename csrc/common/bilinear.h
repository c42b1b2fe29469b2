// Where bilinear sampling reads, as torch.nn.functional.interpolate has it, without antialiasing. Positions are ratios
// of integers, so that every backend finds the same neighbours at every size.
#pragma once

#include <cstdint>

#include "philox.h"  // MASKMATCH_HOST_DEVICE

namespace maskmatch {

// One output position of one axis reads input[low] * (1 - fraction) + input[high] * fraction.
struct Sample {
  int32_t low, high;
  float fraction;
};

// One axis of a resize; sides are from 1 to 2**30. Output i lies at input position (i * scale + offset) / divisor, but
// not before 0.
struct Bilinear {
  int64_t input_size, output_size, scale, offset, divisor;

  MASKMATCH_HOST_DEVICE int64_t numerator(int64_t output) const { return output * scale + offset; }

  MASKMATCH_HOST_DEVICE Sample sample(int64_t output) const {
    const int64_t position = numerator(output) > 0 ? numerator(output) : 0;
    const int64_t low = position / divisor;
    if (low >= input_size - 1) return {static_cast<int32_t>(input_size - 1), static_cast<int32_t>(input_size - 1), 0};
    const float fraction = static_cast<float>(position - low * divisor) / static_cast<float>(divisor);
    return {static_cast<int32_t>(low), static_cast<int32_t>(low + 1), fraction};
  }

  // The first output whose low sample is `low` or later; output_size where there is none. `low` may be input_size.
  MASKMATCH_HOST_DEVICE int64_t first_output(int64_t low) const {
    if (low <= 0) return 0;
    if (low >= input_size || scale == 0) return output_size;
    const int64_t output = (low * divisor - offset + scale - 1) / scale;
    return output < output_size ? output : output_size;
  }
};

inline Bilinear bilinear(int64_t input_size, int64_t output_size, bool align_corners) {
  if (!align_corners) return {input_size, output_size, 2 * input_size, input_size - output_size, 2 * output_size};
  if (output_size == 1) return {input_size, output_size, 0, 0, 1};
  return {input_size, output_size, input_size - 1, 0, output_size - 1};
}

}  // namespace maskmatch
