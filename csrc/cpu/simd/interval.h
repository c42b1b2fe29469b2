// All pixels of kLanes columns (a tile) between two input rows (an interval): what they share is worked out once, so
// that a class of a row of pixels costs one multiply-add and one exponential, and a class that cannot matter, nothing.
#pragma once

#include "../../common/log2.h"
#include "columns.h"

namespace maskmatch {
namespace MASKMATCH_ISA {

constexpr int64_t kMaxClasses = 256;

// The wanted classes, in rising order, and their number.
MASKMATCH_INLINE int64_t list_classes(const bool* wanted, int64_t classes, int32_t* list) {
  int64_t count = 0;
  for (int64_t c = 0; c < classes; ++c) {
    list[count] = static_cast<int32_t>(c);
    count += wanted[c];
  }
  return count;
}

// The logit of class c at `fraction` of the way from the upper input row to the lower one is bound + top[c] + fraction
// * step[c], in units of log2.
struct Interval {
  Floats *top, *step;  // [C]
  Floats* lower;       // [C], the logits in the lower input row: the next interval's upper ones
  int32_t* kept;       // [count], the classes that matter
  int64_t count;
  Floats bound;     // the highest logit of any class; 0 where that is not near
  bool near_bound;  // in every pixel the best class is so near to the bound that powers can be taken relative to it

  static constexpr int64_t scratch(int64_t classes) { return 4 * classes * kLanes; }

  void place(float* scratch, int64_t classes) {
    top = reinterpret_cast<Floats*>(scratch);
    step = top + classes;
    lower = step + classes;
    kept = reinterpret_cast<int32_t*>(lower + classes);
  }
};

// A power that is this far below the bound is a normal float, and so are those of classes that are 30 bits less likely.
constexpr float kNear = 96.0f;

// 24 bits and the number of classes in bits: all classes together that are further than this below the best one change
// no bit of a float.
MASKMATCH_INLINE float negligible(int64_t classes) {
  float bits = 24.0f;
  for (int64_t power = 1; power < classes; power *= 2) bits += 1.0f;
  return bits;
}

MASKMATCH_INLINE void keep_all(Interval& interval, int64_t classes) {
  for (int64_t c = 0; c < classes; ++c) interval.kept[c] = static_cast<int32_t>(c);
  interval.count = classes;
}

// Logits between two input rows; `continued` where the upper one is the lower one of before. `factor` scales them.
MASKMATCH_INLINE void enter_interval(Interval& interval, const float* upper_row, const float* lower_row, bool continued,
                                     int64_t class_stride, int64_t classes, const Columns& columns, int64_t input_width,
                                     float factor) {
  // `best` is the least that the best class has in any row, `lowest` the least of all classes.
  Floats bound = splat(kLowest), best = splat(kLowest), lowest = splat(-kLowest);
  for (int64_t c = 0; c < classes; ++c) {
    const Floats upper =
        continued ? interval.lower[c] : sample_row(upper_row + c * class_stride, columns, input_width) * factor;
    const float* row = lower_row + c * class_stride;
    __builtin_prefetch(row + columns.base + input_width);  // the next interval's
    const Floats lower = sample_row(row, columns, input_width) * factor;
    interval.top[c] = upper;
    interval.step[c] = lower - upper;
    interval.lower[c] = lower;
    bound = larger(bound, larger(upper, lower));
    const Floats less = upper < lower ? upper : lower;
    best = larger(best, less);
    lowest = less < lowest ? less : lowest;
  }
  interval.near_bound = !any(bound - best > kNear);
  interval.bound = interval.near_bound ? bound : splat(0.0f);
  const Floats least = best - negligible(classes);
  if (any(lowest < least)) {
    interval.count = 0;
    for (int64_t c = 0; c < classes; ++c) {
      // A NaN is not less.
      const Ints dropped = (interval.top[c] < least) & (interval.lower[c] < least);
      interval.kept[interval.count] = static_cast<int32_t>(c);
      interval.count += any(~dropped);
    }
  } else {
    keep_all(interval, classes);
  }
  for (int64_t c = 0; c < classes; ++c) interval.top[c] -= interval.bound;
}

// The sum over the kept classes of 2 ** (logit - bound - shift), each of which `store` sees and returns.
template <class Store>
MASKMATCH_INLINE Floats add_powers(const Interval& interval, Floats fraction, Floats shift, const Store& store) {
  return reduce(interval.count, splat(0.0f), plus, [&](int64_t k) {
    const int32_t c = interval.kept[k];
    return store(c, exp2_of_negative(interval.top[c] + fraction * interval.step[c] - shift));
  });
}

// The same, with a shift that no logit exceeds.
struct PowerSum {
  Floats shift, sum;
};

template <class Store>
MASKMATCH_INLINE PowerSum sum_powers(const Interval& interval, Floats fraction, const Store& store) {
  if (interval.near_bound) return {splat(0.0f), add_powers(interval, fraction, splat(0.0f), store)};
  const Floats highest = reduce(interval.count, splat(kLowest), larger, [&](int64_t k) {
    return interval.top[interval.kept[k]] + fraction * interval.step[interval.kept[k]];
  });
  return {highest, add_powers(interval, fraction, highest, store)};
}

}  // namespace MASKMATCH_ISA
}  // namespace maskmatch
