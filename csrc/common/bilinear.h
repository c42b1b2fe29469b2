// Where bilinear sampling reads, as torch.nn.functional.interpolate has it, without antialiasing.
#pragma once

#include <cstdint>

#include "philox.h"  // MASKMATCH_HOST_DEVICE

namespace maskmatch {

// One output position of one axis reads input[low] * (1 - fraction) + input[high] * fraction.
struct Sample {
  int32_t low, high;
  float fraction;
};

MASKMATCH_HOST_DEVICE inline Sample bilinear_sample(int64_t output, int64_t input_size, int64_t output_size,
                                                    bool align_corners) {
  double position;
  if (align_corners) {
    position = output_size > 1 ? output * (static_cast<double>(input_size - 1) / (output_size - 1)) : 0.0;
  } else {
    position = (output + 0.5) * (static_cast<double>(input_size) / output_size) - 0.5;
    if (position < 0) position = 0;
  }
  int64_t low = static_cast<int64_t>(position);
  if (low > input_size - 1) low = input_size - 1;
  const int64_t high = low + 1 < input_size ? low + 1 : low;
  return {static_cast<int32_t>(low), static_cast<int32_t>(high), static_cast<float>(position - low)};
}

}  // namespace maskmatch
