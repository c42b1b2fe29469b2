// The sampling tables of one axis of a resize.
#pragma once

#include <cstdint>
#include <vector>

#include "../common/bilinear.h"
#include "simd/kernels.h"

namespace maskmatch {

class AxisTable {
 public:
  AxisTable(int64_t input_size, int64_t output_size, bool align_corners, bool flipped = false) {
    const int64_t padded = (output_size + kAxisPadding - 1) / kAxisPadding * kAxisPadding;
    for (int64_t i = 0; i < padded; ++i) {
      const int64_t inside = i < output_size ? i : output_size - 1;
      const Sample sample =
          bilinear_sample(flipped ? output_size - 1 - inside : inside, input_size, output_size, align_corners);
      low_.push_back(sample.low);
      high_.push_back(sample.high);
      fraction_.push_back(sample.fraction);
    }
  }

  Axis axis() const { return {low_.data(), high_.data(), fraction_.data()}; }

  // The first output that reads each input as its low one, and the number of outputs after the last.
  std::vector<int32_t> first_outputs(int64_t input_size, int64_t output_size) const {
    std::vector<int32_t> first(input_size + 1, static_cast<int32_t>(output_size));
    for (int64_t output = output_size - 1, input = input_size - 1; input >= 0; --input) {
      while (output >= 0 && low_[output] >= input) --output;
      first[input] = static_cast<int32_t>(output + 1);
    }
    return first;
  }

 private:
  std::vector<int32_t> low_, high_;
  std::vector<float> fraction_;
};

}  // namespace maskmatch
