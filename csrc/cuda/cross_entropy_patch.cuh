// A thread's pixels in the fast form of upsample_cross_entropy, a patch of a cell: their labels, the sums of their
// powers, and the moments of a class's powers over them. Pixel p lies in column p / kDown and row p % kDown.
#pragma once

#undef NDEBUG  // a wrong label must not pass in silence, whatever the build
#include <cassert>

#include "cross_entropy_series.h"
#include "cross_entropy_surface.cuh"

namespace maskmatch::cuda {
namespace {  // each file that includes this has its own

constexpr uint32_t kNoLabel = 255;

template <int kAcross, int kDown>
class Patch {
 public:
  static constexpr int kColumns = kAcross, kRows = kDown, kPixels = kAcross * kDown;
  static_assert(kPixels <= 32, "a bit each");

  int64_t first;                   // its first pixel's index in a map [N, H, W]
  uint32_t valid = 0, active = 0;  // a bit for each pixel that is not ignored; that is confident, too

  // `shared` is the block's memory for a thread's own numbers.
  __device__ Patch(const SeriesLossArgs& args, float* shared)
      : labels_(reinterpret_cast<uint32_t*>(shared + args.memory.labels) + threadIdx.x),
        numbers_(shared + args.memory.pixels + threadIdx.x),
        marks_(reinterpret_cast<int*>(shared + args.memory.marks) + threadIdx.x),
        weighted_(args.weighted()) {}

  // Where it starts in a map [N, H, W], and how many columns and rows of it there are.
  __device__ void set_pixels(int64_t first_pixel, int32_t columns, int32_t rows) {
    first = first_pixel;
    const uint32_t column = rows <= 0 ? 0 : ~0u >> (32 - min(rows, kDown));
    present_ = 0;
#pragma unroll
    for (int k = 0; k < kAcross; ++k) present_ |= k < columns ? column << k * kDown : 0;
  }

  __device__ bool has(int p) const { return present_ >> p & 1; }
  __device__ bool is_active(int p) const { return active >> p & 1; }
  __device__ uint32_t four_labels(int p) const { return labels_[p / 4 * blockDim.x]; }
  __device__ void set_four_labels(int p, uint32_t four) const { labels_[p / 4 * blockDim.x] = four; }
  __device__ static uint32_t label_of(uint32_t four, int p) { return four >> p % 4 * 8 & 255; }
  __device__ int64_t pixel(const CrossEntropyArgs& args, int k, int r) const {
    return first + r * args.columns.output_size + k;
  }

  // Reads labels and confidences. Loads do not depend on each other, so that they wait together.
  template <class Label>
  __device__ void read(const CrossEntropyArgs& args) {
    const Label* target = static_cast<const Label*>(args.target) + first;
    const uint32_t classes = args.classes, ignored = ignored_code<Label>(args);
    uint32_t labels[kPixels / 4] = {};
    bool wrong = false;
#pragma unroll
    for (int r = 0; r < kDown; ++r) {
#pragma unroll
      for (int k = 0; k < kAcross; ++k) {
        const int p = k * kDown + r;
        uint32_t code = kNone;
        if (has(p)) code = code_of(target[k], args);
        if (code == ignored) code = kNone;
        wrong |= code >= classes && code != kNone;
        valid |= code != kNone ? 1u << p : 0;
        labels[p / 4] |= (code & 255) << p % 4 * 8;
      }
      target += args.columns.output_size;
    }
    assert(!wrong && "target must hold classes or ignore_index");
#pragma unroll
    for (int p = 0; p < kPixels; p += 4) set_four_labels(p, labels[p / 4]);
    active = valid;
    if (args.confidence) read_confidences(args);
  }

  // A number for each pixel.
  __device__ float& number(int p) const { return numbers_[p * blockDim.x]; }

  // Marks the pixels of classes first, first + 1, ... Where pixels have weights of their own, with a bit each; else it
  // is enough to add up 1, k, r and k r, a byte each.
  __device__ void set_marks(int first, int chunk) const {
    for (int c = 0; c < chunk; ++c) marks_[c * blockDim.x] = 0;
    if (weighted_) {
      set_marks(first, chunk, [](uint32_t, uint32_t, int p) { return 1u << p; });
    } else {
      set_marks(first, chunk, [](uint32_t k, uint32_t r, int) { return 1 | k << 8 | r << 16 | k * r << 24; });
    }
  }

  // The moments of pixels of the c-th class that was marked, of their numbers where they have weights of their own;
  // whether there are any.
  __device__ bool marked(int c, Moments& moments) const {
    uint32_t mark = marks_[c * blockDim.x];
    if (!mark) return false;
    if (!weighted_) {
      moments = {static_cast<float>(mark & 255), static_cast<float>(mark >> 8 & 255),
                 static_cast<float>(mark >> 16 & 255), static_cast<float>(mark >> 24)};
      return true;
    }
#pragma unroll 1
    for (; mark; mark &= mark - 1) {
      const int p = __ffs(mark) - 1;
      moments.add(number(p), p / kDown, p % kDown);
    }
    return true;
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
      log_sums[p] = fmaxf(sum, value) + __log2f(1 + exp2f(-fabsf(sum - value)));
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

 private:
  __device__ void read_confidences(const CrossEntropyArgs& args) {
    const float* confidence = args.confidence + first;
#pragma unroll
    for (int r = 0; r < kDown; ++r) {
#pragma unroll
      for (int k = 0; k < kAcross; ++k) {
        const float value = has(k * kDown + r) ? confidence[k] : args.threshold;
        if (!(value >= args.threshold)) active &= ~(1u << (k * kDown + r));
      }
      confidence += args.columns.output_size;
    }
  }

  template <class Mark>
  __device__ void set_marks(int first, int chunk, Mark mark_of) const {
#pragma unroll
    for (int p = 0; p < kPixels; ++p) {
      const uint32_t c = label_of(four_labels(p), p) - first;
      const int mark = static_cast<int>(mark_of(p / kDown, p % kDown, p));
      if (c < static_cast<uint32_t>(chunk)) atomicAdd(marks_ + c * blockDim.x, mark);  // does not wait
    }
  }

  // A label as a number of 32 bits, which is a class only if the label is.
  static constexpr uint32_t kNone = 256 + kNoLabel;  // ignored, or no pixel
  __device__ static uint32_t code_of(uint8_t label, const CrossEntropyArgs&) { return label; }
  __device__ static uint32_t code_of(int64_t label, const CrossEntropyArgs& args) {
    if (label == args.ignore_index) return kNone;
    return static_cast<uint64_t>(label) < 256 ? static_cast<uint32_t>(label) : 256;
  }

  template <class Label>
  __device__ static uint32_t ignored_code(const CrossEntropyArgs& args) {
    return sizeof(Label) == 1 && static_cast<uint64_t>(args.ignore_index) < 256 ? args.ignore_index : kNone;
  }

  uint32_t present_;  // a bit for each pixel that there is
  uint32_t* labels_;  // [kPixels / 4, threads], a byte each
  float* numbers_;    // [kPixels, threads]
  int* marks_;        // [chunk, threads]
  bool weighted_;
};

}  // namespace
}  // namespace maskmatch::cuda
