// The tile of a thread block in the fast form of upsample_cross_entropy: cells, and in shared memory the elements
// around them.
#pragma once

#include "cross_entropy_series.h"
#include "cross_entropy_surface.cuh"
#include "resized.cuh"

namespace maskmatch::cuda {
namespace {  // each file that includes this has its own

// A class so far below the highest that its power may leave the range of a float can be left to a series if it lies
// there all around a cell, within so many log2 units.
constexpr float kUneven = 20;

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
  bool first_down, first_across;  // whether the first cells are the tile's own

  __device__ explicit CellTile(const SeriesLossArgs& args) {
    const int32_t tiles = args.tiles_down * args.tiles_across, tile = static_cast<int32_t>(blockIdx.x % tiles);
    image = blockIdx.x / tiles;
    const int32_t down = tile / args.tiles_across, across = tile % args.tiles_across;
    row = down * (args.cells_down - args.overlap) - 1;
    column = across * (args.cells_across - args.overlap) - 1;
    first_down = down == 0 || !args.overlap;
    first_across = across == 0 || !args.overlap;
  }

  // Where the intervals of pixels start.
  __device__ void fill(const SeriesLossArgs& args, int32_t* rows, int32_t* columns) const {
    const int32_t thread = threadIdx.x;
    if (thread <= args.cells_down) rows[thread] = static_cast<int32_t>(interval_start(args.loss.rows, row + thread));
    if (thread <= args.cells_across) {
      columns[thread] = static_cast<int32_t>(interval_start(args.loss.columns, column + thread));
    }
  }
};

// The elements of a tile. One that lies outside of the image is its nearest inside. A thread reads all classes of an
// element.
class Elements {
 public:
  __device__ Elements(const SeriesLossArgs& args, const CellTile& tile, float* shared)
      : count(args.elements()),
        width(args.cells_across + 1),
        classes_(args.loss.classes),
        plane_(static_cast<int32_t>(args.loss.rows.input_size * args.loss.columns.input_size)),
        tops_(shared + args.memory.tops),
        values_(shared + args.memory.values),
        logits_(AnyLogits{args.loss.logits, args.loss.type} + tile.image * classes_ * plane_) {
    const int32_t height = static_cast<int32_t>(args.loss.rows.input_size),
                  row_floats = static_cast<int32_t>(args.loss.columns.input_size);
    for (int32_t m = threadIdx.x; m < count; m += blockDim.x) {
      const int32_t y = tile.row + m / width, x = tile.column + m % width;
      offset(m) = min(max(y, 0), height - 1) * row_floats + min(max(x, 0), row_floats - 1);
    }
  }

  // What all classes of an element have in common: the highest, and how far the lowest lies below it.
  __device__ void find_tops() const {
    if (logits_.type == ElementType::kHalf) return find_tops_of<__half>();
    if (logits_.type == ElementType::kBFloat16) return find_tops_of<__nv_bfloat16>();
    find_tops_of<float>();
  }

  // Reads classes first, first + 1, ... into shared memory, in log2 units below the element's highest.
  __device__ void stage(int first, int chunk) const {
    if (logits_.type == ElementType::kHalf) return stage_of<__half>(first, chunk);
    if (logits_.type == ElementType::kBFloat16) return stage_of<__nv_bfloat16>(first, chunk);
    stage_of<float>(first, chunk);
  }

  // Around the cell whose upper left element is m: the highest classes, the staged class c, and any class.
  __device__ Corners tops(int32_t m) const { return around(tops_ + m); }
  __device__ Corners staged(int c, int32_t m) const { return around(values_ + c * count + m); }
  __device__ Corners read(int c, int32_t m) const {
    const AnyLogits plane = logits_ + static_cast<int64_t>(c) * plane_;
    const auto value = [&](int32_t i) { return fmaf(plane[offset(i)], kLog2E, -tops_[i]); };
    return {{value(m), value(m + 1), value(m + width), value(m + width + 1)}};
  }

  __device__ int best(int32_t m) const { return __float_as_int(tops_[2 * count + m]); }

  // Whether powers in a cell could leave the range of a float.
  __device__ bool is_deep(int32_t m, float limit) const {
    const Corners lowest = around(tops_ + count + m);
    if (!(lowest.lowest() < limit)) return false;
#pragma unroll 1
    for (int c = 0; c < classes_; ++c) {
      const Corners around_cell = read(c, m);
      const float low = around_cell.lowest();
      if (low < limit && !(around_cell.highest() - low <= kUneven)) return true;
    }
    return false;
  }

  const int32_t count, width;

 private:
  __device__ Corners around(const float* upper) const {
    const float* lower = upper + width;
    return {{upper[0], upper[1], lower[0], lower[1]}};
  }
  __device__ int32_t& offset(int32_t m) const { return reinterpret_cast<int32_t*>(tops_)[3 * count + m]; }

  template <class Logit>
  __device__ void find_tops_of() const {
    for (int32_t m = threadIdx.x; m < count; m += blockDim.x) {
      const Logit* logit = static_cast<const Logit*>(logits_.data) + offset(m);
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
      const float top = highest * kLog2E;
      tops_[m] = top;
      tops_[count + m] = fmaf(lowest, kLog2E, -top);
      tops_[2 * count + m] = __int_as_float(best);
    }
  }

  template <class Logit>
  __device__ void stage_of(int first, int chunk) const {
    for (int32_t m = threadIdx.x; m < count; m += blockDim.x) {
      const Logit* logit = static_cast<const Logit*>(logits_.data) + (static_cast<int64_t>(first) * plane_ + offset(m));
      const float top = tops_[m];
      float* value = values_ + m;
#pragma unroll 8
      for (int c = 0; c < chunk; ++c) {
        *value = fmaf(to_float(*logit), kLog2E, -top);
        logit += plane_;
        value += count;
      }
    }
  }

  int32_t classes_, plane_;
  float* tops_;  // [4, count]: the highest class's logit; the lowest one's below it; the highest class; where it is
  float* values_;
  AnyLogits logits_;
};

}  // namespace
}  // namespace maskmatch::cuda
