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
    const Bilinear map = bilinear(input_size, output_size, align_corners);
    const int64_t padded = (output_size + kAxisPadding - 1) / kAxisPadding * kAxisPadding;
    for (int64_t i = 0; i < padded; ++i) {
      const int64_t inside = i < output_size ? i : output_size - 1;
      const Sample sample = map.sample(flipped ? output_size - 1 - inside : inside);
      low_.push_back(sample.low);
      // Where nothing is blended, only the columns that count are read and written.
      high_.push_back(sample.fraction == 0 ? sample.low : sample.high);
      fraction_.push_back(sample.fraction);
    }
    for (int64_t low = 0; low <= input_size; ++low) first_.push_back(static_cast<int32_t>(map.first_output(low)));
  }

  Axis axis() const { return {low_.data(), high_.data(), fraction_.data()}; }

  // [input_size + 1], the first output that reads each input, or a later one, as its low one (if not flipped).
  const std::vector<int32_t>& first_outputs() const { return first_; }

 private:
  std::vector<int32_t> low_, high_, first_;
  std::vector<float> fraction_;
};

}  // namespace maskmatch
