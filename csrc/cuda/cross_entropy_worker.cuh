// A thread's work in the fast form of upsample_cross_entropy, between the barriers of its block: sums of powers,
// losses, and the gradient that its pixels give to the corners of their cell.
#pragma once

#include "cross_entropy_cells.cuh"
#include "cross_entropy_patch.cuh"
#include "cross_entropy_weights.cuh"

namespace maskmatch::cuda {
namespace {  // each file that includes this has its own

// What a thread knows of its cell.
struct Cell {
  int32_t lane, index, down, across;  // in the tile
  bool inside, own;                   // whether there is such a cell, and its loss counts here
  int32_t element;                    // the upper left one's place in the tile

  __device__ Cell(const SeriesLossArgs& args, const CellTile& tile) {
    const int32_t thread = threadIdx.x;
    lane = thread % args.lanes;
    inside = thread / args.lanes < args.cells();
    index = inside ? thread / args.lanes : 0;
    down = index / args.cells_across;
    across = index % args.cells_across;
    element = down * (args.cells_across + 1) + across;
    own = inside && (down > 0 || tile.first_down) && (across > 0 || tile.first_across);
  }
};

// Sets the patch's pixels and gives its place, both from where the intervals start.
template <class Pixels>
__device__ Place place_of(const SeriesLossArgs& args, const CellTile& tile, const Cell& cell, const int32_t* rows,
                          const int32_t* columns, Pixels& patch) {
  const Bilinear &y = args.loss.rows, &x = args.loss.columns;
  const int32_t i = tile.row + cell.down, j = tile.column + cell.across;
  const int32_t row = rows[cell.down] + cell.lane / args.lanes_across * Pixels::kRows;
  const int32_t column = columns[cell.across] + cell.lane % args.lanes_across * Pixels::kColumns;
  patch.set_pixels((tile.image * y.output_size + row) * x.output_size + column, columns[cell.across + 1] - column,
                   cell.inside ? rows[cell.down + 1] - row : 0);
  const float down_divisor = 1 / static_cast<float>(y.divisor), across_divisor = 1 / static_cast<float>(x.divisor);
  Place place{static_cast<float>(x.numerator(column) - j * x.divisor) * across_divisor,
              static_cast<float>(y.numerator(row) - i * y.divisor) * down_divisor,
              static_cast<float>(x.scale) * across_divisor, static_cast<float>(y.scale) * down_divisor, 0};
  // Beyond the first and the last element there is one, which is to receive all.
  if (j < 0 || j + 1 >= x.input_size) place.across = j < 0, place.across_step = 0;
  if (i < 0 || i + 1 >= y.input_size) place.down = i < 0, place.down_step = 0;
  place.both_step = place.across_step * place.down_step;
  return place;
}

// log2 of 1 / (1 - share), for small shares.
__device__ inline float log2_of_rest(float share) {
  const float series = fmaf(share, fmaf(share, fmaf(share, fmaf(share, 0.2f, 0.25f), 0.33333333f), 0.5f), 1.0f);
  return kLog2E * share * series;
}

// How a pixel's loss is weighed: `hard` its label's logit, `soft` and the class weight any class's.
struct Weighing {
  float hard, soft, class_sum;

  __device__ explicit Weighing(const CrossEntropyArgs& args)
      : hard(1 - args.label_smoothing), soft(args.label_smoothing / args.classes), class_sum(class_weight_sum(args)) {}

  // Of all logits together.
  __device__ float scale(float class_weight) const { return fmaf(hard, class_weight, soft * class_sum); }
  // The part of the scale that is not the label's.
  __device__ float soft_share(float class_weight) const {
    const float part = soft * class_sum;
    return part != 0 ? part / scale(class_weight) : 0;
  }
};

// Where a thread's pixels are, and what it keeps of them from the first walk over the classes to the second.
template <int kAcross, int kDown>
struct Worker {
  using Pixels = Patch<kAcross, kDown>;

  const SeriesLossArgs& args;
  const CrossEntropyArgs& loss;
  const Elements& elements;
  const Cell& cell;
  float* moments;  // [8, threads]: the gradient in the class left out; what smoothing takes off it in every class
  Pixels patch;
  Place place;
  int left_out;                 // the class; none, -1, where sums are deep
  float sums[Pixels::kPixels];  // of powers, or log2 of them where they are deep; then the gradient's factors
  float total;                  // loss in units of log2
  uint32_t negative;            // a bit for each negative factor

