// The general form of multiscale_pseudo_label, for any number of scales, classes and ratios: a thread owns kStripRows
// pixels of a column and walks their classes twice, for the sums of powers and then for the mean probabilities, or once
// where one softmax is enough.
#pragma once

#include "multiscale_pseudo_label.cuh"
#include "resized.cuh"

namespace maskmatch::cuda {

struct LabelStrip : Strip {
  int64_t image;
};

// What a thread keeps of each scale, in its own slots of shared memory: where its pixels read, and their shifts.
template <int kStripRows>
struct Slots {
  static constexpr int kCount = 3 * kStripRows + 2;  // of a scale

  float* slots;  // [scales, kCount, threads]

  __device__ float& at(int scale, int i) const { return slots[(scale * kCount + i) * blockDim.x + threadIdx.x]; }
  __device__ float& shift(int scale, int r) const { return at(scale, r); }
  __device__ float& fraction(int scale, int r) const { return at(scale, kStripRows + r); }
  __device__ int32_t low(int scale, int r) const { return __float_as_int(at(scale, 2 * kStripRows + r)); }

  __device__ void fill(const PseudoLabelArgs& args, const LabelStrip& strip) const {
    for (int s = 0; s < args.scale_count; ++s) {
      const PseudoLabelScale& scale = args.scales[s];
#pragma unroll
      for (int r = 0; r < kStripRows; ++r) {  // rows after the last one repeat it
        const Sample row = scale.rows.sample(strip.row + r < args.height ? strip.row + r : args.height - 1);
        fraction(s, r) = row.fraction;
        at(s, 2 * kStripRows + r) = __int_as_float(row.low);
      }
      const Sample column = scale.columns.sample(scale.flipped ? args.width - 1 - strip.column : strip.column);
      at(s, 3 * kStripRows) = column.fraction;
      at(s, 3 * kStripRows + 1) = __int_as_float(column.low);
    }
  }

