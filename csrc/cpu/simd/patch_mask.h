// The affine map of patch_mask over a run of elements; hidden ones have a scale of 0 and take the bias as it is.
#pragma once

#include "kernels.h"
#include "vector.h"

namespace maskmatch {
namespace MASKMATCH_ISA {

template <class Element>
MASKMATCH_INLINE void normalize_elements(const Element* input, const NormalizeArgs& args) {
  for (int64_t i = 0; i < args.count; ++i) {
    const float value = static_cast<float>(input[i]) * args.scale[i] + args.bias[i];
    // A hidden NaN or infinity must not come through.
    args.output[i] = args.scale[i] == 0.0f ? args.bias[i] : value;
  }
}

static void normalize(const NormalizeArgs& args) {
  if (args.is_uint8) {
    normalize_elements(static_cast<const uint8_t*>(args.input), args);
  } else {
    normalize_elements(static_cast<const float*>(args.input), args);
  }
}

}  // namespace MASKMATCH_ISA
}  // namespace maskmatch
