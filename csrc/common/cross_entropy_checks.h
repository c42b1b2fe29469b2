// What the CPU and CUDA forms of upsample_cross_entropy check and allocate alike.
#pragma once

#include <optional>
#include <tuple>

#include "checks.h"

namespace maskmatch {

using OptionalTensor = std::optional<Tensor>;

inline void check_map(const char* name, const Tensor& map, const Tensor& target) {
  check_shape(name, map, {target.size(0), target.size(1), target.size(2)});
  check_dtype(name, map, {ScalarType::Float});
  check_same_device(name, map, target);
}

inline void check_cross_entropy(const Tensor& logits, const Tensor& target, const OptionalTensor& confidence,
                                const OptionalTensor& pixel_weight, const OptionalTensor& class_weight,
                                double label_smoothing) {
  check_shape("logits", logits, {-1, -1, -1, -1});
  check_dtype("logits", logits, {ScalarType::Float, ScalarType::Half, ScalarType::BFloat16});
  check_range("classes", static_cast<double>(logits.size(1)), 1, 255);
  check_shape("target", target, {logits.size(0), -1, -1});
  check_dtype("target", target, {ScalarType::Byte, ScalarType::Long});
  check_same_device("target", target, logits);
  for (const int axis : {1, 2}) {
    check_range("a side of target", static_cast<double>(target.size(axis)), 1, 1 << 30);
    check_range("a side of logits", static_cast<double>(logits.size(axis + 1)), 1, 1 << 30);
  }
  if (confidence) check_map("confidence", *confidence, target);
  if (pixel_weight) check_map("pixel_weight", *pixel_weight, target);
  if (class_weight) {
    check_shape("class_weight", *class_weight, {logits.size(1)});
    check_dtype("class_weight", *class_weight, {ScalarType::Float});
    check_same_device("class_weight", *class_weight, logits);
  }
  check_range("label_smoothing", label_smoothing, 0, 1);
}

inline const float* data_or_null(OptionalTensor& tensor) {
  if (!tensor) return nullptr;
  tensor = torch::stable::contiguous(*tensor);
  return tensor->const_data_ptr<float>();
}

inline Tensor new_floats(const Tensor& like, torch::headeronly::IntHeaderOnlyArrayRef sizes) {
  return torch::stable::empty(sizes, ScalarType::Float, std::nullopt, like.device());
}

// The results: loss, counts, and what the backward needs; see the schema.
inline std::tuple<Tensor, Tensor, Tensor> new_cross_entropy(const Tensor& logits, const Tensor& target, bool per_pixel,
                                                            bool with_gradient) {
  Tensor loss = per_pixel ? new_floats(logits, target.sizes()) : new_floats(logits, {});
  Tensor counts = torch::stable::empty({2}, ScalarType::Long, std::nullopt, logits.device());
  Tensor saved = !with_gradient ? new_floats(logits, {0})
                 : per_pixel    ? new_floats(logits, target.sizes())
                                : new_floats(logits, logits.sizes());
  return {loss, counts, saved};
}

}  // namespace maskmatch
