// The affine map of patch_mask over a run of elements; hidden ones have a scale of 0 and take the bias as it is.
#pragma once

#include "kernels.h"
#include "vector.h"

namespace maskmatch {
namespace MASKMATCH_ISA {

MASKMATCH_INLINE Floats load_pixels(const float* from) { return load(from); }
MASKMATCH_INLINE Floats load_pixels(const uint8_t* from) { return __builtin_convertvector(widen(from), Floats); }

template <class Element>
MASKMATCH_INLINE void normalize_vector(const Element* input, const float* scale, const float* bias, float* output) {
  const Floats factor = load(scale), offset = load(bias);
  const Floats value = load_pixels(input) * factor + offset;
  // A hidden NaN or infinity must not come through.
  store(output, sizeof(Element) == 1 ? value : factor == 0.0f ? offset : value);
}

template <class Element>
MASKMATCH_INLINE void normalize_row(const Element* input, const float* scale, const float* bias, int64_t count,
                                    float* output) {
  if (count < kLanes) {
    for (int64_t i = 0; i < count; ++i) {
      output[i] = scale[i] == 0.0f ? bias[i] : static_cast<float>(input[i]) * scale[i] + bias[i];
    }
    return;
  }
  const int64_t last = count - kLanes;
  for (int64_t i = 0; i < last; i += kLanes) normalize_vector(input + i, scale + i, bias + i, output + i);
  normalize_vector(input + last, scale + last, bias + last, output + last);  // some of it for the second time
}

template <class Element>
MASKMATCH_INLINE void normalize_rows(const Element* input, const NormalizeArgs& args) {
  const int64_t count = args.count, rows = args.rows;
  const float *scale = args.scale, *bias = args.bias;
  float* output = args.output;
  for (int64_t row = 0; row < rows; ++row) {
    normalize_row(input + row * count, scale, bias, count, output + row * count);
  }
}

static void normalize(const NormalizeArgs& args) {
  if (args.is_uint8) {
    normalize_rows(static_cast<const uint8_t*>(args.input), args);
  } else {
    normalize_rows(static_cast<const float*>(args.input), args);
  }
}

}  // namespace MASKMATCH_ISA
}  // namespace maskmatch
