// What the CPU and CUDA forms of multiscale_pseudo_label check and allocate alike.
#pragma once

#include <string>
#include <tuple>
#include <vector>

#include "checks.h"

namespace maskmatch {

inline void check_pseudo_label(const std::vector<Tensor>& logits, int64_t height, int64_t width,
                               const std::vector<int64_t>& flipped, const std::vector<double>& weights,
                               const std::string& average) {
  if (logits.empty()) fail("logits must hold at least one scale");
  if (flipped.size() != logits.size() || weights.size() != logits.size()) {
    fail("flipped and weights must have one entry for each of ", logits.size(), " scales, got ", flipped.size(),
         " and ", weights.size());
  }
  check_shape("logits[0]", logits[0], {-1, -1, -1, -1});
  check_range("classes", static_cast<double>(logits[0].size(1)), 1, 255);
  check_range("height", static_cast<double>(height), 1, 1 << 30);
  check_range("width", static_cast<double>(width), 1, 1 << 30);
  for (const Tensor& scale : logits) {
    check_shape("logits", scale, {logits[0].size(0), logits[0].size(1), -1, -1});
    check_dtype("logits", scale, {ScalarType::Float, ScalarType::Half, ScalarType::BFloat16});
    check_same_device("logits", scale, logits[0]);
    check_range("logits height", static_cast<double>(scale.size(2)), 1, 1 << 30);
    check_range("logits width", static_cast<double>(scale.size(3)), 1, 1 << 30);
  }
  if (average != "probability" && average != "logit") {
    fail("average must be one of probability, logit, got ", average);
  }
}

// Label and confidence, [N, height, width].
inline std::tuple<Tensor, Tensor> new_pseudo_label(const Tensor& logits, int64_t height, int64_t width) {
  const auto new_map = [&](ScalarType dtype) {
    return torch::stable::empty({logits.size(0), height, width}, dtype, std::nullopt, logits.device());
  };
  return {new_map(ScalarType::Byte), new_map(ScalarType::Float)};
}

}  // namespace maskmatch
