// Horizontal bilinear sampling of kLanes neighbouring output pixels at once, and its transpose.
#pragma once

#include "kernels.h"
#include "vector.h"

namespace maskmatch {
namespace MASKMATCH_ISA {

#if defined(__AVX2__)
constexpr bool kPermutes = true;
#else
constexpr bool kPermutes = false;
#endif

// Which input columns kLanes output pixels read. Enlarged images read few: those are loaded as one or two vectors
// (a window) that start at `base`, and spread by a lane permute; else every lane is loaded by itself.
struct Columns {
  const int32_t *low, *high;  // [kLanes]
  Floats fraction;
  int64_t base;
  int windows;               // 1, 2, or 0: lane by lane
  Ints low_lane, high_lane;  // low - base, high - base
};

MASKMATCH_INLINE Columns columns_at(const Axis& axis, int64_t x, int64_t input_width) {
  Columns columns;
  columns.low = axis.low + x;
  columns.high = axis.high + x;
  columns.fraction = load(axis.fraction + x);
  int32_t first = columns.low[0], last = columns.high[0];
  for (int i = 1; i < kLanes; ++i) {
    first = columns.low[i] < first ? columns.low[i] : first;
    last = columns.high[i] > last ? columns.high[i] : last;
  }
  const int64_t span = last - first + 1;
  columns.windows = 0;
  if (kPermutes && span <= kLanes) columns.windows = 1;
  if (kPermutes && span > kLanes && span <= 2 * kLanes && input_width >= 2 * kLanes) columns.windows = 2;
  // A window that would reach beyond the row starts earlier; a row shorter than a window is loaded in part.
  const int64_t latest = input_width - columns.windows * kLanes;
  columns.base = first < latest ? first : (latest > 0 ? latest : 0);
  columns.low_lane = load(columns.low) - static_cast<int32_t>(columns.base);
  columns.high_lane = load(columns.high) - static_cast<int32_t>(columns.base);
  return columns;
}

#if defined(__AVX512F__)
MASKMATCH_INLINE Floats permute(Floats value, Ints lane) {
  return (Floats)_mm512_permutexvar_ps((__m512i)lane, (__m512)value);
}
MASKMATCH_INLINE Floats permute(Floats left, Floats right, Ints lane) {
  return (Floats)_mm512_permutex2var_ps((__m512)left, (__m512i)lane, (__m512)right);
}
#elif defined(__AVX2__)
MASKMATCH_INLINE Floats permute(Floats value, Ints lane) {
  return (Floats)_mm256_permutevar8x32_ps((__m256)value, (__m256i)lane);
}
MASKMATCH_INLINE Floats permute(Floats left, Floats right, Ints lane) {
  return lane < kLanes ? permute(left, lane) : permute(right, lane);  // the permute ignores the higher bits
}
#else
MASKMATCH_INLINE Floats permute(Floats value, Ints lane) {
  Floats result;
  for (int i = 0; i < kLanes; ++i) result[i] = value[lane[i]];
  return result;
}
MASKMATCH_INLINE Floats permute(Floats left, Floats, Ints lane) { return permute(left, lane); }
#endif

// One row sampled at the pixels of `columns`.
MASKMATCH_INLINE Floats sample_row(const float* row, const Columns& columns, int64_t input_width) {
  Floats low, high;
  if (columns.windows == 1) {
    const Floats window = load_some(row + columns.base, input_width - columns.base);
    low = permute(window, columns.low_lane);
    high = permute(window, columns.high_lane);
  } else if (columns.windows == 2) {
    const Floats left = load(row + columns.base), right = load(row + columns.base + kLanes);
    low = permute(left, right, columns.low_lane);
    high = permute(left, right, columns.high_lane);
  } else {
    for (int i = 0; i < kLanes; ++i) {
      low[i] = row[columns.low[i]];
      high[i] = row[columns.high[i]];
    }
  }
  return low + columns.fraction * (high - low);
}

// The part of a resize that kLanes columns and all rows between two input rows share: with the input rows sampled at
// the columns, a pixel is top[c] + fraction_y * step[c]. `factor` scales the logits.
MASKMATCH_INLINE void sample_rows(const float* top_row, const float* bottom_row, int64_t class_stride, int64_t classes,
                                  const Columns& columns, int64_t input_width, float factor, Floats* top,
                                  Floats* step) {
  for (int64_t c = 0; c < classes; ++c) {
    const Floats above = sample_row(top_row + c * class_stride, columns, input_width) * factor;
    const Floats below = sample_row(bottom_row + c * class_stride, columns, input_width) * factor;
    top[c] = above;
    step[c] = below - above;
  }
}

// The transpose of sample_row: adds the pixels' values to the columns that they were sampled from. A window's columns
// take a matrix product: weights[i] holds what pixel i gives to each of them.
struct Spread {
  Floats weights[kLanes];
};

MASKMATCH_INLINE void prepare_spread(const Columns& columns, Spread& spread) {
  if (columns.windows != 1) return;
  Ints lane;
  for (int i = 0; i < kLanes; ++i) lane[i] = i;
  for (int i = 0; i < kLanes; ++i) {
    const Floats to_low = splat(1.0f - columns.fraction[i]), to_high = splat(columns.fraction[i]);
    spread.weights[i] =
        (lane == columns.low_lane[i] ? to_low : splat(0.0f)) + (lane == columns.high_lane[i] ? to_high : splat(0.0f));
  }
}

MASKMATCH_INLINE void add_spread(Floats values, const Columns& columns, const Spread& spread, int64_t input_width,
                                 float* row) {
  float value[kLanes];
  store(value, values);
  if (columns.windows == 1) {
    Floats even = splat(0.0f), odd = splat(0.0f);
    for (int i = 0; i < kLanes; i += 2) {
      even += value[i] * spread.weights[i];
      odd += value[i + 1] * spread.weights[i + 1];
    }
    float* window = row + columns.base;
    const int64_t count = input_width - columns.base;
    store_some(window, load_some(window, count) + even + odd, count);
    return;
  }
  for (int i = 0; i < kLanes; ++i) {
    row[columns.low[i]] += value[i] * (1.0f - columns.fraction[i]);
    row[columns.high[i]] += value[i] * columns.fraction[i];
  }
}

}  // namespace MASKMATCH_ISA
}  // namespace maskmatch
