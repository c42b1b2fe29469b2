// Checks of what the dispatcher hands over. The Python functions have refused wrong arguments with better words; these
// keep a direct call of torch.ops.maskmatch.* from reading out of bounds.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <initializer_list>
#include <sstream>
#include <stdexcept>
#include <string>

#include "element.h"

namespace maskmatch {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

template <class... Parts>
[[noreturn]] inline void fail(const Parts&... parts) {
  std::ostringstream text;
  ((text << parts), ...);
  throw std::runtime_error(text.str());
}

inline std::string shape_text(const Tensor& tensor) {
  std::ostringstream text;
  text << "[";
  for (int64_t i = 0; i < tensor.dim(); ++i) text << (i ? ", " : "") << tensor.size(i);
  text << "]";
  return text.str();
}

// Rank or exact shape; a negative size is free.
inline void check_shape(const char* name, const Tensor& tensor, std::initializer_list<int64_t> shape) {
  bool right = tensor.dim() == static_cast<int64_t>(shape.size());
  for (size_t axis = 0; right && axis < shape.size(); ++axis) {
    const int64_t size = shape.begin()[axis];
    right = size < 0 || tensor.size(static_cast<int64_t>(axis)) == size;
  }
  if (right) return;
  std::ostringstream expected;
  for (const int64_t size : shape) {
    expected << (expected.tellp() > 0 ? ", " : "") << (size < 0 ? "*" : std::to_string(size));
  }
  fail(name, " must be [", expected.str(), "], got ", shape_text(tensor));
}

inline void check_dtype(const char* name, const Tensor& tensor, std::initializer_list<ScalarType> dtypes) {
  for (const ScalarType dtype : dtypes) {
    if (tensor.scalar_type() == dtype) return;
  }
  fail(name, " has a dtype that this operator does not take: ", torch::headeronly::toString(tensor.scalar_type()));
}

inline void check_same_device(const char* name, const Tensor& tensor, const Tensor& first) {
  if (tensor.device() != first.device()) fail(name, " must be on the device of the first argument");
}

inline void check_range(const char* name, double value, double low, double high) {
  if (!(value >= low && value <= high)) fail(name, " must be in [", low, ", ", high, "], got ", value);
}

// As the kernels know it; only of tensors whose dtype was checked.
inline ElementType element_type(const Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case ScalarType::Byte:
      return ElementType::kUint8;
    case ScalarType::Half:
      return ElementType::kHalf;
    case ScalarType::BFloat16:
      return ElementType::kBFloat16;
    default:
      return ElementType::kFloat;
  }
}

}  // namespace maskmatch
