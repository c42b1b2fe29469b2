// The tile of a thread block in the fast form of upsample_cross_entropy: cells, and in shared memory the elements
// around them.
#pragma once

#include "cross_entropy_series.h"
#include "cross_entropy_surface.cuh"
#include "resized.cuh"

namespace maskmatch::cuda {
namespace {  // each file that includes this has its own

constexpr float kDeep = -100;  // log2 units below an element's highest class from where a series may fail,
constexpr float kUneven = 20;  // if the class differs by more than this around a cell

// The first output at or after input `i`. What lies before the first input is the interval -1.
__device__ int64_t interval_start(const Bilinear& axis, int64_t i) {
  if (i < 0) return 0;
  if (i > 0 || axis.offset >= 0) return axis.first_output(i);
  const int64_t before = (-axis.offset + axis.scale - 1) / axis.scale;
  return before < axis.output_size ? before : axis.output_size;
}

struct CellTile {
  int64_t image;
  int32_t row, column;            // the first cell's upper left element, which may be -1
  bool first_down, first_across;  // in the image

  __device__ explicit CellTile(const SeriesLossArgs& args) {
    const int32_t tiles = args.tiles_down * args.tiles_across, tile = static_cast<int32_t>(blockIdx.x % tiles);
    image = blockIdx.x / tiles;
    const int32_t down = tile / args.tiles_across, across = tile % args.tiles_across;
    row = down * (args.cells_down - args.overlap) - 1;
    column = across * (args.cells_across - args.overlap) - 1;
    first_down = down == 0 || !args.overlap;
    first_across = across == 0 || !args.overlap;
  }
};

// The elements of a tile. One that lies outside of the image is its nearest inside.
class Elements {
 public:
  __device__ Elements(const SeriesLossArgs& args, const SeriesLossMemory& memory, const CellTile& tile, float* shared)
      : count(memory.elements),
        width(args.cells_across + 1),
        classes_(args.loss.classes),
        plane_(args.loss.rows.input_size * args.loss.columns.input_size),
        top_(shared + memory.elements_at),
        lowest_(top_ + count),
        best_(reinterpret_cast<int32_t*>(lowest_ + count)),
        offset_(best_ + count),
        values_(shared + memory.values),
        logits_(AnyLogits{args.loss.logits, args.loss.type} + tile.image * classes_ * plane_) {
    const int32_t height = static_cast<int32_t>(args.loss.rows.input_size),
                  row_floats = static_cast<int32_t>(args.loss.columns.input_size);
    for (int32_t m = threadIdx.x; m < count; m += blockDim.x) {
      const int32_t y = tile.row + m / width, x = tile.column + m % width;
      offset_[m] = min(max(y, 0), height - 1) * row_floats + min(max(x, 0), row_floats - 1);
    }
  }

  // What all classes of an element have in common: the highest, and how far the lowest lies below it.
  __device__ void find_tops() const {
    if (logits_.type == ElementType::kHalf) return find_tops_of<__half>();
    if (logits_.type == ElementType::kBFloat16) return find_tops_of<__nv_bfloat16>();
    find_tops_of<float>();
  }

  // Reads classes first, first + 1, ... into shared memory.
  __device__ void stage(int first, int chunk) const {
    if (logits_.type == ElementType::kHalf) return stage_of<__half>(first, chunk);
    if (logits_.type == ElementType::kBFloat16) return stage_of<__nv_bfloat16>(first, chunk);
    stage_of<float>(first, chunk);
  }

  __device__ Corners tops(int32_t m) const { return {{top_[m], top_[m + 1], top_[m + width], top_[m + width + 1]}}; }
  __device__ int best(int32_t m) const { return best_[m]; }

  // The staged class c around the cell whose upper left element is m, in log2 units below `tops`.
  __device__ Corners staged(int c, int32_t m, const Corners& tops) const {
    const float* upper = values_ + c * count + m;
    const float* lower = upper + width;
    return below(tops, upper[0], upper[1], lower[0], lower[1]);
  }
  // The same for any class.
  __device__ Corners read(int c, int32_t m, const Corners& tops) const {
    const AnyLogits plane = logits_ + c * plane_;
    return below(tops, plane[offset_[m]], plane[offset_[m + 1]], plane[offset_[m + width]],
                 plane[offset_[m + width + 1]]);
  }

  // Whether powers in a cell could leave the range of a float.
  __device__ bool deep(int32_t m, const Corners& tops) const {
    if (!(fminf(fminf(lowest_[m], lowest_[m + 1]), fminf(lowest_[m + width], lowest_[m + width + 1])) < kDeep)) {
      return false;
    }
#pragma unroll 1
    for (int c = 0; c < classes_; ++c) {
      const Corners v = read(c, m, tops);
      const float highest = fmaxf(fmaxf(v.values[0], v.values[1]), fmaxf(v.values[2], v.values[3]));
      const float lowest = fminf(fminf(v.values[0], v.values[1]), fminf(v.values[2], v.values[3]));
      if (lowest < kDeep && !(highest - lowest <= kUneven)) return true;
    }
    return false;
  }

  const int32_t count, width;

 private:
  template <class Logit>
  __device__ void find_tops_of() const {
    for (int32_t m = threadIdx.x; m < count; m += blockDim.x) {
      const Logit* logit = static_cast<const Logit*>(logits_.data) + offset_[m];
      float highest = kLowest, lowest = -kLowest;
      int best = 0;
#pragma unroll 8
      for (int c = 0; c < classes_; ++c) {
        const float value = to_float(*logit);
        if (value > highest) best = c;
        highest = fmaxf(highest, value);
        lowest = fminf(lowest, value);
        logit += plane_;
      }
      top_[m] = highest * kLog2E;
      lowest_[m] = fmaf(lowest, kLog2E, -top_[m]);
      best_[m] = best;
    }
  }

  template <class Logit>
  __device__ void stage_of(int first, int chunk) const {
    const Logit* logits = static_cast<const Logit*>(logits_.data) + first * plane_;
    const int32_t classes_step = blockDim.x / count, step = blockDim.x % count;
    int32_t c = threadIdx.x / count, m = threadIdx.x % count;
#pragma unroll 4
    for (int32_t i = threadIdx.x; i < chunk * count; i += blockDim.x) {
      values_[i] = to_float(logits[c * plane_ + offset_[m]]);
      c += classes_step, m += step;
      if (m >= count) m -= count, ++c;
    }
  }

  __device__ static Corners below(const Corners& tops, float v0, float v1, float v2, float v3) {
    return {{fmaf(v0, kLog2E, -tops.values[0]), fmaf(v1, kLog2E, -tops.values[1]), fmaf(v2, kLog2E, -tops.values[2]),
             fmaf(v3, kLog2E, -tops.values[3])}};
  }

  int32_t classes_;
  int64_t plane_;
  float* top_;
  float* lowest_;
  int32_t* best_;
  int32_t* offset_;
  float* values_;
  AnyLogits logits_;
};

}  // namespace
}  // namespace maskmatch::cuda