  __device__ Worker(const SeriesLossArgs& args, const CellTile& tile, const Elements& elements, const Cell& cell,
                    float* shared)
      : args(args),
        loss(args.loss),
        elements(elements),
        cell(cell),
        moments(shared + args.memory.moments + threadIdx.x),
        patch(args, shared),
        place(place_of(args, tile, cell, reinterpret_cast<const int32_t*>(shared + args.memory.rows),
                       reinterpret_cast<const int32_t*>(shared + args.memory.columns), patch)),
        left_out(-1),
        total(0),
        negative(0) {
    if (loss.target_is_uint8) {
      patch.template read<uint8_t>(loss);
    } else {
      patch.template read<int64_t>(loss);
    }
  }

  // Once the elements' tops are there.
  __device__ void begin() {
    if (!elements.is_deep(cell.element, args.deep)) left_out = elements.best(cell.element);
#pragma unroll
    for (float& sum : sums) sum = left_out < 0 ? kLowest : 0;
  }

  __device__ Surface surface(int c) const { return place.surface(elements.staged(c, cell.element)); }
  __device__ Surface surface_of_any(int c) const {
    return args.staged == loss.classes ? surface(c) : place.surface(elements.read(c, cell.element));
  }
  __device__ Surface surface_left_out() const { return left_out < 0 ? Surface{} : surface_of_any(left_out); }

  // Adds staged classes to the sums.
  __device__ void sum_powers(int first, int chunk) {
    if (left_out < 0) {
#pragma unroll 1
      for (int c = 0; c < chunk; ++c) Pixels::add_deep(surface(c), sums);
    } else {
#pragma unroll 2
      for (int c = 0; c < chunk; ++c) Pixels::add_series(surface(c), first + c == left_out, sums);
    }
  }

  // Makes losses of the sums, less the logits of labels that are not left out, and factors.
  __device__ void take_losses() {
    if (!args.plain()) weigh();
    if (left_out < 0) {
      take_deep_losses();
    } else if (args.plain()) {
      take_losses([](int) { return 1.0f; }, 0);
    } else {
      take_losses([&](int p) { return patch.number(p); }, Weighing(loss).soft_share(class_weight_of(loss, left_out)));
    }
  }

  // The scales of pixels, and what smoothing takes off the gradient in a class, but for the class weight.
  __device__ void weigh() const {
    const Weighing weighing(loss);
    Moments smooth;
#pragma unroll 4
    for (int p = 0; p < Pixels::kPixels; ++p) {
      float weight = 0, scale = 0;
      if (patch.is_active(p)) {
        weight = weight_of(p);
        scale = weight * weighing.scale(class_weight_of(loss, Pixels::label_of(patch.four_labels(p), p)));
      }
      patch.number(p) = scale;
      smooth.add(weight * weighing.soft, p / kDown, p % kDown);
    }
    if (loss.label_smoothing != 0) smooth.store(moments + 4 * blockDim.x);
  }

  // `scale_of` a pixel is constant where all count the same.
  template <class Scale>
  __device__ void take_losses(Scale scale_of, float soft_share) {
    const Surface logits = surface_left_out();
    Moments mine;
    float power = exp2f(logits.base), ratio = exp2f(logits.down);
    const float across = exp2f(logits.across), both = exp2f(logits.both);
#pragma unroll
    for (int k = 0; k < kAcross; ++k) {
      float value = power, column = 0, column_down = 0;
      const float top = fmaf(k, logits.across, logits.base), step = fmaf(k, logits.both, logits.down);
#pragma unroll
      for (int r = 0; r < kDown; ++r) {
        const int p = k * kDown + r;
        const uint32_t four = patch.four_labels(p);
        const bool active = patch.is_active(p), other = Pixels::label_of(four, p) != left_out;
        const float scale = scale_of(p), left = other ? scale : scale * soft_share;
        // Of the class left out, and how far the sum lies above it.
        const float logit = fmaf(r, step, top), sum = sums[p] + value, others = __fdividef(sums[p], sum);
        const float rest = others < 0.0625f ? log2_of_rest(others) : __log2f(sum) - logit;
        const float slope = active ? left - scale * others : 0;
        total += active ? fmaf(scale, rest, left * logit) : 0;
        column += slope;
        column_down = fmaf(r, slope, column_down);
        sums[p] = active ? __fdividef(scale, sum) : 0;
        if (!(active && other)) patch.set_four_labels(p, four | kNoLabel << p % 4 * 8);
        value *= ratio;
      }
      mine.add_column(column, column_down, k);
      power *= across;
      ratio *= both;
    }
    mine.store(moments);
  }

