// Cross-entropy of upsampled logits and its gradient, for a band of input rows.
//
// A band is walked in tiles of kLanes columns, a tile in intervals between two input rows. Powers of up to
// kRowsTogether rows stay in the first-level cache until their sums over the rows, all of them added up to those of the
// interval above, are spread, once, to the tile's input columns.
#pragma once

#include "interval.h"

namespace maskmatch {
namespace MASKMATCH_ISA {

constexpr int64_t kRowsTogether = 8;

// What kLanes pixels of one row are to count.
struct Pixels {
  Ints label;  // 0 where not kept
  Ints keep;
  Floats weight;  // 0 where not kept
};

// The pixels' coefficients in dl/dz_c = scale * power_c - [c = label] * target - v_c * smooth.
struct Slopes {
  Floats scale, target, smooth;
};

// One row of a tile.
struct Row {
  Pixels pixels;
  int64_t first;  // index of its first pixel
  Floats fraction;
  Slopes slopes;
};

// What a tile's pixels give to one input row, before it is spread to the columns.
struct Given {
  Floats* sum;                  // [C], where used
  bool used[kMaxClasses] = {};  // [C]
};

// The working space of a thread, and what it has found in a tile.
struct LossTile {
  Interval interval;
  Floats weighted_top, weighted_step;  // sums over the classes by class weight, for label smoothing
  Row rows[kRowsTogether];             // those that count
  Floats* power;                       // [kRowsTogether, C]
  Given given[2], *upper, *lower;      // for the input rows of the interval
  Columns columns;
  Spread spread;
  int64_t x, count;  // first column, columns
  Ints valid, confident;
  Floats loss;
  int64_t invalid_pixel;

  static int64_t scratch(const CrossEntropyArgs& args) {
    const int64_t rows = args.mode == LossMode::kLoss ? 0 : kRowsTogether + 2;
    return Interval::scratch(args.classes) + rows * args.classes * kLanes;
  }

