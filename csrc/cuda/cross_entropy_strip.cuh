// A thread's part of the loss: it reads its strip's pixels, sums the powers of their classes and takes their losses.
#pragma once

#undef NDEBUG  // a wrong label must not pass in silence, whatever the build
#include <cassert>

#include "cross_entropy_tile.cuh"
#include "cross_entropy_weights.cuh"
#include "resized.cuh"

namespace maskmatch::cuda {
namespace {  // each file that includes this has its own

constexpr int kClasses = 4;  // that a thread handles at a time

// The pixels of a strip: what the loss needs of each.
struct Pixels {
  int label[kStripRows];       // -1 where ignored
  float weight[kStripRows];    // 0 where not confident
  float fraction[kStripRows];  // between the two input rows
  float log_sum[kStripRows];   // log2 of the sum of powers
  bool any;                    // whether any weight is not 0
};

__device__ int read_label(const CrossEntropyArgs& args, int64_t pixel) {
  const int64_t value = args.target_is_uint8 ? static_cast<const uint8_t*>(args.target)[pixel]
                                             : static_cast<const int64_t*>(args.target)[pixel];
  if (value == args.ignore_index) return -1;
  assert(value >= 0 && value < args.classes && "target must hold classes or ignore_index");
  return static_cast<int>(value);
}

// Reads the strip's pixels; counts them in `totals` if they are the tile's own.
template <LossMode kMode>
__device__ void read_pixels(const CrossEntropyArgs& args, const LossStrip& strip, int64_t image, bool own,
                            Pixels& pixels, LossTotals& totals) {
  // All rows have the same low one, so their fractions grow evenly from the first one's, which may be negative.
  const float divisor = static_cast<float>(args.rows.divisor), step = args.rows.scale / divisor;
  const float start = (args.rows.numerator(strip.row) - strip.low * args.rows.divisor) / divisor;
  const bool last = strip.low + 1 == args.rows.input_size;
  pixels.any = false;
#pragma unroll
  for (int r = 0; r < kStripRows; ++r) {
    pixels.label[r] = -1;
    pixels.weight[r] = pixels.log_sum[r] = 0;
    pixels.fraction[r] = last ? 0 : fmaxf(0, start + r * step);
    if (r < strip.rows) {
      const int64_t i = strip.pixel(args, image, r);
      const int label = read_label(args, i);
      pixels.label[r] = label;
      const bool keep = label >= 0 && (!args.confidence || args.confidence[i] >= args.threshold);
      if (own) {
        totals.valid += label >= 0;
        totals.confident += keep;
      }
      if (keep) {
        float weight = args.pixel_weight ? args.pixel_weight[i] : 1.0f;
        if (kMode == LossMode::kGradient) {
          weight *= args.grad_output[i];
          pixels.log_sum[r] = args.log_sum[i] * kLog2E;
        }
        pixels.weight[r] = weight;
        pixels.any |= weight != 0;
      }
    }
  }
}

// The sum over classes of weighted logits in units of log2, for label smoothing: top + fraction * step.
struct Smoothing {
  float top = 0, step = 0;
};

// Walks the classes once: every pixel's log sum exp, and what label smoothing needs.
template <class Logit>
__device__ Smoothing sum_powers(const CrossEntropyArgs& args, const Column<const Logit*>& column,
                                const LossStrip& strip, Pixels& pixels) {
  PowerSum sums[kStripRows];
  Smoothing smoothing;
  for (int first = 0; first < args.classes; first += kClasses) {
    const auto resized = column.template read<kClasses>(first, args.classes, strip.low);
#pragma unroll
    for (int r = 0; r < kStripRows; ++r) {
      if (r < strip.rows) sums[r].add(resized, pixels.fraction[r]);
    }
    if (args.label_smoothing != 0) {
#pragma unroll
      for (int k = 0; k < kClasses; ++k) {
        if (first + k < args.classes) {
          const float weight = class_weight_of(args, first + k);
          smoothing.top += weight * resized.top[k];
          smoothing.step += weight * resized.step[k];
        }
      }
    }
  }
#pragma unroll
  for (int r = 0; r < kStripRows; ++r) pixels.log_sum[r] = sums[r].log2();
  return smoothing;
}

// The losses of the strip's pixels.
template <LossMode kMode, class Logit>
__device__ void add_losses(const CrossEntropyArgs& args, const Column<const Logit*>& column, const LossStrip& strip,
                           int64_t image, bool own, const Pixels& pixels, const Smoothing& smoothing, float weight_sum,
                           LossTotals& totals) {
#pragma unroll
  for (int r = 0; r < kStripRows; ++r) {
    if (r >= strip.rows) continue;
    const int label = pixels.label[r];
    float loss = 0;
    if (label >= 0 && pixels.weight[r] != 0) {
      const float share = 1 - args.label_smoothing;
      const float value = column.template read<1>(label, label + 1, strip.low).at(0, pixels.fraction[r]);
      loss = share * class_weight_of(args, label) * (pixels.log_sum[r] - value);
      if (args.label_smoothing != 0) {
        const float weighted = smoothing.top + pixels.fraction[r] * smoothing.step;
        loss += args.label_smoothing / args.classes * (weight_sum * pixels.log_sum[r] - weighted);
      }
      loss *= pixels.weight[r] * kLn2;
    }
    if (own) totals.loss += loss;
    const int64_t i = strip.pixel(args, image, r);
    if (args.pixel_loss) args.pixel_loss[i] = loss;
    if (kMode == LossMode::kLoss && args.log_sum) args.log_sum[i] = pixels.log_sum[r] * kLn2;
  }
}

}  // namespace
}  // namespace maskmatch::cuda