  // The same where sums are deep.
  __device__ void take_deep_losses() {
#pragma unroll
    for (int p = 0; p < Pixels::kPixels; ++p) {
      const float scale = !patch.is_active(p) ? 0 : args.plain() ? 1 : patch.number(p);
      if (scale != 0) {
        total = fmaf(scale, sums[p], total);
        sums[p] -= __log2f(fabsf(scale));
        negative |= scale < 0 ? 1u << p : 0;
      } else {
        sums[p] = -kLowest;
      }
      if (!patch.is_active(p)) patch.set_four_labels(p, patch.four_labels(p) | kNoLabel << p % 4 * 8);
    }
  }

  // The gradient of class c, staged and marked at these places, as the cell's corners receive it. Takes the logits of
  // labels off the loss.
  __device__ Corners take_gradient(int c, int staged, int marked) {
    const Surface logits = surface(staged);
    Moments gradient;
    if (c == left_out) {
      gradient.subtract(-1, Moments::load(moments));
    } else if (left_out < 0) {
      gradient = Pixels::deep_moments(logits, sums, negative);
    } else {
      gradient = Pixels::series_moments(logits, sums);
    }
    Moments labels;
    if (patch.marked(marked, labels)) {
      // Where pixels have weights of their own, marked are scales.
      const float class_weight = class_weight_of(loss, c), hard = (1 - loss.label_smoothing) * class_weight;
      const float weight = args.weighted() ? 1 - Weighing(loss).soft_share(class_weight) : hard;
      gradient.subtract(weight, labels);
      total -= weight * labels.dot(logits);
    }
    if (loss.label_smoothing != 0) {
      const Moments smooth = Moments::load(moments + 4 * blockDim.x);
      gradient.subtract(class_weight_of(loss, c), smooth);
      total -= class_weight_of(loss, c) * smooth.dot(logits);
    }
    return place.spread(gradient);
  }

  // Where no gradient is wanted: the losses, pixel by pixel.
  __device__ void write_losses() {
    const Surface logits = surface_left_out();
    const Surface tops = patch.active ? place.surface(elements.tops(cell.element)) : Surface{};
    const Weighing weighing(loss);
    Surface smoothed{};
    for (int c = 0; c < loss.classes && patch.active && weighing.soft != 0; ++c) {
      smoothed.add(class_weight_of(loss, c), surface_of_any(c));
    }
    if (patch.active) keep_rests(logits);
#pragma unroll 2
    for (int p = 0; p < Pixels::kPixels; ++p) {
      const int k = p / kDown, r = p % kDown;
      if (!patch.has(p)) continue;
      float value = 0, log_sum = 0;
      if (patch.is_active(p)) {
        const int label = Pixels::label_of(patch.four_labels(p), p);
        const float rest = patch.number(p), logit = logits.at(k, r);
        const float hard = label == left_out ? rest : rest + logit - surface_of_any(label).at(k, r);
        log_sum = rest + logit;
        value = weighing.hard * class_weight_of(loss, label) * hard;
        value += weighing.soft * (weighing.class_sum * log_sum - smoothed.at(k, r));
        value *= weight_of(p);
        log_sum += tops.at(k, r);
      }
      total += value;
      const int64_t i = patch.pixel(loss, k, r);
      if (loss.pixel_loss) loss.pixel_loss[i] = value * kLn2;
      if (loss.log_sum) loss.log_sum[i] = log_sum * kLn2;
    }
  }

 private:
  // How far each sum lies above the class left out.
  __device__ void keep_rests(const Surface& logits) const {
    float power = exp2f(logits.base), ratio = exp2f(logits.down);
    const float across = exp2f(logits.across), both = exp2f(logits.both);
#pragma unroll
    for (int k = 0; k < kAcross; ++k) {
      float value = power;
#pragma unroll
      for (int r = 0; r < kDown; ++r) {
        const float own = sums[k * kDown + r], sum = own + value, others = __fdividef(own, sum);
        const float rest = others < 0.0625f ? log2_of_rest(others) : __log2f(sum) - logits.at(k, r);
        patch.number(k * kDown + r) = left_out < 0 ? own : rest;
        value *= ratio;
      }
      power *= across;
      ratio *= both;
    }
  }

  // What a pixel weighs beside its class.
  __device__ float weight_of(int p) const {
    const int64_t i = patch.pixel(loss, p / kDown, p % kDown);
    const float weight = loss.pixel_weight ? loss.pixel_weight[i] : 1.0f;
    return loss.grad_output ? weight * loss.grad_output[i] : weight;
  }
};

}  // namespace
}  // namespace maskmatch::cuda