  LossTile(const CrossEntropyArgs& args, float* scratch) : upper(&given[0]), lower(&given[1]), invalid_pixel(-1) {
    interval.place(scratch, args.classes);
    power = reinterpret_cast<Floats*>(scratch + Interval::scratch(args.classes));
    upper->sum = power + kRowsTogether * args.classes;
    lower->sum = upper->sum + args.classes;
  }
};

template <class Element>
MASKMATCH_INLINE void copy_some(Element* to, const Element* from, int64_t count) {
  if (count >= kLanes) {
    __builtin_memcpy(to, from, kLanes * sizeof(Element));
  } else {
    for (int64_t i = 0; i < count; ++i) to[i] = from[i];
  }
}

// Labels of kLanes pixels: a class, kIgnored or kInvalid.
constexpr int32_t kIgnored = -1, kInvalid = -2;
MASKMATCH_INLINE Ints read_labels(const CrossEntropyArgs& args, int64_t pixel, int64_t count) {
  Ints label;
  if (args.target_is_uint8) {
    uint8_t bytes[kLanes] = {};
    copy_some(bytes, static_cast<const uint8_t*>(args.target) + pixel, count);
    const Ints value = widen(bytes);
    const int32_t ignored = args.ignore_index >= 0 && args.ignore_index < 256 ? args.ignore_index : -1;
    label = value == ignored ? splat(kIgnored) : value < static_cast<int32_t>(args.classes) ? value : splat(kInvalid);
  } else {
    int64_t target[kLanes] = {};
    copy_some(target, static_cast<const int64_t*>(args.target) + pixel, count);
    int32_t labels[kLanes];
    for (int i = 0; i < kLanes; ++i) {
      const int64_t value = target[i];
      const bool is_class = value >= 0 && value < args.classes;
      labels[i] = static_cast<int32_t>(value == args.ignore_index ? kIgnored : is_class ? value : kInvalid);
    }
    label = load(labels);
  }
  return count >= kLanes ? label : lanes() < static_cast<int32_t>(count) ? label : splat(kIgnored);
}

MASKMATCH_INLINE Pixels read_pixels(const CrossEntropyArgs& args, int64_t pixel, LossTile& tile) {
  const Ints label = read_labels(args, pixel, tile.count);
  if (__builtin_expect(any(label == kInvalid), 0)) {
    for (int i = kLanes - 1; i >= 0; --i) tile.invalid_pixel = label[i] == kInvalid ? pixel + i : tile.invalid_pixel;
  }
  Ints keep = label >= 0;
  tile.valid -= keep;
  if (args.confidence) keep &= load_some(args.confidence + pixel, tile.count) >= args.threshold;
  tile.confident -= keep;
  Floats weight = args.pixel_weight ? load_some(args.pixel_weight + pixel, tile.count) : splat(1.0f);
  if (args.grad_output) weight *= load_some(args.grad_output + pixel, tile.count);
  return {keep ? label : splat(0), keep, keep ? weight : splat(0.0f)};
}

// Reads the rows from `begin` on; those in which no pixel counts are done with.
MASKMATCH_INLINE int64_t read_rows(const CrossEntropyArgs& args, int64_t image, int64_t begin, int64_t rows,
                                   LossTile& tile) {
  int64_t counted = 0;
  for (int64_t y = begin; y < begin + rows; ++y) {
    const int64_t pixel = (image * args.height + y) * args.width + tile.x;
    // The next tile's: the CPU does not see a pattern in short pieces of rows.
    if (args.confidence) __builtin_prefetch(args.confidence + pixel + kLanes);
    if (args.pixel_weight) __builtin_prefetch(args.pixel_weight + pixel + kLanes);
    if (args.grad_output) __builtin_prefetch(args.grad_output + pixel + kLanes);
    if (args.log_sum) __builtin_prefetch(args.log_sum + pixel + kLanes);
    if (args.pixel_loss) __builtin_prefetch(args.pixel_loss + pixel + kLanes, 1);
    __builtin_prefetch(static_cast<const char*>(args.target) + (pixel + kLanes) * (args.target_is_uint8 ? 1 : 8));
    const Pixels pixels = read_pixels(args, pixel, tile);
    if (any(pixels.weight != 0.0f)) {
      Row& row = tile.rows[counted++];
      row.pixels = pixels;
      row.first = pixel;
      row.fraction = splat(args.rows.fraction[y]);
      continue;
    }
    if (args.mode == LossMode::kGradient) continue;
    if (args.pixel_loss) store_some(args.pixel_loss + pixel, splat(0.0f), tile.count);
    if (args.log_sum) store_some(args.log_sum + pixel, splat(0.0f), tile.count);
  }
  return counted;
}

// Keeps the classes of the pixels too, whose loss and slope do not vanish.
MASKMATCH_INLINE void keep_labels(Interval& interval, int64_t classes, const Row* rows, int64_t count) {
  if (interval.count == classes) return;
  bool wanted[kMaxClasses] = {};
  for (int64_t k = 0; k < interval.count; ++k) wanted[interval.kept[k]] = true;
  for (int64_t r = 0; r < count; ++r) {
    for (int i = 0; i < kLanes; ++i) wanted[rows[r].pixels.label[i]] = true;
  }
  interval.count = list_classes(wanted, classes, interval.kept);
}

// The loss of a row from its sum of powers.
MASKMATCH_INLINE void add_loss(const CrossEntropyArgs& args, LossTile& tile, const Row& row, Floats class_weight,
                               const PowerSum& powers) {
  const Interval& interval = tile.interval;
  const Ints index = row.pixels.label * kLanes + lanes();
  const Floats value = gather(reinterpret_cast<const float*>(interval.top), index) +
                       row.fraction * gather(reinterpret_cast<const float*>(interval.step), index);
  const Floats log_sum = powers.shift + log2_of_positive(powers.sum);
  Floats loss = (1.0f - args.label_smoothing) * class_weight * (log_sum - value);
  if (args.label_smoothing != 0.0f) {
    const Floats weighted = tile.weighted_top + row.fraction * tile.weighted_step;
    loss += (args.label_smoothing / args.classes) * (args.class_weight_sum * log_sum - weighted);
  }
  loss = row.pixels.keep ? loss * row.pixels.weight * kLn2 : splat(0.0f);
  tile.loss += loss;
  if (args.pixel_loss) store_some(args.pixel_loss + row.first, loss, tile.count);
  if (args.log_sum) store_some(args.log_sum + row.first, (interval.bound + log_sum) * kLn2, tile.count);
}

// Leaves in `power` the slopes of a row divided by slopes.scale, so that one multiplication is left to do.
MASKMATCH_INLINE Slopes slopes_of(const CrossEntropyArgs& args, const Pixels& pixels, Floats class_weight, Floats sum,
                                  Floats* power) {
  Slopes slopes;
  slopes.target = pixels.weight * class_weight * (1.0f - args.label_smoothing);
  slopes.smooth = pixels.weight * (args.label_smoothing / args.classes);
  slopes.scale = (slopes.target + slopes.smooth * args.class_weight_sum) / sum;
  const Floats share = slopes.scale != 0.0f ? slopes.target / slopes.scale : splat(0.0f);
  float* values = reinterpret_cast<float*>(power);
  for (int i = 0; i < kLanes; ++i) values[pixels.label[i] * kLanes + i] -= share[i];
  return slopes;
}

MASKMATCH_INLINE void walk_row(const CrossEntropyArgs& args, LossTile& tile, Row& row, Floats* power) {
  const Floats class_weight = args.class_weight ? gather(args.class_weight, row.pixels.label) : splat(1.0f);
  const auto store = [&](int64_t c, Floats value) { return power[c] = value; };
  if (args.mode == LossMode::kGradient) {
    // The powers are the probabilities; a pixel that is not kept has no log_sum.
    const Floats log_sum = load_some(args.log_sum + row.first, tile.count) * kLog2E - tile.interval.bound;
    add_powers(tile.interval, row.fraction, row.pixels.keep ? log_sum : splat(1e30f), store);
    row.slopes = slopes_of(args, row.pixels, class_weight, splat(1.0f), power);
  } else if (args.mode == LossMode::kLossAndGradient) {
    const PowerSum powers = sum_powers(tile.interval, row.fraction, store);
    add_loss(args, tile, row, class_weight, powers);
    row.slopes = slopes_of(args, row.pixels, class_weight, powers.sum, power);
  } else {
    const auto pass = [](int64_t, Floats value) { return value; };
    add_loss(args, tile, row, class_weight, sum_powers(tile.interval, row.fraction, pass));
  }
}

// Adds up the rows' slopes by what each gives to the input rows above and below.
MASKMATCH_INLINE void add_slopes(const CrossEntropyArgs& args, LossTile& tile, int64_t count) {
  Floats to_upper[kRowsTogether], to_lower[kRowsTogether], smooth_upper = splat(0.0f), smooth_lower = splat(0.0f);
  for (int64_t r = 0; r < count; ++r) {
    const Row& row = tile.rows[r];
    to_lower[r] = row.slopes.scale * row.fraction;
    to_upper[r] = row.slopes.scale - to_lower[r];
    smooth_lower += row.slopes.smooth * row.fraction;
    smooth_upper += row.slopes.smooth * (1.0f - row.fraction);
  }
  for (int64_t k = 0; k < tile.interval.count; ++k) {
    const int64_t c = tile.interval.kept[k];
    const float class_weight = args.class_weight ? args.class_weight[c] : 1.0f;
    Floats upper = -class_weight * smooth_upper, lower = -class_weight * smooth_lower;
    for (int64_t r = 0; r < count; ++r) {
      const Floats value = tile.power[r * args.classes + c];
      upper += value * to_upper[r];
      lower += value * to_lower[r];
    }
    tile.upper->sum[c] = tile.upper->used[c] ? tile.upper->sum[c] + upper : upper;
    tile.lower->sum[c] = tile.lower->used[c] ? tile.lower->sum[c] + lower : lower;
    tile.upper->used[c] = tile.lower->used[c] = true;
  }
}

// Spreads what the upper input row gets to its columns, and goes on to the lower row.
MASKMATCH_INLINE void spread_upper(const CrossEntropyArgs& args, LossTile& tile, float* row, int64_t class_stride) {
  for (int64_t c = 0; c < args.classes; ++c) {
    if (!tile.upper->used[c]) continue;
    add_spread(reinterpret_cast<const float*>(tile.upper->sum + c), tile.columns, tile.spread, args.input_width,
               row + c * class_stride);
    tile.upper->used[c] = false;
  }
  Given* const done = tile.upper;
  tile.upper = tile.lower;
  tile.lower = done;
}

MASKMATCH_INLINE void enter(const CrossEntropyArgs& args, LossTile& tile, const float* logits, int64_t low,
                            bool continued) {
  const int64_t classes = args.classes, high = low + 1 < args.input_height ? low + 1 : low;
  enter_interval(tile.interval, logits + low * args.input_width, logits + high * args.input_width, continued,
                 args.input_height * args.input_width, classes, tile.columns, args.input_width, kLog2E);
  if (args.label_smoothing == 0.0f) return;
  keep_all(tile.interval, classes);
  tile.weighted_top = tile.weighted_step = splat(0.0f);
  for (int64_t c = 0; c < classes; ++c) {
    const float class_weight = args.class_weight ? args.class_weight[c] : 1.0f;
    tile.weighted_top += class_weight * tile.interval.top[c];
    tile.weighted_step += class_weight * tile.interval.step[c];
  }
}

// One tile of all intervals from input row `begin` to `end`; `carry` takes what the row at `end` gets.
MASKMATCH_INLINE void walk_tile(const CrossEntropyArgs& args, LossTile& tile, int64_t image, int64_t begin, int64_t end,
                                float* carry) {
  const int64_t classes = args.classes, plane = args.input_height * args.input_width;
  const float* logits = static_cast<const float*>(args.logits) + image * classes * plane;
  float* gradient = args.gradient ? static_cast<float*>(args.gradient) + image * classes * plane : nullptr;
  tile.columns = columns_at(args.columns, tile.x, args.input_width);
  if (gradient) prepare_spread(tile.columns, tile.spread);
  int64_t entered = -1;
  for (int64_t low = begin; low < end; ++low) {
    for (int64_t y = args.first_row[low]; y < args.first_row[low + 1]; y += kRowsTogether) {
      const int64_t left = args.first_row[low + 1] - y;
      const int64_t count = read_rows(args, image, y, left < kRowsTogether ? left : kRowsTogether, tile);
      if (count == 0) continue;
      if (entered != low) enter(args, tile, logits, low, entered >= 0 && entered == low - 1);
      entered = low;
      keep_labels(tile.interval, classes, tile.rows, count);
      for (int64_t r = 0; r < count; ++r) walk_row(args, tile, tile.rows[r], tile.power + r * classes);
      if (gradient) add_slopes(args, tile, count);
    }
    if (gradient) spread_upper(args, tile, gradient + low * args.input_width, plane);
  }
  if (!gradient) return;
  if (end < args.input_height) {
    spread_upper(args, tile, carry, args.input_width);
  } else {
    spread_upper(args, tile, gradient + (end - 1) * args.input_width, plane);
  }
}

MASKMATCH_INLINE void clear(float* values, int64_t count) {
  for (int64_t i = 0; i < count; ++i) values[i] = 0.0f;
}

static int64_t cross_entropy_scratch(const CrossEntropyArgs& args) { return LossTile::scratch(args); }

static void cross_entropy(const CrossEntropyArgs& args, int64_t task, float* scratch) {
  const int64_t classes = args.classes, plane = args.input_height * args.input_width;
  const int64_t image = task / args.bands, begin = task % args.bands * args.band;
  const int64_t end = begin + args.band < args.input_height ? begin + args.band : args.input_height;
  float* carry = nullptr;
  if (args.gradient) {
    carry = args.carry + task * classes * args.input_width;
    clear(carry, classes * args.input_width);
    float* const band = static_cast<float*>(args.gradient) + image * classes * plane + begin * args.input_width;
    for (int64_t c = 0; c < classes; ++c) clear(band + c * plane, (end - begin) * args.input_width);
  }
  LossTile tile(args, scratch);
  LossTotals totals{0, 0, 0, -1};
  for (tile.x = 0; tile.x < args.width; tile.x += kLanes) {
    tile.count = args.width - tile.x;
    tile.valid = tile.confident = splat(0);
    tile.loss = splat(0.0f);
    walk_tile(args, tile, image, begin, end, carry);
    totals.loss += sum_lanes(tile.loss);
    totals.valid += sum_lanes(tile.valid);
    totals.confident += sum_lanes(tile.confident);
  }
  totals.invalid_pixel = tile.invalid_pixel;
  args.totals[task] = totals;
}

}  // namespace MASKMATCH_ISA
}  // namespace maskmatch
