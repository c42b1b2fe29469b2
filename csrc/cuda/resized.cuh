// Resized logits, a column of pixels at a time: pixels of one column that lie between the same two input rows share
// what they read.
#pragma once

#include "../common/bilinear.h"
#include "../common/log2.h"
#include "kernel.cuh"

namespace maskmatch::cuda {

// The pixels of one column, one below the other, that a thread takes together; the first one's place.
struct Strip {
  int32_t row, column;
};

// Logits whose type is known when the kernel runs alone; reads as a pointer does.
struct AnyLogits {
  const void* data;
  ElementType type;

  __device__ float operator[](int64_t i) const {
    if (type == ElementType::kHalf) return to_float(static_cast<const __half*>(data)[i]);
    if (type == ElementType::kBFloat16) return to_float(static_cast<const __nv_bfloat16*>(data)[i]);
    return static_cast<const float*>(data)[i];
  }
  __device__ AnyLogits operator+(int64_t i) const {
    const int64_t bytes = type == ElementType::kFloat ? sizeof(float) : sizeof(__half);
    return {static_cast<const char*>(data) + i * bytes, type};
  }
};

// Logits of classes in units of log2, so that exp2 gives the powers: top + fraction * step at a pixel that lies
// `fraction` of the way from the upper to the lower input row.
template <int kClasses>
struct Resized {
  float top[kClasses], step[kClasses];

  __device__ float at(int k, float fraction) const { return top[k] + fraction * step[k]; }
};

// Where a column of pixels reads; `Logits` is a pointer or AnyLogits.
template <class Logits>
struct Column {
  Logits logits;   // [C, h, w] of the image, at the left neighbour's column
  int64_t plane;   // h * w
  int64_t width;   // w
  int32_t height;  // h
  int32_t right;   // the right neighbour's distance: 1, or 0 at the edge
  float fraction;  // from the left to the right neighbour

  __device__ float between(Logits left) const {
    const float value = to_float(left[0]);
    return kLog2E * (value + fraction * (to_float(left[right]) - value));
  }

  // Classes first, first + 1, ... between input row `low` and the next; those past the last class are lowest.
  template <int kClasses>
  __device__ Resized<kClasses> read(int first, int classes, int32_t low) const {
    Resized<kClasses> resized;
    const Logits top = logits + (first * plane + low * width);
    const int64_t down = low + 1 < height ? width : 0;
#pragma unroll
    for (int k = 0; k < kClasses; ++k) {
      resized.top[k] = kLowest;
      resized.step[k] = 0;
      if (first + k < classes) {
        resized.top[k] = between(top + k * plane);
        resized.step[k] = between(top + (k * plane + down)) - resized.top[k];
      }
    }
    return resized;
  }
};

template <class Logits>
__device__ Column<Logits> column_of(Logits logits, const Bilinear& rows, const Bilinear& columns,
                                    const Sample& sample) {
  return {logits + sample.low,      rows.input_size * columns.input_size,
          columns.input_size,       static_cast<int32_t>(rows.input_size),
          sample.high - sample.low, sample.fraction};
}

// The sum of 2 ** logit over classes, relative to the highest one so far: highest + log2(sum) is log2 of the sum.
struct PowerSum {
  float highest = kLowest, sum = 0;

  template <int kClasses>
  __device__ void add(const Resized<kClasses>& resized, float fraction) {
    float chunk = resized.at(0, fraction);
#pragma unroll
    for (int k = 1; k < kClasses; ++k) chunk = fmaxf(chunk, resized.at(k, fraction));
    if (chunk > highest) {
      sum *= exp2f(highest - chunk);
      highest = chunk;
    }
#pragma unroll
    for (int k = 0; k < kClasses; ++k) sum += exp2f(resized.at(k, fraction) - highest);
  }

  __device__ float log2() const { return highest + log2f(sum); }
};

}  // namespace maskmatch::cuda
