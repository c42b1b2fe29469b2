// The fast form of multiscale_pseudo_label. A thread block owns a tile of pixels and stages the logits that it reads,
// less the highest class of their element: that is the same for all classes, so the softmax does not change, and no
// pixel needs a maximum of its own. A thread owns kOwn classes of a strip, kLanes threads a strip,
// and walks down: between the same two input rows the logit of a class is linear, so that its power is a geometric
// series, one multiplication a pixel.
#pragma once

#include "pseudo_label_general.cuh"
#include "pseudo_label_staging.cuh"

namespace maskmatch::cuda {
namespace {  // each file that includes this has its own

// The powers of a thread's classes at one scale, walking down a column; none at first.
template <int kOwn, int kPitch>
struct Series {
  static constexpr int kTogether = kOwn < 21 ? 8 : kOwn;  // classes that are loaded at a time; others would spill
  float power[kOwn] = {}, ratio[kOwn];

  __device__ void go_on() {
#pragma unroll
    for (int i = 0; i < kOwn; ++i) power[i] *= ratio[i];
  }

  // `cell` is the upper left of the four elements, `down` the distance of the lower ones.
  __device__ void begin(const float* cell, int32_t down, float across, float fraction, float step) {
#pragma unroll
    for (int first = 0; first < kOwn; first += 4) {
      if (first % kTogether == 0 && first > 0) MASKMATCH_KEEP_ORDER();  // bounds the registers that loads wait in
      float corners[4][4];
      load4(cell + first, corners[0]);
      load4(cell + kPitch + first, corners[1]);
      load4(cell + down + first, corners[2]);
      load4(cell + down + kPitch + first, corners[3]);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (first + i >= kOwn) continue;
        const float top = fmaf(across, corners[1][i] - corners[0][i], corners[0][i]);
        const float slope = fmaf(across, corners[3][i] - corners[2][i], corners[2][i]) - top;
        power[first + i] = exp2f(fmaf(fraction, slope, top));
        ratio[first + i] = exp2f(step * slope);
      }
    }
  }

  __device__ float sum() const {  // in two chains
    float even = power[0], odd = kOwn > 1 ? power[1] : 0;
#pragma unroll
    for (int i = 2; i < kOwn; ++i) (i % 2 ? odd : even) += power[i];
    return even + odd;
  }
};

template <int kLanes>
__device__ float sum_over_lanes(float value) {
#pragma unroll
  for (int lanes = 1; lanes < kLanes; lanes *= 2) value += __shfl_xor_sync(~0u, value, lanes);
  return value;
}

// Whether the thread's lane is the lowest of those of its pixel that have the highest value. NaN is as high as any.
template <int kLanes>
__device__ bool is_first_best(float value) {
  if (kLanes == 1) return true;
  float highest = value;
#pragma unroll
  for (int lanes = 1; lanes < kLanes; lanes *= 2) {
    highest = fmaxf(highest, __shfl_xor_sync(~0u, highest, lanes));
  }
  const uint32_t votes = __ballot_sync(~0u, !(value < highest));
  const int lane = threadIdx.x % kLanes, first = threadIdx.x % 32 - lane;
  return (votes >> first & ((2u << lane) - 1)) == 1u << lane;
}

// The thread's class of the highest mean probability; two chains of comparisons, of which the second has the higher
// classes. The first class is taken as it is: where it is NaN, so is every other.
template <int kScales, int kOwn, int kPitch>
__device__ int best_class(const Series<kOwn, kPitch> (&series)[kScales], const float (&shares)[kScales], float& value) {
  constexpr int kHalf = (kOwn + 1) / 2;
  float best = 0, other_best = -1;
  int label = 0, other_label = 0;
  const auto mean = [&](int i) {
    float sum = series[0].power[i] * shares[0];
#pragma unroll
    for (int s = 1; s < kScales; ++s) sum = fmaf(series[s].power[i], shares[s], sum);
    return sum;
  };
#pragma unroll
  for (int i = 0; i < kHalf; ++i) {
    const float low = mean(i);
    if (i == 0 || low > best) best = low, label = i;
    if (kHalf + i < kOwn) {
      const float high = mean(kHalf + i);
      if (high > other_best) other_best = high, other_label = kHalf + i;
    }
  }
  value = other_best > best ? other_best : best;
  return other_best > best ? other_label : label;
}

// The pixels of a tile where classes are hidden in some elements and not in others: powers could not follow.
template <int kScales, int kThreads>
__device__ void label_one_by_one(const PseudoLabelArgs& args, const SeriesTile& tile, float* shared) {
  const Slots<1> slots{shared};
  const int32_t columns = tile.right - tile.left, pixels = columns * (tile.bottom - tile.top);
  for (int32_t i = threadIdx.x; i < pixels; i += kThreads) {
    const LabelStrip strip{{tile.top + i / columns, tile.left + i % columns}, tile.image};
    mean_probability<1, 1, AnyLogits>(args, strip, slots);
  }
}

// Where each thread's column lies, where its rows end, and where it reads at each scale: in shared memory, as registers
// are scarce.
template <int kScales>
struct SeriesColumns {
  static constexpr int kCount = 3 * kScales + 2;  // numbers of a thread
  float* numbers;

