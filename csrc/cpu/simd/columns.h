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
  bool direct;               // lane i is column base + i: nothing is resized
};

MASKMATCH_INLINE Columns columns_at(const Axis& axis, int64_t x, int64_t input_width) {
  Columns columns;
  columns.low = axis.low + x;
  columns.high = axis.high + x;
  columns.fraction = load(axis.fraction + x);
  // Along an axis the columns only rise, or, in a flipped one, only fall.
  const int32_t *low = columns.low, *high = columns.high;
  const int32_t first = low[0] < low[kLanes - 1] ? low[0] : low[kLanes - 1];
  const int32_t last = high[0] > high[kLanes - 1] ? high[0] : high[kLanes - 1];
  const int64_t span = last - first + 1;
  columns.windows = 0;
  if (kPermutes && span <= kLanes) columns.windows = 1;
  if (kPermutes && span > kLanes && span <= 2 * kLanes && input_width >= 2 * kLanes) columns.windows = 2;
  // A window that would reach beyond the row starts earlier; a row shorter than a window is loaded in part.
  const int64_t latest = input_width - columns.windows * kLanes;
  columns.base = first < latest ? first : (latest > 0 ? latest : 0);
  columns.low_lane = load(columns.low) - static_cast<int32_t>(columns.base);
  columns.high_lane = load(columns.high) - static_cast<int32_t>(columns.base);
  columns.direct = !any((columns.low_lane != lanes()) | (columns.fraction != 0.0f));
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

// The transpose of sample_row: adds the pixels' values to the columns that they were sampled from. A window's columns
// take a matrix product: weights[i] holds what pixel i gives to each of them.
struct Spread {
  Floats weights[kLanes];
};

MASKMATCH_INLINE void prepare_spread(const Columns& columns, Spread& spread) {
  if (columns.windows != 1 || columns.direct) return;
  for (int i = 0; i < kLanes; ++i) {
    const Floats to_low = splat(1.0f - columns.fraction[i]), to_high = splat(columns.fraction[i]);
    spread.weights[i] = (lanes() == columns.low_lane[i] ? to_low : splat(0.0f)) +
                        (lanes() == columns.high_lane[i] ? to_high : splat(0.0f));
  }
}

MASKMATCH_INLINE void add_spread(const float* values, const Columns& columns, const Spread& spread, int64_t input_width,
                                 float* row) {
  float* window = row + columns.base;
  const int64_t count = input_width - columns.base;
  if (columns.direct) {
    store_some(window, load_some(window, count) + load(values), count);
  } else if (columns.windows == 1) {
    Floats even = splat(0.0f), odd = splat(0.0f);
    for (int i = 0; i < kLanes; i += 2) {
      even += values[i] * spread.weights[i];
      odd += values[i + 1] * spread.weights[i + 1];
    }
    store_some(window, load_some(window, count) + even + odd, count);
  } else {
    for (int i = 0; i < kLanes; ++i) {
      row[columns.low[i]] += values[i] * (1.0f - columns.fraction[i]);
      row[columns.high[i]] += values[i] * columns.fraction[i];
    }
  }
}

}  // namespace MASKMATCH_ISA
}  // namespace maskmatch
