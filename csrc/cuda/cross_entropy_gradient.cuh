// The gradient of a tile: in each round threads give what their strips send to the rows of elements above and below, by
// the exchange in shared memory, and then gather it for elements of their own.
#pragma once

#include "cross_entropy_strip.cuh"
#include "cross_entropy_sums.cuh"

namespace maskmatch::cuda {
namespace {  // each file that includes this has its own

constexpr int kPlane = kThreads + 1;  // of the exchange; odd, so that its planes start in different banks
constexpr int64_t kExchangeFloats = 2 * kClasses * kPlane + kThreads;

// The slope of a pixel's loss in a class: scale * (power - [class is its label] * target) - class_weight * smooth.
struct Slopes {
  float scale[kStripRows], target[kStripRows];
  float smooth_above, smooth_below;  // summed over the rows, by what goes to the upper and to the lower input row
};

// Also makes the powers of pixels without a slope vanish: they could be infinite.
__device__ Slopes slopes_of(const CrossEntropyArgs& args, Pixels& pixels, float weight_sum) {
  Slopes slopes{};
  const float smoothing = args.label_smoothing;
#pragma unroll
  for (int r = 0; r < kStripRows; ++r) {
    const int label = pixels.label[r];
    if (label < 0 || pixels.weight[r] == 0) {
      pixels.log_sum[r] = -kLowest;
      continue;
    }
    const float target = pixels.weight[r] * class_weight_of(args, label) * (1 - smoothing);
    const float smooth = pixels.weight[r] * (smoothing / args.classes);
    slopes.scale[r] = target + smooth * weight_sum;
    slopes.target[r] = slopes.scale[r] != 0 ? target / slopes.scale[r] : 0;
    slopes.smooth_below += smooth * pixels.fraction[r];
    slopes.smooth_above += smooth * (1 - pixels.fraction[r]);
  }
  return slopes;
}

// Shared memory of the gradient: what the threads' strips give to the upper and the lower input row, for kClasses
// classes; how far the strips' columns lie from the left to the right neighbour; and the tile's gradient so far.
struct Exchange {
  float* given;     // [2, kClasses, kPlane]
  float* fraction;  // [kThreads]
  float* gradient;  // [C, rows, columns] of the tile

  __device__ explicit Exchange(float* shared)
      : given(shared), fraction(given + 2 * kClasses * kPlane), gradient(fraction + kThreads) {}

  __device__ float& at(int half, int k, int strip) { return given[(half * kClasses + k) * kPlane + strip]; }
};

// Sums the slopes of the thread's strip in classes first, first + 1, ...
template <class Logit>
__device__ void give(const CrossEntropyArgs& args, const Column<const Logit*>& column, const LossStrip& strip,
                     const Pixels& pixels, const Slopes& slopes, int first, Exchange& exchange) {
  if (!pixels.any) {
#pragma unroll
    for (int k = 0; k < kClasses; ++k) exchange.at(0, k, threadIdx.x) = exchange.at(1, k, threadIdx.x) = 0;
    return;
  }
  const auto resized = column.template read<kClasses>(first, args.classes, strip.low);
#pragma unroll
  for (int k = 0; k < kClasses; ++k) {
    float sum = 0, below = 0;
#pragma unroll
    for (int r = 0; r < kStripRows; ++r) {
      if (r < strip.rows) {
        float power = exp2f(resized.at(k, pixels.fraction[r]) - pixels.log_sum[r]);
        if (pixels.label[r] == first + k) power -= slopes.target[r];
        const float slope = power * slopes.scale[r];
        sum += slope;
        below += slope * pixels.fraction[r];
      }
    }
    float above = sum - below;
    if (args.label_smoothing != 0 && first + k < args.classes) {
      const float weight = class_weight_of(args, first + k);
      above -= weight * slopes.smooth_above;
      below -= weight * slopes.smooth_below;
    }
    exchange.at(0, k, threadIdx.x) = above;
    exchange.at(1, k, threadIdx.x) = below;
  }
}

// The strips, up to one a thread, that the block walks together.
struct Round {
  int64_t begin, end;
  int32_t down_begin, down_end;  // the strips' places down the tile

  __device__ Round(const Tile& tile, int64_t begin, int64_t strips)
      : begin(begin),
        end(begin + kThreads < strips ? begin + kThreads : strips),
        down_begin(static_cast<int32_t>(begin / tile.pixels_across)),
        down_end(static_cast<int32_t>((end - 1) / tile.pixels_across + 1)) {}
};

// Adds what the round gave to the tile's elements of classes first, first + 1, ...
__device__ void gather(const CrossEntropyArgs& args, const Tile& tile, const Round& round, int first,
                       Exchange& exchange) {
  const int64_t begin = round.begin, end = round.end;
  const int rows = static_cast<int>(tile.bottom - tile.top), columns = static_cast<int>(tile.right - tile.left);
  for (int element = threadIdx.x; element < kClasses * rows * columns; element += blockDim.x) {
    const int k = element % kClasses, x = element / kClasses % columns, y = element / kClasses / columns;
    if (first + k >= args.classes) continue;
    // Columns between the left neighbour and this element, then those between it and the right one.
    const int interval = static_cast<int>(tile.left - tile.first_column) + x;
    const int32_t start = tile.column_start[0];
    const int32_t from = tile.column_start[interval > 0 ? interval - 1 : 0] - start;
    const int32_t middle = tile.column_start[interval] - start, to = tile.column_start[interval + 1] - start;
    float sum = 0;
    const int below = static_cast<int>(tile.top - tile.first_row) + y;  // the interval below the element
    for (int32_t down = round.down_begin; down < round.down_end; ++down) {
      const int half = below - down / tile.strips_an_interval;
      if (half != 0 && half != 1) continue;
      const int64_t left = static_cast<int64_t>(down) * tile.pixels_across - begin;  // the strip of the first column
      const int64_t low = left + from > 0 ? left + from : 0, high = left + to < end - begin ? left + to : end - begin;
      for (int i = static_cast<int>(low); i < high; ++i) {
        const float fraction = exchange.fraction[i];
        sum += exchange.at(half, k, i) * (i < left + middle ? fraction : 1 - fraction);
      }
    }
    exchange.gradient[((first + k) * rows + y) * columns + x] += sum;
  }
}

template <class Gradient>
__device__ void store_gradient(const CrossEntropyArgs& args, const Tile& tile, const Exchange& exchange) {
  const int rows = static_cast<int>(tile.bottom - tile.top), columns = static_cast<int>(tile.right - tile.left);
  const int64_t height = args.rows.input_size, width = args.columns.input_size;
  Gradient* gradient = static_cast<Gradient*>(args.gradient) + tile.image * args.classes * height * width;
  for (int element = threadIdx.x; element < args.classes * rows * columns; element += blockDim.x) {
    const int x = element % columns, y = element / columns % rows;
    const int64_t c = element / columns / rows;
    gradient[(c * height + tile.top + y) * width + tile.left + x] = from_float<Gradient>(exchange.gradient[element]);
  }
}

}  // namespace
}  // namespace maskmatch::cuda
