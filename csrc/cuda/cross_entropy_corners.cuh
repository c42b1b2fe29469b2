// How the gradient gets from the cells to the elements in the fast form of upsample_cross_entropy: by way of what each
// cell has for its corners, in shared memory.
#pragma once

#include "cross_entropy_worker.cuh"

namespace maskmatch::cuda {
namespace {  // each file that includes this has its own

// Adds what the lanes of a cell have for its corners and puts it into shared memory. All threads of a warp must call.
__device__ void give(const Corners& corners, const SeriesLossArgs& args, const Cell& cell, float* planes) {
  const float (&v)[4] = corners.values;
  float* const plane = planes + cell.index;
  if (args.lanes == 1) {
    if (!cell.inside) return;
#pragma unroll
    for (int corner = 0; corner < 4; ++corner) plane[corner * args.memory.plane] = v[corner];
    return;
  }
  // Each lane keeps the corners of one side, then one of these.
  const bool right = cell.lane & 1, lower = cell.lane & 2;
  const float above = (right ? v[1] : v[0]) + __shfl_xor_sync(~0u, right ? v[0] : v[1], 1);
  const float below = (right ? v[3] : v[2]) + __shfl_xor_sync(~0u, right ? v[2] : v[3], 1);
  if (args.lanes == 2) {
    if (!cell.inside) return;
    plane[right * args.memory.plane] = above;
    plane[(2 + right) * args.memory.plane] = below;
    return;
  }
  float sum = (lower ? below : above) + __shfl_xor_sync(~0u, lower ? above : below, 2);
  for (int lanes = 4; lanes < args.lanes; lanes *= 2) sum += __shfl_xor_sync(~0u, sum, lanes);
  if (cell.inside && cell.lane < 4) plane[cell.lane * args.memory.plane] = sum;
}

// What an element's thread writes: the gradient in every `lanes`th class.
class Gatherer {
 public:
  __device__ Gatherer(const SeriesLossArgs& args, const CellTile& tile)
      : args_(args), plane_(args.memory.plane), cell_(threadIdx.x % args.cells()), part_(threadIdx.x / args.cells()) {
    const int32_t down = cell_ / args.cells_across, across = cell_ % args.cells_across;
    const int32_t row = tile.row + down, column = tile.column + across;
    const int64_t height = args.loss.rows.input_size, width = args.loss.columns.input_size;
    own_ = part_ < args.lanes && down > 0 && across > 0 && row < height && column < width;
    size_ = height * width;
    place_ = tile.image * args.loss.classes * size_ + row * width + column;
  }

  // Writes classes first, first + 1, ...: the sum of the four cells around the element.
  __device__ void write(int first, int chunk, const float* planes) const {
    const float* below = planes + 4 * part_ * plane_ + cell_;
    const float *right = below + plane_ - 1, *lower = below + 2 * plane_ - args_.cells_across,
                *last = lower + plane_ - 1;
    const int32_t step = 4 * args_.lanes * plane_;
    write_each(first, chunk, [&] {
      const float sum = ((*last + *lower) + *right) + *below;
      below += step, right += step, lower += step, last += step;
      return sum;
    });
  }

  __device__ void write_zeros() const {
    write_each(0, args_.loss.classes, [] { return 0.0f; });
  }

 private:
  template <class Value>
  __device__ void write_each(int first, int chunk, Value value) const {
    if (!own_) return;
    if (args_.loss.mode == LossMode::kLossAndGradient || args_.loss.type == ElementType::kFloat) {
      write_as<float>(first, chunk, value);
    } else if (args_.loss.type == ElementType::kHalf) {
      write_as<__half>(first, chunk, value);
    } else {
      write_as<__nv_bfloat16>(first, chunk, value);
    }
  }

  template <class Gradient, class Value>
  __device__ void write_as(int first, int chunk, Value value) const {
    Gradient* gradient = static_cast<Gradient*>(args_.loss.gradient) + place_ + (first + part_) * size_;
    const int64_t step = args_.lanes * size_;
#pragma unroll 4
    for (int c = part_; c < chunk; c += args_.lanes) {
      *gradient = from_float<Gradient>(value());
      gradient += step;
    }
  }

  const SeriesLossArgs& args_;
  int32_t plane_, cell_, part_;
  bool own_;
  int64_t size_, place_;
};

}  // namespace
}  // namespace maskmatch::cuda
