// What the CPU and CUDA forms of uniform check and allocate alike.
#pragma once

#include <limits>
#include <optional>
#include <tuple>

#include "checks.h"

namespace maskmatch {

// The seeds, contiguous, and the numbers, which are yet to be drawn.
inline std::tuple<Tensor, Tensor> uniform_tensors(const Tensor& seeds, int64_t count, int64_t stream) {
  check_shape("seeds", seeds, {-1});
  check_dtype("seeds", seeds, {ScalarType::Long});
  check_range("count", static_cast<double>(count), 0, std::numeric_limits<int32_t>::max());
  check_range("stream", static_cast<double>(stream), 0, std::numeric_limits<uint32_t>::max());
  return {torch::stable::contiguous(seeds),
          torch::stable::empty({seeds.size(0), count}, ScalarType::Float, std::nullopt, seeds.device())};
}

}  // namespace maskmatch
