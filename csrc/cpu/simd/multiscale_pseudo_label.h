// Mean of softmaxes over scales, its argmax and max, for a band of output rows. The band is walked in tiles of kLanes
// columns, so that all classes of a tile stay in the first-level cache from the resize to the argmax.
#pragma once

#include "columns.h"

namespace maskmatch {
namespace MASKMATCH_ISA {

constexpr float kLog2E = 1.44269504f;

static int64_t pseudo_label_scratch(const PseudoLabelArgs& args) {
  return (2 * args.count_scales + 2) * args.classes * kLanes;
}

struct Best {
  Floats value;
  Ints label;
};

MASKMATCH_INLINE void update(Best& best, Floats value, int64_t c) {
  const Ints better = value > best.value;
  best.value = better ? value : best.value;
  best.label = better ? splat(static_cast<int32_t>(c)) : best.label;
}

// argmax and max of softmax(values), values in units of log2.
MASKMATCH_INLINE Best softmax_best(const Floats* values, int64_t classes) {
  Best best{values[0], splat(0)};
  for (int64_t c = 1; c < classes; ++c) update(best, values[c], c);
  const Floats sum =
      reduce(classes, splat(0.0f), plus, [&](int64_t c) { return exp2_of_negative(values[c] - best.value); });
  best.value = 1.0f / sum;
  return best;
}

// total (+)= weight * softmax(top + fraction * step)
MASKMATCH_INLINE void add_softmax(const Floats* top, const Floats* step, Floats fraction, int64_t classes, float weight,
                                  bool first, Floats* power, Floats* total) {
  const auto value = [&](int64_t c) { return top[c] + fraction * step[c]; };
  const Floats highest = reduce(classes, splat(kLowest), larger, value);
  const Floats sum =
      reduce(classes, splat(0.0f), plus, [&](int64_t c) { return power[c] = exp2_of_negative(value(c) - highest); });
  const Floats factor = weight / sum;
  if (first) {
    for (int64_t c = 0; c < classes; ++c) total[c] = power[c] * factor;
  } else {
    for (int64_t c = 0; c < classes; ++c) total[c] += power[c] * factor;
  }
}

static void pseudo_label(const PseudoLabelArgs& args, int64_t task, float* scratch) {
  const int64_t classes = args.classes, scales = args.count_scales;
  const int64_t bands = (args.height + args.band - 1) / args.band;
  const int64_t image = task / bands, begin = task % bands * args.band;
  const int64_t end = begin + args.band < args.height ? begin + args.band : args.height;
  Floats* const values = reinterpret_cast<Floats*>(scratch);
  Floats* const power = values + classes;
  Floats* const tops = power + classes;
  Floats* const steps = tops + scales * classes;

  for (int64_t x = 0; x < args.width; x += kLanes) {
    for (int64_t y = begin; y < end; ++y) {
      for (int64_t s = 0; s < scales; ++s) {
        const Scale& scale = args.scales[s];
        Floats *top = tops + s * classes, *step = steps + s * classes;
        const int32_t low = scale.rows.low[y];
        if (y == begin || low != scale.rows.low[y - 1]) {
          const int64_t plane = scale.height * scale.width;
          const float* logits = scale.logits + image * classes * plane;
          const float factor = args.average_probability ? kLog2E : kLog2E * scale.weight;
          sample_rows(logits + low * scale.width, logits + scale.rows.high[y] * scale.width, plane, classes,
                      columns_at(scale.columns, x, scale.width), scale.width, factor, top, step);
        }
        const Floats fraction = splat(scale.rows.fraction[y]);
        if (args.average_probability && scales > 1) {
          add_softmax(top, step, fraction, classes, scale.weight, s == 0, power, values);
        } else if (s == 0) {
          for (int64_t c = 0; c < classes; ++c) values[c] = top[c] + fraction * step[c];
        } else {
          for (int64_t c = 0; c < classes; ++c) values[c] += top[c] + fraction * step[c];
        }
      }
      Best best;
      if (args.average_probability && scales > 1) {
        best = {values[0], splat(0)};
        for (int64_t c = 1; c < classes; ++c) update(best, values[c], c);
      } else {
        best = softmax_best(values, classes);
      }
      const int64_t pixel = (image * args.height + y) * args.width + x;
      store_some(args.label + pixel, __builtin_convertvector(best.label, Bytes), args.width - x);
      store_some(args.confidence + pixel, best.value, args.width - x);
    }
  }
}

}  // namespace MASKMATCH_ISA
}  // namespace maskmatch
