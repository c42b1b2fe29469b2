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

  // Where it starts, among pixels and in a map [N, H, W], and how many columns and rows of it there are.
  int64_t first;
  int32_t columns, rows;
  uint32_t valid = 0, active = 0;  // a bit for each pixel that is not ignored; that is confident, too

  // `shared` is the block's memory for a thread's own numbers.
  __device__ Patch(const SeriesLossArgs& args, const SeriesLossMemory& memory, float* shared)
      : labels_(reinterpret_cast<uint32_t*>(shared + memory.labels) + threadIdx.x),
        weights_(shared + memory.pixels + threadIdx.x),
        marks_(reinterpret_cast<int*>(shared + memory.marks) + threadIdx.x),
        weighted_(args.weighted()) {}

  __device__ bool has(int k, int r) const { return k < columns && r < rows; }
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
    uint32_t labels[kPixels / 4] = {};
    bool wrong = false;
#pragma unroll
    for (int r = 0; r < kDown; ++r) {
#pragma unroll
      for (int k = 0; k < kAcross; ++k) {
        const int p = k * kDown + r;
        const Label label = has(k, r) ? target[k] : static_cast<Label>(args.ignore_index);
        const bool counts = has(k, r) && label != args.ignore_index;
        wrong |= counts && static_cast<uint64_t>(label) >= static_cast<uint64_t>(args.classes);
        valid |= counts ? 1u << p : 0;
        labels[p / 4] |= (static_cast<uint32_t>(label) & 255) << p % 4 * 8;
      }
      target += args.columns.output_size;
    }
    assert(!wrong && "target must hold classes or ignore_index");
#pragma unroll
    for (int p = 0; p < kPixels; p += 4) set_four_labels(p, labels[p / 4]);
    active = valid;
    if (args.confidence) read_confidences(args);
  }

  // What pixels weigh beside their class; read once.
  __device__ void read_weights(const CrossEntropyArgs& args) const {
    if (!weighted_) return;
#pragma unroll 8
    for (int p = 0; p < kPixels; ++p) {
      const int k = p / kDown, r = p % kDown;
      float weight = 0;
      if (has(k, r)) {
        const int64_t i = pixel(args, k, r);
        weight = args.pixel_weight ? args.pixel_weight[i] : 1.0f;
        if (args.grad_output) weight *= args.grad_output[i];
      }
      weights_[p * blockDim.x] = weight;
    }
  }
  __device__ float weight(int p) const { return weighted_ ? weights_[p * blockDim.x] : 1; }

  // Marks the pixels of classes first, first + 1, ... Where pixels have weights of their own, with a bit each; else it is
  // enough to add up 1, k, r and k r, a byte each.
  __device__ void set_marks(int first, int chunk) const {
    for (int c = 0; c < chunk; ++c) marks_[c * blockDim.x] = 0;
    if (weighted_) {
      set_marks(first, chunk, [](uint32_t, uint32_t, int p) { return 1u << p; });
    } else {
      set_marks(first, chunk, [](uint32_t k, uint32_t r, int) { return 1 | k << 8 | r << 16 | k * r << 24; });
    }
  }

  // The moments of the weights of pixels of the c-th class that was marked; whether there are any.
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
      moments.add(weight(p), p / kDown, p % kDown);
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
        const float value = has(k, r) ? confidence[k] : args.threshold;
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

  uint32_t* labels_;  // [kPixels / 4, threads], a byte each
  float* weights_;    // [kPixels, threads]
  int* marks_;        // [chunk, threads]
  bool weighted_;
};

}  // namespace
}  // namespace maskmatch::cuda