  template <class Logits>
  __device__ Column<Logits> column(const PseudoLabelArgs& args, int scale, Logits logits) const {
    const PseudoLabelScale& s = args.scales[scale];
    const int32_t low = __float_as_int(at(scale, 3 * kStripRows + 1));
    const int32_t high = low + 1 < s.columns.input_size ? low + 1 : low;
    return column_of(logits, s.rows, s.columns, {low, high, at(scale, 3 * kStripRows)});
  }
};

// The logits of an image at a scale, as a pointer or, with AnyLogits, of whatever type they are.
template <class Logits>
__device__ Logits logits_of(const PseudoLabelArgs& args, int scale, int64_t image) {
  const PseudoLabelScale& s = args.scales[scale];
  const int64_t offset = image * args.classes * s.rows.input_size * s.columns.input_size;
  if constexpr (std::is_same<Logits, AnyLogits>::value) {
    return AnyLogits{s.logits, args.type} + offset;
  } else {
    return static_cast<Logits>(s.logits) + offset;
  }
}

template <int kStripRows>
struct Best {
  float value[kStripRows];
  int label[kStripRows];
};

template <int kStripRows>
__device__ void store(const PseudoLabelArgs& args, const LabelStrip& strip, const Best<kStripRows>& best) {
#pragma unroll
  for (int r = 0; r < kStripRows; ++r) {
    if (strip.row + r < args.height) {
      const int64_t pixel = (strip.image * args.height + strip.row + r) * args.width + strip.column;
      args.label[pixel] = static_cast<uint8_t>(best.label[r]);
      args.confidence[pixel] = best.value[r];
    }
  }
}

// Calls use(r, resized, fraction) for the strip's rows; rows between the same input rows share the reads.
template <int kStripRows, int kClasses, class Logits, class Use>
__device__ void walk_rows(const Slots<kStripRows>& slots, int scale, const Column<Logits>& column, int first,
                          int classes, const Use& use) {
  Resized<kClasses> resized;
#pragma unroll
  for (int r = 0; r < kStripRows; ++r) {
    const int32_t low = slots.low(scale, r);
    if (r == 0 || low != slots.low(scale, r - 1)) resized = column.template read<kClasses>(first, classes, low);
    use(r, resized, slots.fraction(scale, r));
  }
}

template <int kStripRows, int kClasses, class Logits>
__device__ void mean_probability(const PseudoLabelArgs& args, const LabelStrip& strip, const Slots<kStripRows>& slots) {
  slots.fill(args, strip);
  for (int s = 0; s < args.scale_count; ++s) {
    const auto column = slots.column(args, s, logits_of<Logits>(args, s, strip.image));
    PowerSum sums[kStripRows];
    for (int first = 0; first < args.classes; first += kClasses) {
      walk_rows<kStripRows, kClasses>(
          slots, s, column, first, args.classes,
          [&](int r, const auto& resized, float fraction) { sums[r].add(resized, fraction); });
    }
    // Probability times weight is 2 ** (logit - shift).
#pragma unroll
    for (int r = 0; r < kStripRows; ++r) slots.shift(s, r) = sums[r].log2() - log2f(args.scales[s].weight);
  }
  Best<kStripRows> best;
  for (int first = 0; first < args.classes; first += kClasses) {
    float mean[kStripRows][kClasses] = {};
    for (int s = 0; s < args.scale_count; ++s) {
      const auto column = slots.column(args, s, logits_of<Logits>(args, s, strip.image));
      walk_rows<kStripRows, kClasses>(slots, s, column, first, args.classes,
                                      [&](int r, const auto& resized, float fraction) {
                                        const float shift = slots.shift(s, r);
#pragma unroll
                                        for (int k = 0; k < kClasses; ++k)
                                          mean[r][k] += exp2f(resized.at(k, fraction) - shift);
                                      });
    }
#pragma unroll
    for (int r = 0; r < kStripRows; ++r) {
#pragma unroll
      for (int k = 0; k < kClasses; ++k) {
        // The first class is taken as it is: where it is NaN, so is every other.
        if (first + k == 0 || mean[r][k] > best.value[r]) {
          best.value[r] = mean[r][k];
          best.label[r] = first + k;
        }
      }
    }
  }
  store(args, strip, best);
}

template <int kStripRows, int kClasses, class Logits>
__device__ void mean_logit(const PseudoLabelArgs& args, const LabelStrip& strip, const Slots<kStripRows>& slots) {
  slots.fill(args, strip);
  PowerSum sums[kStripRows];
  Best<kStripRows> best;
#pragma unroll
  for (int r = 0; r < kStripRows; ++r) best.label[r] = 0;
  for (int first = 0; first < args.classes; first += kClasses) {
    Resized<kClasses> means[kStripRows] = {};
    for (int s = 0; s < args.scale_count; ++s) {
      const float weight = args.scales[s].weight;
      const auto column = slots.column(args, s, logits_of<Logits>(args, s, strip.image));
      walk_rows<kStripRows, kClasses>(slots, s, column, first, args.classes,
                                      [&](int r, const auto& resized, float fraction) {
#pragma unroll
                                        for (int k = 0; k < kClasses; ++k)
                                          means[r].top[k] += weight * resized.at(k, fraction);
                                      });
    }
#pragma unroll
    for (int r = 0; r < kStripRows; ++r) {
      float highest = sums[r].highest;
#pragma unroll
      for (int k = 0; k < kClasses; ++k) {
        if (first + k < args.classes && means[r].top[k] > highest) {
          highest = means[r].top[k];
          best.label[r] = first + k;
        }
      }
      sums[r].add(means[r], 0);
    }
  }
#pragma unroll
  for (int r = 0; r < kStripRows; ++r) best.value[r] = 1 / sums[r].sum;
  store(args, strip, best);
}

}  // namespace maskmatch::cuda
