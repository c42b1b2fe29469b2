// upsample_cross_entropy on CUDA. A thread block owns a tile of low-resolution elements and walks the pixels that read
// them: a thread takes a short column of pixels between two input rows, finds its log sum exp (or reads it), and then
// sums its slopes class by class for the upper and the lower row. The block's threads gather these sums along the
// columns, each for elements of its own, in an order that never changes: no atomics, and the same bits every time.
// Pixels between two tiles are walked by both; their loss counts in the one that owns their upper left neighbour.
#include "upsample_cross_entropy.cuh"

#undef NDEBUG  // a wrong label must not pass in silence, whatever the build
#include <cassert>
#include <type_traits>

#include "cross_entropy_sums.cuh"
#include "cross_entropy_tile.cuh"
#include "resized.cuh"

namespace maskmatch::cuda {
namespace {

constexpr int kClasses = 4;           // that a thread handles at a time
constexpr int kPlane = kThreads + 1;  // of the exchange; odd, so that its planes start in different banks
constexpr int64_t kExchangeFloats = 2 * kClasses * kPlane + kThreads;
constexpr int64_t kStaticFloats = 256;  // no fewer than the tile and the totals take

struct KernelArgs {
  CrossEntropyArgs loss;
  Tiling tiling;
};

// The pixels of a strip: what the loss needs of each.
struct Pixels {
  int label[kRows];       // -1 where ignored
  float weight[kRows];    // 0 where not confident
  float fraction[kRows];  // between the two input rows
  float log_sum[kRows];   // log2 of the sum of powers
  bool any;               // whether any weight is not 0
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
__device__ void read_pixels(const CrossEntropyArgs& args, const Strip& strip, int64_t image, bool own, Pixels& pixels,
                            LossTotals& totals) {
  // All rows have the same low one, so their fractions grow evenly from the first one's, which may be negative.
  const float divisor = static_cast<float>(args.rows.divisor), step = args.rows.scale / divisor;
  const float start = (args.rows.numerator(strip.row) - strip.low * args.rows.divisor) / divisor;
  const bool last = strip.low + 1 == args.rows.input_size;
  pixels.any = false;
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
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
          pixels.log_sum[r] = args.log_sum[i] * kLog2OfE;
        }
        pixels.weight[r] = weight;
        pixels.any |= weight != 0;
      }
    }
  }
}

__device__ float class_weight_of(const CrossEntropyArgs& args, int c) {
  return args.class_weight ? args.class_weight[c] : 1.0f;
}

// C without weights; used by label smoothing alone.
__device__ float class_weight_sum(const CrossEntropyArgs& args) {
  if (!args.class_weight || args.label_smoothing == 0) return static_cast<float>(args.classes);
  float sum = 0;
  for (int c = 0; c < args.classes; ++c) sum += args.class_weight[c];
  return sum;
}

// The sum over classes of weighted logits in units of log2, for label smoothing: top + fraction * step.
struct Smoothing {
  float top = 0, step = 0;
};

