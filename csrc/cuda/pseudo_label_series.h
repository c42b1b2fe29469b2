// What launches the kernels of pseudo_label_series.cuh, which are compiled for one scale and for up to three in files
// of their own, as they take long.
#pragma once

#include "divider.h"
#include "kernel.cuh"
#include "multiscale_pseudo_label.cuh"

namespace maskmatch::cuda {

constexpr int kMaxSeriesScales = 3;

// An axis of a resize whose numbers fit 32 bits; see Bilinear.
struct SeriesAxis {
  int32_t input_size, output_size, scale, offset;
  Divider divisor, by_scale;
  float inverse;  // 1 / divisor

  __device__ Sample sample(int32_t output) const {
    int32_t low = output * scale + offset > 0 ? output * scale + offset : 0;
    const int32_t left = divisor.split(low);
    if (low >= input_size - 1) return {input_size - 1, input_size - 1, 0};
    return {low, low + 1, static_cast<float>(left) * inverse};
  }

  // Whether an output lies before the first input, where nothing changes from output to output.
  __device__ bool before(int32_t output) const { return output * scale + offset < 0; }

  // The first output that is not before the input `low`.
  __device__ int32_t first_output(int32_t low) const {
    const int32_t distance = low * static_cast<int32_t>(divisor.divisor) - offset;
    return distance > 0 && scale > 0 ? static_cast<int32_t>(by_scale.quotient(distance + scale - 1)) : 0;
  }
};

struct SeriesArgs {
  PseudoLabelArgs labels;
  SeriesAxis rows[kMaxSeriesScales], columns[kMaxSeriesScales];
  int32_t strip_rows, down, across;  // rows of a strip; tiles of an image
};

// Floats of shared memory in front of the staged elements: SeriesColumns and SeriesRows.
__host__ __device__ inline int32_t series_floats(int scales, int threads, int32_t rows) {
  return ((3 * scales + 2) * threads + 3 * scales * rows + 3) / 4 * 4;
}

struct SeriesKernel {
  void (*kernel)(SeriesArgs);
  int scales, classes;                       // at the most
  int threads, columns, strips_down, pitch;  // of a block; its pixels across and strips down; floats of an element
};

const SeriesKernel& find_series_of_one(int classes);
const SeriesKernel& find_series_of_three(int classes);

}  // namespace maskmatch::cuda
