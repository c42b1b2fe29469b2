// A thread's pixels in the fast form of upsample_cross_entropy, a patch of a cell: their labels, the sums of their
// powers, and the moments of a class's powers over them. Pixel p lies in column p / kDown and row p % kDown.
#pragma once

#undef NDEBUG  // a wrong label must not pass in silence, whatever the build
#include <cassert>

#include "cross_entropy_surface.cuh"
#include "upsample_cross_entropy.cuh"

namespace maskmatch::cuda {
namespace {  // each file that includes this has its own

template <int kAcross, int kDown>
struct Patch {
  static constexpr int kPixels = kAcross * kDown;
  static_assert(kPixels <= 32, "a bit each");

  int64_t first;                       // its first pixel's index in a map [N, H, W]
  int32_t columns, rows;               // of it that there are
  uint32_t valid = 0, active = 0;      // a bit for each pixel that is not ignored; that is confident, too
  uint32_t labels[(kPixels + 3) / 4];  // a byte each; 255 is none
  bool by_bits;                        // how marks tell the pixels of a class: a bit each, or counted; see `mark`

  __device__ int label(int p) const { return labels[p / 4] >> p % 4 * 8 & 255; }
  __device__ void forget_label(int p) { labels[p / 4] |= 255u << p % 4 * 8; }
  __device__ bool is_active(int p) const { return active >> p & 1; }
  __device__ int64_t pixel(const CrossEntropyArgs& args, int k, int r) const {
    return first + r * args.columns.output_size + k;
  }

  // Reads labels and confidences.
  template <class Label>
  __device__ void read(const CrossEntropyArgs& args) {
    bool wrong = false;
#pragma unroll
    for (uint32_t& four : labels) four = ~0u;
#pragma unroll
    for (int r = 0; r < kDown; ++r) {
#pragma unroll
      for (int k = 0; k < kAcross; ++k) {
        if (k < columns && r < rows) {
          const int p = k * kDown + r;
          const Label label = static_cast<const Label*>(args.target)[pixel(args, k, r)];
          const float confidence = args.confidence ? args.confidence[pixel(args, k, r)] : args.threshold;
          if (label != args.ignore_index) {
            wrong |= static_cast<uint64_t>(label) >= static_cast<uint64_t>(args.classes);
            valid |= 1u << p;
            if (confidence >= args.threshold) {
              active |= 1u << p;
              labels[p / 4] ^= static_cast<uint32_t>(label ^ 255) << p % 4 * 8;
            }
          }
        }
      }
    }
    assert(!wrong && "target must hold classes or ignore_index");
  }

  // What the pixels weigh beside their class.
  __device__ float weight(const CrossEntropyArgs& args, int k, int r) const {
    const int64_t i = pixel(args, k, r);
    const float weight = args.pixel_weight ? args.pixel_weight[i] : 1.0f;
    return args.grad_output ? weight * args.grad_output[i] : weight;
  }

  // Pixels of the same weight and class need not be told apart: it is enough to add up 1, k, r and k r, a byte each.
  __device__ uint32_t mark(int p) const {
    const uint32_t k = p / kDown, r = p % kDown;
    return by_bits ? 1u << p : 1u | k << 8 | r << 16 | k * r << 24;
  }

  // Marks the pixels of classes first, first + 1, ..., `step` apart.
  __device__ void set_marks(uint32_t* marks, int step, int first, int chunk) const {
    for (int c = 0; c < chunk; ++c) marks[c * step] = 0;
#pragma unroll
    for (int p = 0; p < kPixels; ++p) {
      const uint32_t c = static_cast<uint32_t>(label(p) - first);
      if (c < static_cast<uint32_t>(chunk)) marks[c * step] += mark(p);
    }
  }

  // The moments of the weights of marked pixels.
  __device__ Moments marked(const CrossEntropyArgs& args, uint32_t mark) const {
    Moments moments;
    if (by_bits) {
#pragma unroll 1
      for (; mark; mark &= mark - 1) {
        const int p = __ffs(mark) - 1;
        moments.add(weight(args, p / kDown, p % kDown), p / kDown, p % kDown);
      }
    } else {
      moments = {static_cast<float>(mark & 255), static_cast<float>(mark >> 8 & 255),
                 static_cast<float>(mark >> 16 & 255), static_cast<float>(mark >> 24)};
    }
    return moments;
  }

  // Adds a class's powers, a geometric series along rows and columns.
  __device__ static void add_series(const Surface& surface, bool left_out, float (&sums)[kPixels]) {
    float power = exp2f(surface.base), ratio = exp2f(surface.down);
    const float across = exp2f(surface.across), both = exp2f(surface.both);
    if (left_out) power = 0;
#pragma unroll
    for (int k = 0; k < kAcross; ++k) {
      float value = power;
#pragma unroll
      for (int r = 0; r < kDown; ++r) {
        sums[k * kDown + r] += value;
        value *= ratio;
      }
      power *= across;
      ratio *= both;
    }
  }

  // The same where powers may leave the range of a float: the sums are log2 of them.
  __device__ static void add_deep(const Surface& surface, float (&log_sums)[kPixels]) {
#pragma unroll
    for (int p = 0; p < kPixels; ++p) {
      const float value = surface.at(p / kDown, p % kDown), sum = log_sums[p];
      log_sums[p] = fmaxf(sum, value) + log2_of_one_and(exp2f(-fabsf(sum - value)));
    }
  }

  // The moments of factor * power: two Horner schemes down the columns and two across.
  __device__ static Moments series_moments(const Surface& surface, const float (&factors)[kPixels]) {
    const float power = exp2f(surface.base), across = exp2f(surface.across), both = exp2f(surface.both);
    float ratios[kAcross];
    ratios[0] = exp2f(surface.down);
#pragma unroll
    for (int k = 1; k < kAcross; ++k) ratios[k] = ratios[k - 1] * both;
    Moments moments;
#pragma unroll
    for (int k = kAcross - 1; k >= 0; --k) {
      const float* const column = factors + k * kDown;
      const float ratio = ratios[k];
      float sum = column[kDown - 1], down = 0;
#pragma unroll
      for (int r = kDown - 2; r >= 0; --r) {
        down = r == kDown - 2 ? sum : fmaf(down, ratio, sum);
        sum = fmaf(sum, ratio, column[r]);
      }
      down *= ratio;
      if (k == kAcross - 1) {
        moments.sum = sum, moments.down = down;
      } else {
        moments.across = k == kAcross - 2 ? moments.sum : fmaf(moments.across, across, moments.sum);
        moments.sum = fmaf(moments.sum, across, sum);
        moments.both = k == kAcross - 2 ? moments.down : fmaf(moments.both, across, moments.down);
        moments.down = fmaf(moments.down, across, down);
      }
    }
    const float next = power * across;
    return {moments.sum * power, moments.across * next, moments.down * power, moments.both * next};
  }

  // The same of 2 ** (logit - log_sum), less where the bit of `negative` is set.
  __device__ static Moments deep_moments(const Surface& surface, const float (&log_sums)[kPixels], uint32_t negative) {
    Moments moments;
#pragma unroll
    for (int p = 0; p < kPixels; ++p) {
      const float power = exp2f(surface.at(p / kDown, p % kDown) - log_sums[p]);
      moments.add(negative >> p & 1 ? -power : power, p / kDown, p % kDown);
    }
    return moments;
  }
};

}  // namespace
}  // namespace maskmatch::cuda