  __device__ float& number(int i) const { return numbers[i * blockDim.x + threadIdx.x]; }
  __device__ float& at(int scale, int i) const { return number(scale * 3 + i); }
  __device__ void set(int32_t column, int32_t end) const {
    number(3 * kScales) = __int_as_float(column), number(3 * kScales + 1) = __int_as_float(end);
  }
  __device__ int32_t column() const { return __float_as_int(number(3 * kScales)); }  // in the tile; -1 where outside
  __device__ int32_t end() const { return __float_as_int(number(3 * kScales + 1)); }
  __device__ void set(int scale, int32_t cell, int32_t down, float across) const {
    at(scale, 0) = __int_as_float(cell), at(scale, 1) = __int_as_float(down), at(scale, 2) = across;
  }
  __device__ int32_t cell(int scale) const { return __float_as_int(at(scale, 0)); }  // floats from the first element
  __device__ int32_t down(int scale) const { return __float_as_int(at(scale, 1)); }
  __device__ float across(int scale) const { return at(scale, 2); }
};

template <int kScales, int kOwn, int kLanes>
__global__ void __launch_bounds__(SeriesShape<kOwn, kLanes>::kThreads, blocks_of(kScales* kOwn, kLanes))
    pseudo_label_series(const __grid_constant__ SeriesArgs args) {
  using Shape = SeriesShape<kOwn, kLanes>;
  MASKMATCH_DYNAMIC_SHARED(shared);
  __shared__ int64_t first_pixel;  // of the tile
  const PseudoLabelArgs& labels = args.labels;
  const int lane = threadIdx.x % kLanes, warp = threadIdx.x / 32;
  const int32_t tile_rows = args.strip_rows * Shape::kWarpsDown;
  const SeriesTile tile(args, tile_rows, Shape::kColumns);
  const int32_t across = warp % Shape::kWarpsAcross * (32 / kLanes) + threadIdx.x % 32 / kLanes;
  const bool inside = tile.left + across < labels.width;
  const SeriesColumns<kScales> columns{shared};
  SeriesRows<kScales> rows(shared + SeriesColumns<kScales>::kCount * Shape::kThreads, tile_rows);
  float* const elements = shared + series_floats(kScales, Shape::kThreads, tile_rows);
  {
    if (threadIdx.x == 0) first_pixel = (tile.image * labels.height + tile.top) * labels.width + tile.left;
    const Windows<kScales> windows(args, tile);
    rows.fill(args, tile, windows);
    const int32_t column = inside ? tile.left + across : labels.width - 1;
    const int32_t strip_end = (warp / Shape::kWarpsAcross + 1) * args.strip_rows;
    columns.set(inside ? across : -1, min(strip_end, tile.bottom - tile.top));
#pragma unroll
    for (int s = 0; s < kScales; ++s) {
      if (s >= labels.scale_count) break;
      const Sample sample = args.columns[s].sample(labels.scales[s].flipped ? labels.width - 1 - column : column);
      const int32_t element = windows.first[s] + sample.low - windows.column[s];
      columns.set(s, element * Shape::kPitch + lane * Shape::kChunk, windows.width[s] * Shape::kPitch, sample.fraction);
    }
    if (Elements<kScales, kOwn, kLanes>(elements, windows).fill(args, tile)) {
      return label_one_by_one<kScales, Shape::kThreads>(labels, tile, shared);
    }
  }
  Series<kOwn, Shape::kPitch> series[kScales];
#pragma unroll 1
  for (int32_t row = warp / Shape::kWarpsAcross * args.strip_rows; row < columns.end(); ++row) {
    MASKMATCH_KEEP_ORDER();
    float shares[kScales] = {};
#pragma unroll
    for (int s = 0; s < kScales; ++s) {
      if (s >= labels.scale_count) break;
      const int32_t at = s * tile_rows + row, code = rows.code[at];
      if (code < 0) {
        series[s].go_on();
      } else {
        const int32_t down = columns.down(s);
        series[s].begin(elements + columns.cell(s) + code * down, down, columns.across(s), rows.fraction[at],
                        rows.step[at]);
      }
    }
#pragma unroll
    for (int s = 0; s < kScales; ++s) {
      if (s >= labels.scale_count) break;
      shares[s] = __fdividef(labels.scales[s].weight, sum_over_lanes<kLanes>(series[s].sum()));
    }
    float best;
    const int own = best_class(series, shares, best);
    const int32_t column = columns.column();
    if (is_first_best<kLanes>(best) && column >= 0) {
      const int64_t pixel = first_pixel + row * labels.width + column;
      labels.label[pixel] = static_cast<uint8_t>(lane * kOwn + own);
      labels.confidence[pixel] = best;
    }
  }
}

template <int kScales, int kOwn, int kLanes>
constexpr SeriesKernel series_kernel() {
  using Shape = SeriesShape<kOwn, kLanes>;
  return {pseudo_label_series<kScales, kOwn, kLanes>,
          kScales,
          kOwn * kLanes,
          Shape::kThreads,
          Shape::kColumns,
          Shape::kWarpsDown,
          Shape::kPitch};
}

// The kernel that computes the least beyond so many classes; there is one for any number.
template <int kScales>
const SeriesKernel& find_series(int classes) {
  static constexpr SeriesKernel kernels[] = {series_kernel<kScales, 8, 1>(),  series_kernel<kScales, 16, 1>(),
                                             series_kernel<kScales, 19, 1>(), series_kernel<kScales, 21, 1>(),
                                             series_kernel<kScales, 19, 2>(), series_kernel<kScales, 21, 4>(),
                                             series_kernel<kScales, 19, 8>(), series_kernel<kScales, 16, 16>()};
  const SeriesKernel* found = kernels;
  while (found->classes < classes) ++found;
  return *found;
}

}  // namespace
}  // namespace maskmatch::cuda
