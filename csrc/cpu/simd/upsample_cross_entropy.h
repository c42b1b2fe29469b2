// Cross-entropy of upsampled logits and its gradient, for a band of input rows.
//
// All output rows between two input rows (an interval) are walked in tiles of kLanes columns. The tile's classes are
// sampled once at its columns, so that a row costs one multiply-add a class; powers of up to kRows rows stay in the
// first-level cache until their sums over the rows are spread, once, to the tile's input columns.
#pragma once

#include "columns.h"

namespace maskmatch {
namespace MASKMATCH_ISA {

constexpr float kLn2 = 0.693147181f;
constexpr float kLog2OfE = 1.44269504f;
constexpr int64_t kRows = 8;

static int64_t cross_entropy_scratch(const CrossEntropyArgs& args) {
  const int64_t rows = args.mode == LossMode::kLoss ? 0 : kRows;
  return (2 + rows) * args.classes * kLanes;
}

// A tile of an interval.
struct Tile {
  Floats *top, *step;                  // [C], in units of log2
  Floats weighted_top, weighted_step;  // their sums over the classes by class weight, for label smoothing
  int64_t x;
};

// What kLanes pixels of one row are to count.
struct Pixels {
  Ints label;  // 0 where not kept
  Ints keep;
  Floats weight;  // 0 where not kept
};

struct Totals {
  Ints valid, confident;
  Floats loss;
};

template <class Element>
MASKMATCH_INLINE void copy_some(Element* to, const Element* from, int64_t count) {
  if (count >= kLanes) {
    __builtin_memcpy(to, from, kLanes * sizeof(Element));
  } else {
    for (int64_t i = 0; i < count; ++i) to[i] = from[i];
  }
}

MASKMATCH_INLINE Pixels read_pixels(const CrossEntropyArgs& args, int64_t pixel, int64_t count, Totals& totals,
                                    int64_t* invalid_pixel) {
  constexpr int32_t kIgnored = -1, kInvalid = -2;
  int32_t labels[kLanes];
  if (args.target_is_uint8) {
    uint8_t target[kLanes] = {};
    copy_some(target, static_cast<const uint8_t*>(args.target) + pixel, count);
    const int32_t classes = static_cast<int32_t>(args.classes);
    const int32_t ignored = args.ignore_index >= 0 && args.ignore_index < 256 ? args.ignore_index : -1;
    for (int i = 0; i < kLanes; ++i) {
      const int32_t value = target[i];
      labels[i] = value == ignored ? kIgnored : value < classes ? value : kInvalid;
    }
  } else {
    int64_t target[kLanes] = {};
    copy_some(target, static_cast<const int64_t*>(args.target) + pixel, count);
    for (int i = 0; i < kLanes; ++i) {
      const int64_t value = target[i];
      const bool is_class = value >= 0 && value < args.classes;
      labels[i] = static_cast<int32_t>(value == args.ignore_index ? kIgnored : is_class ? value : kInvalid);
    }
  }
  for (int64_t i = count; i < kLanes; ++i) labels[i] = kIgnored;
  const Ints label = load(labels);
  if (__builtin_expect(any(label == kInvalid), 0)) {
    for (int i = kLanes - 1; i >= 0; --i) *invalid_pixel = labels[i] == kInvalid ? pixel + i : *invalid_pixel;
  }
  Ints keep = label >= 0;
  totals.valid -= keep;
  if (args.confidence) keep &= load_some(args.confidence + pixel, count) >= args.threshold;
  totals.confident -= keep;
  const Floats zero = splat(0.0f);
  Floats weight = args.pixel_weight ? load_some(args.pixel_weight + pixel, count) : splat(1.0f);
  if (args.grad_output) weight *= load_some(args.grad_output + pixel, count);
  return {keep ? label : splat(0), keep, keep ? weight : zero};
}

// The pixel's coefficients in dl/dz_c = scale * power_c - [c = label] * target - v_c * smooth.
struct Slope {
  Floats scale, target, smooth;
};

MASKMATCH_INLINE Slope slope_of(const CrossEntropyArgs& args, const Pixels& pixels, Floats class_weight, Floats sum) {
  const float smoothing = args.label_smoothing;
  Slope slope;
  slope.target = pixels.weight * class_weight * (1.0f - smoothing);
  slope.smooth = pixels.weight * (smoothing / args.classes);
  slope.scale = (slope.target + slope.smooth * args.class_weight_sum) / sum;
  return slope;
}

// power[label] -= target / scale, so that scale * power is the slope of every class.
MASKMATCH_INLINE void subtract_target(const Pixels& pixels, const Slope& slope, Floats* power) {
  const Floats share = slope.scale != 0.0f ? slope.target / slope.scale : splat(0.0f);
  float* lanes = reinterpret_cast<float*>(power);
  for (int i = 0; i < kLanes; ++i) lanes[pixels.label[i] * kLanes + i] -= share[i];
}

// The loss of kLanes pixels; with a gradient, leaves the powers and the slope of one row.
MASKMATCH_INLINE Slope walk_row(const CrossEntropyArgs& args, const Tile& tile, const Pixels& pixels, Floats fraction,
                                int64_t pixel, Floats* power, Totals& totals) {
  const int64_t classes = args.classes, count = args.width - tile.x;
  const bool with_gradient = args.mode != LossMode::kLoss;
  const auto value_of = [&](int64_t c) { return tile.top[c] + fraction * tile.step[c]; };
  Floats highest;
  if (args.mode == LossMode::kGradient) {
    // A pixel that is not kept has no log_sum: powers of zero.
    highest = pixels.keep ? load_some(args.log_sum + pixel, count) * kLog2OfE : splat(1e30f);
  } else {
    highest = reduce(classes, splat(kLowest), larger, value_of);
  }
  const auto power_of = [&](int64_t c) { return exp2_of_negative(value_of(c) - highest); };
  Floats sum = with_gradient ? reduce(classes, splat(0.0f), plus, [&](int64_t c) { return power[c] = power_of(c); })
                             : reduce(classes, splat(0.0f), plus, power_of);
  Ints lane;
  for (int i = 0; i < kLanes; ++i) lane[i] = i;
  const Floats class_weight = args.class_weight ? gather(args.class_weight, pixels.label) : splat(1.0f);
  if (args.mode != LossMode::kGradient) {
    const Ints index = pixels.label * kLanes + lane;
    const Floats value = gather(reinterpret_cast<const float*>(tile.top), index) +
                         fraction * gather(reinterpret_cast<const float*>(tile.step), index);
    const Floats log_sum = highest + log2_of_positive(sum);
    const float smoothing = args.label_smoothing;
    Floats loss = (1.0f - smoothing) * class_weight * (log_sum - value);
    if (smoothing != 0.0f) {
      const Floats weighted = tile.weighted_top + fraction * tile.weighted_step;
      loss += (smoothing / classes) * (args.class_weight_sum * log_sum - weighted);
    }
    loss = pixels.keep ? loss * pixels.weight * kLn2 : splat(0.0f);
    totals.loss += loss;
    if (args.pixel_loss) store_some(args.pixel_loss + pixel, loss, count);
    if (args.log_sum) store_some(args.log_sum + pixel, log_sum * kLn2, count);
  }
  if (!with_gradient) return Slope{Floats{}, Floats{}, Floats{}};
  if (args.mode == LossMode::kGradient) sum = splat(1.0f);  // the powers are the probabilities
  const Slope slope = slope_of(args, pixels, class_weight, sum);
  subtract_target(pixels, slope, power);
  return slope;
}

MASKMATCH_INLINE void clear(float* values, int64_t count) {
  for (int64_t i = 0; i < count; ++i) values[i] = 0.0f;
}

// Sums the slopes of a tile's rows by what each gives to the input row above and below, and spreads them.
MASKMATCH_INLINE void add_gradient(const CrossEntropyArgs& args, const Columns& columns, const Spread& spread,
                                   const Floats* power, const Slope* slopes, const Floats* fractions, int64_t rows,
                                   float* above, float* below, int64_t above_stride, int64_t below_stride) {
  Floats to_above[kRows], to_below[kRows], smooth_above = splat(0.0f), smooth_below = splat(0.0f);
  for (int64_t r = 0; r < rows; ++r) {
    to_below[r] = slopes[r].scale * fractions[r];
    to_above[r] = slopes[r].scale - to_below[r];
    smooth_below += slopes[r].smooth * fractions[r];
    smooth_above += slopes[r].smooth * (1.0f - fractions[r]);
  }
  for (int64_t c = 0; c < args.classes; ++c) {
    const float class_weight = args.class_weight ? args.class_weight[c] : 1.0f;
    Floats sum_above = -class_weight * smooth_above, sum_below = -class_weight * smooth_below;
    for (int64_t r = 0; r < rows; ++r) {
      const Floats value = power[r * args.classes + c];
      sum_above += value * to_above[r];
      sum_below += value * to_below[r];
    }
    add_spread(sum_above, columns, spread, args.input_width, above + c * above_stride);
    add_spread(sum_below, columns, spread, args.input_width, below + c * below_stride);
  }
}

static void cross_entropy(const CrossEntropyArgs& args, int64_t task, float* scratch) {
  const int64_t classes = args.classes, plane = args.input_height * args.input_width;
  const int64_t image = task / args.bands, band_begin = task % args.bands * args.band;
  const int64_t band_end = band_begin + args.band < args.input_height ? band_begin + args.band : args.input_height;
  const float* logits = args.logits + image * classes * plane;
  float* gradient = args.gradient ? args.gradient + image * classes * plane : nullptr;
  float* carry = args.carry ? args.carry + task * classes * args.input_width : nullptr;
  if (gradient) {
    clear(carry, classes * args.input_width);
    for (int64_t c = 0; c < classes; ++c) {
      clear(gradient + c * plane + band_begin * args.input_width, (band_end - band_begin) * args.input_width);
    }
  }
  Tile tile;
  tile.top = reinterpret_cast<Floats*>(scratch);
  tile.step = tile.top + classes;
  Floats* power = tile.step + classes;
  double loss = 0;
  int64_t valid = 0, confident = 0, invalid_pixel = -1;

  for (int64_t low = band_begin; low < band_end; ++low) {
    const int64_t high = low + 1 < args.input_height ? low + 1 : low;
    for (int64_t begin = args.first_row[low]; begin < args.first_row[low + 1]; begin += kRows) {
      const int64_t left = args.first_row[low + 1] - begin, rows = left < kRows ? left : kRows;
      for (tile.x = 0; tile.x < args.width; tile.x += kLanes) {
        const Columns columns = columns_at(args.columns, tile.x, args.input_width);
        Totals totals{};
        Slope slopes[kRows];
        Floats fractions[kRows];
        int64_t walked = 0;
        for (int64_t r = 0; r < rows; ++r) {
          const int64_t pixel = (image * args.height + begin + r) * args.width + tile.x;
          const int64_t count = args.width - tile.x;
          const Pixels pixels = read_pixels(args, pixel, count, totals, &invalid_pixel);
          if (!any(pixels.weight != 0.0f)) {
            if (args.pixel_loss) store_some(args.pixel_loss + pixel, splat(0.0f), count);
            if (args.log_sum && args.mode != LossMode::kGradient) {
              store_some(args.log_sum + pixel, splat(0.0f), count);
            }
            continue;
          }
          if (walked == 0) {
            sample_rows(logits + low * args.input_width, logits + high * args.input_width, plane, classes, columns,
                        args.input_width, kLog2OfE, tile.top, tile.step);
            tile.weighted_top = tile.weighted_step = splat(0.0f);
            for (int64_t c = 0; args.label_smoothing != 0.0f && c < classes; ++c) {
              const float class_weight = args.class_weight ? args.class_weight[c] : 1.0f;
              tile.weighted_top += class_weight * tile.top[c];
              tile.weighted_step += class_weight * tile.step[c];
            }
          }
          fractions[walked] = splat(args.rows.fraction[begin + r]);
          slopes[walked] = walk_row(args, tile, pixels, fractions[walked], pixel, power + walked * classes, totals);
          ++walked;
        }
        if (gradient && walked) {
          Spread spread;
          prepare_spread(columns, spread);
          const bool inside = high < band_end;
          add_gradient(args, columns, spread, power, slopes, fractions, walked, gradient + low * args.input_width,
                       inside ? gradient + high * args.input_width : carry, plane, inside ? plane : args.input_width);
        }
        loss += sum_lanes(totals.loss);
        valid += sum_lanes(totals.valid);
        confident += sum_lanes(totals.confident);
      }
    }
  }
  args.totals[task] = {loss, valid, confident, invalid_pixel};
}

}  // namespace MASKMATCH_ISA
}  // namespace maskmatch
