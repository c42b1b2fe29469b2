// The general form of upsample_cross_entropy, for what the fast one does not take. A thread block owns a tile of
// low-resolution elements and walks the pixels that read them: a thread takes a short column of pixels between two
// input rows, finds its log sum exp (or reads it), and then sums its slopes class by class for the upper and the lower
// row. The block's threads gather these sums along the columns, each for elements of its own, in an order that never
// changes: no atomics, and the same bits every time. Pixels between two tiles are walked by both; their loss counts in
// the one that owns their upper left neighbour.
#pragma once

#include <type_traits>

#include "cross_entropy_gradient.cuh"
#include "cross_entropy_strip.cuh"
#include "cross_entropy_sums.cuh"
#include "cross_entropy_tile.cuh"

namespace maskmatch::cuda {
namespace {  // each file that includes this has its own

// Floats that the tile and the totals take at the most.
constexpr int64_t kStaticFloats = 256;

struct KernelArgs {
  CrossEntropyArgs loss;
  Tiling tiling;
};

template <class Logit, LossMode kMode>
__global__ void __launch_bounds__(kThreads) cross_entropy_general(const __grid_constant__ KernelArgs kernel_args) {
  constexpr bool kWithGradient = kMode != LossMode::kLoss;
  const CrossEntropyArgs& args = kernel_args.loss;
  MASKMATCH_DYNAMIC_SHARED(shared);
  __shared__ Tile tile;
  tile.fill(kernel_args.tiling, args.rows, args.columns, kWithGradient);
  Exchange exchange(shared);
  if (kWithGradient) {
    const int64_t elements = args.classes * (tile.bottom - tile.top) * (tile.right - tile.left);
    for (int64_t i = threadIdx.x; i < elements; i += kThreads) exchange.gradient[i] = 0;
  }
  const Logit* logits = static_cast<const Logit*>(args.logits) +
                        tile.image * args.classes * args.rows.input_size * args.columns.input_size;
  const float weight_sum = class_weight_sum(args);
  LossTotals totals{};
  const int64_t strips = static_cast<int64_t>(tile.strips_down) * tile.pixels_across;
  for (int64_t begin = 0; begin < strips; begin += kThreads) {
    const Round round(tile, begin, strips);
    const bool inside = begin + threadIdx.x < round.end;
    const LossStrip strip(tile, inside ? begin + threadIdx.x : begin);
    const Sample sample = args.columns.sample(strip.column);
    const auto column = column_of(logits, args.rows, args.columns, sample);
    const bool own = strip.low >= tile.top && sample.low >= tile.left;
    Pixels pixels;
    pixels.any = false;
    if (inside) {
      read_pixels<kMode>(args, strip, tile.image, own, pixels, totals);
      if (kMode != LossMode::kGradient) {
        Smoothing smoothing;
        if (pixels.any) smoothing = sum_powers(args, column, strip, pixels);
        add_losses<kMode>(args, column, strip, tile.image, own, pixels, smoothing, weight_sum, totals);
      }
    }
    if (!kWithGradient) continue;
    exchange.fraction[threadIdx.x] = sample.fraction;
    if (!__syncthreads_or(pixels.any)) continue;
    Slopes slopes{};
    if (pixels.any) slopes = slopes_of(args, pixels, weight_sum);
    for (int first = 0; first < args.classes; first += kClasses) {
      give(args, column, strip, pixels, slopes, first, exchange);
      __syncthreads();
      gather(args, tile, round, first, exchange);
      __syncthreads();
    }
  }
  if (kWithGradient) {
    __syncthreads();  // there may have been no pixel
    store_gradient<std::conditional_t<kMode == LossMode::kGradient, Logit, float>>(args, tile, exchange);
  }
  if (kMode != LossMode::kGradient) {
    totals = block_sum(totals);
    if (threadIdx.x == 0) args.totals[blockIdx.x] = totals;
  }
}

Tiling tiling_of(const CrossEntropyArgs& args) {
  return tiling_of(args, static_cast<int64_t>(current_device().shared_bytes_a_block / sizeof(float)) - kExchangeFloats -
                             kStaticFloats);
}

template <class Logit>
cudaError_t launch_general_of(const CrossEntropyArgs& args, cudaStream_t stream) {
  const KernelArgs kernel_args{args, tiling_of(args)};
  const int64_t blocks = args.count * kernel_args.tiling.tiles();
  const int64_t floats = kExchangeFloats + args.classes * kernel_args.tiling.rows * kernel_args.tiling.columns;
  const size_t bytes = floats * sizeof(float);
  switch (args.mode) {
    case LossMode::kLoss:
      return launch(cross_entropy_general<Logit, LossMode::kLoss>, blocks, kThreads, 0, stream, kernel_args);
    case LossMode::kLossAndGradient:
      return launch(cross_entropy_general<Logit, LossMode::kLossAndGradient>, blocks, kThreads, bytes, stream,
                    kernel_args);
    default:
      return launch(cross_entropy_general<Logit, LossMode::kGradient>, blocks, kThreads, bytes, stream, kernel_args);
  }
}

int64_t general_blocks(const CrossEntropyArgs& args) { return args.count * tiling_of(args).tiles(); }

cudaError_t launch_general(const CrossEntropyArgs& args, cudaStream_t stream) {
  if (args.type == ElementType::kHalf) return launch_general_of<__half>(args, stream);
  if (args.type == ElementType::kBFloat16) return launch_general_of<__nv_bfloat16>(args, stream);
  return launch_general_of<float>(args, stream);
}

}  // namespace
}  // namespace maskmatch::cuda
