// Mean of softmaxes over scales, its argmax and max, for a band of output rows. The band is walked in tiles of kLanes
// columns, so that all classes of a tile stay in the first-level cache from the resize to the argmax.
#pragma once

#include "interval.h"

namespace maskmatch {
namespace MASKMATCH_ISA {

// The working space of a thread.
struct PseudoLabelTile {
  Interval* intervals;  // [scales]
  Columns* columns;     // [scales]
  Floats* powers;       // [scales, C], zero for classes that a scale drops
  Floats* factors;      // [scales], weight / sum of powers
  Floats* logits;       // [C], with average="logit"
  int32_t* kept;        // [count], the classes that any scale keeps
  int64_t count;

  static int64_t scratch(int64_t scales, int64_t classes) {
    constexpr int64_t kStructs = (sizeof(Interval) + sizeof(Columns) + sizeof(Floats)) / sizeof(float);
    return scales * (kStructs + Interval::scratch(classes) + classes * kLanes) + 2 * classes * kLanes;
  }

  PseudoLabelTile(float* scratch, int64_t scales, int64_t classes) {
    intervals = reinterpret_cast<Interval*>(scratch);
    columns = reinterpret_cast<Columns*>(intervals + scales);
    factors = reinterpret_cast<Floats*>(columns + scales);
    powers = factors + scales;
    logits = powers + scales * classes;
    float* rest = reinterpret_cast<float*>(logits + classes);
    for (int64_t s = 0; s < scales; ++s, rest += Interval::scratch(classes)) intervals[s].place(rest, classes);
    kept = reinterpret_cast<int32_t*>(rest);
  }
};

struct Best {
  Floats value;
  Ints label;
};

MASKMATCH_INLINE void update(Best& best, Floats value, int64_t c) {
  const Ints better = value > best.value;
  best.value = better ? value : best.value;
  best.label = better ? splat(static_cast<int32_t>(c)) : best.label;
}

// Enters the interval of output row y in every scale that comes to another one; returns whether any did.
MASKMATCH_INLINE bool enter_row(const PseudoLabelArgs& args, PseudoLabelTile& tile, int64_t image, int64_t y,
                                bool first) {
  const int64_t classes = args.classes;
  bool entered = false;
  for (int64_t s = 0; s < args.count_scales; ++s) {
    const Scale& scale = args.scales[s];
    const int64_t low = scale.rows.low[y], before = first ? -2 : scale.rows.low[y - 1];
    if (low == before) continue;
    entered = true;
    const int64_t plane = scale.height * scale.width, high = low + 1 < scale.height ? low + 1 : low;
    const float* logits = scale.logits + image * classes * plane;
    const float factor = args.average_probability ? kLog2E : kLog2E * scale.weight;
    enter_interval(tile.intervals[s], logits + low * scale.width, logits + high * scale.width, low == before + 1, plane,
                   classes, tile.columns[s], scale.width, factor);
    if (tile.intervals[s].count == classes) continue;
    for (int64_t c = 0; c < classes; ++c) tile.powers[s * classes + c] = splat(0.0f);
  }
  return entered;
}

// Lists the classes that any scale keeps, in rising order.
MASKMATCH_INLINE void unite(PseudoLabelTile& tile, int64_t scales, int64_t classes) {
  bool wanted[kMaxClasses] = {};
  for (int64_t s = 0; s < scales; ++s) {
    for (int64_t k = 0; k < tile.intervals[s].count; ++k) wanted[tile.intervals[s].kept[k]] = true;
  }
  tile.count = list_classes(wanted, classes, tile.kept);
}

// argmax and max of the mean of the scales' softmaxes.
MASKMATCH_INLINE Best best_of_mean(const PseudoLabelArgs& args, const PseudoLabelTile& tile, int64_t y) {
  const int64_t classes = args.classes, scales = args.count_scales;
  for (int64_t s = 0; s < scales; ++s) {
    Floats* const power = tile.powers + s * classes;
    const auto store = [&](int64_t c, Floats value) { return power[c] = value; };
    const Floats sum = sum_powers(tile.intervals[s], splat(args.scales[s].rows.fraction[y]), store).sum;
    tile.factors[s] = args.scales[s].weight / sum;
  }
  const auto mean = [&](int64_t c) {
    Floats total = tile.powers[c] * tile.factors[0];
    for (int64_t s = 1; s < scales; ++s) total += tile.powers[s * classes + c] * tile.factors[s];
    return total;
  };
  Best best{mean(tile.kept[0]), splat(tile.kept[0])};
  for (int64_t k = 1; k < tile.count; ++k) update(best, mean(tile.kept[k]), tile.kept[k]);
  return best;
}

// argmax and max of one scale's softmax.
MASKMATCH_INLINE Best best_of_one(const Interval& interval, Floats fraction) {
  Best best{splat(-1.0f), splat(0)};
  const auto compare = [&](int64_t c, Floats power) {
    update(best, power, c);
    return power;
  };
  best.value /= sum_powers(interval, fraction, compare).sum;
  return best;
}

// argmax and max of the softmax of the scales' mean logits.
MASKMATCH_INLINE Best best_of_logits(const PseudoLabelArgs& args, const PseudoLabelTile& tile, int64_t y) {
  const int64_t classes = args.classes;
  for (int64_t s = 0; s < args.count_scales; ++s) {
    const Interval& interval = tile.intervals[s];
    const Floats fraction = splat(args.scales[s].rows.fraction[y]);
    for (int64_t c = 0; c < classes; ++c) {
      const Floats value = interval.top[c] + fraction * interval.step[c];
      tile.logits[c] = s == 0 ? value : tile.logits[c] + value;
    }
  }
  Best best{tile.logits[0], splat(0)};
  for (int64_t c = 1; c < classes; ++c) update(best, tile.logits[c], c);
  const auto power = [&](int64_t c) { return exp2_of_negative(tile.logits[c] - best.value); };
  best.value = 1.0f / reduce(classes, splat(0.0f), plus, power);
  return best;
}

static int64_t pseudo_label_scratch(const PseudoLabelArgs& args) {
  return PseudoLabelTile::scratch(args.count_scales, args.classes);
}

static void pseudo_label(const PseudoLabelArgs& args, int64_t task, float* scratch) {
  const int64_t scales = args.count_scales, bands = (args.height + args.band - 1) / args.band;
  const int64_t image = task / bands, begin = task % bands * args.band;
  const int64_t end = begin + args.band < args.height ? begin + args.band : args.height;
  PseudoLabelTile tile(scratch, scales, args.classes);

  for (int64_t x = 0; x < args.width; x += kLanes) {
    for (int64_t s = 0; s < scales; ++s) {
      tile.columns[s] = columns_at(args.scales[s].columns, x, args.scales[s].width);
    }
    for (int64_t y = begin; y < end; ++y) {
      const bool entered = enter_row(args, tile, image, y, y == begin);
      Best best;
      if (scales == 1) {
        best = best_of_one(tile.intervals[0], splat(args.scales[0].rows.fraction[y]));
      } else if (args.average_probability) {
        if (entered) unite(tile, scales, args.classes);
        best = best_of_mean(args, tile, y);
      } else {
        best = best_of_logits(args, tile, y);
      }
      const int64_t pixel = (image * args.height + y) * args.width + x;
      store_some(args.label + pixel, __builtin_convertvector(best.label, Bytes), args.width - x);
      store_some(args.confidence + pixel, best.value, args.width - x);
    }
  }
}

}  // namespace MASKMATCH_ISA
}  // namespace maskmatch