// Walks the classes once: every pixel's log sum exp, and what label smoothing needs.
template <class Logit>
__device__ Smoothing sum_powers(const CrossEntropyArgs& args, const Column<const Logit*>& column, const Strip& strip,
                                Pixels& pixels) {
  PowerSum sums[kRows];
  Smoothing smoothing;
  for (int first = 0; first < args.classes; first += kClasses) {
    const auto resized = column.template read<kClasses>(first, args.classes, strip.low);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
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
  for (int r = 0; r < kRows; ++r) pixels.log_sum[r] = sums[r].log2();
  return smoothing;
}

// The losses of the strip's pixels.
template <LossMode kMode, class Logit>
__device__ void add_losses(const CrossEntropyArgs& args, const Column<const Logit*>& column, const Strip& strip,
                           int64_t image, bool own, const Pixels& pixels, const Smoothing& smoothing, float weight_sum,
                           LossTotals& totals) {
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
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

// The slope of a pixel's loss in a class: scale * (power - [class is its label] * target) - class_weight * smooth.
struct Slopes {
  float scale[kRows], target[kRows];
  float smooth_above, smooth_below;  // summed over the rows, by what goes to the upper and to the lower input row
};

// Also makes the powers of pixels without a slope vanish: they could be infinite.
__device__ Slopes slopes_of(const CrossEntropyArgs& args, Pixels& pixels, float weight_sum) {
  Slopes slopes{};
  const float smoothing = args.label_smoothing;
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
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

  __device__ float& at(int half, int k, int item) { return given[(half * kClasses + k) * kPlane + item]; }
};

// Sums the slopes of the thread's strip in classes first, first + 1, ...
template <class Logit>
__device__ void give(const CrossEntropyArgs& args, const Column<const Logit*>& column, const Strip& strip,
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
    for (int r = 0; r < kRows; ++r) {
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

// The columns of strips, up to one a thread, that the block walks together.
struct Round {
  int64_t begin, end;
  int32_t strip_begin, strip_end;  // of which there is any column

  __device__ Round(const Tile& tile, int64_t begin, int64_t items)
      : begin(begin),
        end(begin + kThreads < items ? begin + kThreads : items),
        strip_begin(static_cast<int32_t>(begin / tile.pixels_across)),
        strip_end(static_cast<int32_t>((end - 1) / tile.pixels_across + 1)) {}
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
    for (int32_t strip = round.strip_begin; strip < round.strip_end; ++strip) {
      const int half = below - strip / tile.strips_an_interval;
      if (half != 0 && half != 1) continue;
      const int64_t item = static_cast<int64_t>(strip) * tile.pixels_across - begin;
      const int64_t low = item + from > 0 ? item + from : 0, high = item + to < end - begin ? item + to : end - begin;
      for (int i = static_cast<int>(low); i < high; ++i) {
        const float fraction = exchange.fraction[i];
        sum += exchange.at(half, k, i) * (i < item + middle ? fraction : 1 - fraction);
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

template <class Logit, LossMode kMode>
__global__ void __launch_bounds__(kThreads) cross_entropy(const __grid_constant__ KernelArgs kernel_args) {
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
  const int64_t items = static_cast<int64_t>(tile.strips) * tile.pixels_across;
  for (int64_t begin = 0; begin < items; begin += kThreads) {
    const Round round(tile, begin, items);
    const bool inside = begin + threadIdx.x < round.end;
    const Strip strip(tile, inside ? begin + threadIdx.x : begin);
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
    if (threadIdx.x == 0) args.block_totals[blockIdx.x] = totals;
  }
}

Tiling tiling_of(const CrossEntropyArgs& args) {
  return tiling_of(args, static_cast<int64_t>(current_device().shared_bytes_a_block / sizeof(float)) - kExchangeFloats -
                             kStaticFloats);
}

template <class Logit>
cudaError_t launch_of(const CrossEntropyArgs& args, cudaStream_t stream) {
  const KernelArgs kernel_args{args, tiling_of(args)};
  const int64_t blocks = args.count * kernel_args.tiling.tiles();
  const int64_t floats = kExchangeFloats + args.classes * kernel_args.tiling.rows * kernel_args.tiling.columns;
  const size_t bytes = floats * sizeof(float);
  switch (args.mode) {
    case LossMode::kLoss:
      return launch(cross_entropy<Logit, LossMode::kLoss>, blocks, kThreads, 0, stream, kernel_args);
    case LossMode::kLossAndGradient:
      return launch(cross_entropy<Logit, LossMode::kLossAndGradient>, blocks, kThreads, bytes, stream, kernel_args);
    default:
      return launch(cross_entropy<Logit, LossMode::kGradient>, blocks, kThreads, bytes, stream, kernel_args);
  }
}

}  // namespace

int64_t loss_blocks(const CrossEntropyArgs& args) { return args.count * tiling_of(args).tiles(); }

cudaError_t launch_upsample_cross_entropy(const CrossEntropyArgs& args, cudaStream_t stream) {
  const auto of_type = args.type == ElementType::kHalf       ? launch_of<__half>
                       : args.type == ElementType::kBFloat16 ? launch_of<__nv_bfloat16>
                                                             : launch_of<float>;
  const cudaError_t error = of_type(args, stream);
  if (error != cudaSuccess || args.mode == LossMode::kGradient) return error;
  return launch(sum_blocks, 1, kThreads, 0, stream,
                SumArgs{args.block_totals, loss_blocks(args), args.loss, args.counts});
}

}  // namespace maskmatch::cuda
