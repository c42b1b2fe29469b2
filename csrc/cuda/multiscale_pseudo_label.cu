// multiscale_pseudo_label on CUDA. A thread block owns a band of full rows, so that what it writes is one stretch of
// memory; a thread owns short columns of pixels in it and walks their classes twice, for the sums of powers and then
// for the mean probabilities, or once where one softmax is enough.
#include "multiscale_pseudo_label.cuh"

#include "resized.cuh"

namespace maskmatch::cuda {
namespace {

constexpr int kBand = 32;  // rows of a thread block
constexpr int kRows = 4;   // of a thread at a time
constexpr int kMaxThreads = 512;
constexpr size_t kMaxSharedBytes = 36 << 10;

// Where the band's rows read at every scale.
struct BandRows {
  int32_t low[kMaxScales][kBand];
  float fraction[kMaxScales][kBand];
};

// Rows after the last one repeat it.
__device__ void fill_rows(const PseudoLabelArgs& args, int64_t first_row, BandRows& rows) {
  for (int i = threadIdx.x; i < args.scale_count * kBand; i += blockDim.x) {
    const int scale = i / kBand, row = i % kBand;
    const int64_t inside = first_row + row < args.height ? first_row + row : args.height - 1;
    const Sample sample = args.scales[scale].rows.sample(inside);
    rows.low[scale][row] = sample.low;
    rows.fraction[scale][row] = sample.fraction;
  }
  __syncthreads();
}

// kRows pixels of one column.
struct Strip {
  int64_t image;
  int row, column;  // the row in the band
};

template <class Logit>
__device__ const Logit* logits_of(const PseudoLabelArgs& args, int scale, int64_t image) {
  const PseudoLabelScale& s = args.scales[scale];
  return static_cast<const Logit*>(s.logits) + image * args.classes * s.rows.input_size * s.columns.input_size;
}

__device__ Sample column_sample(const PseudoLabelArgs& args, int scale, int column) {
  const PseudoLabelScale& s = args.scales[scale];
  return s.columns.sample(s.flipped ? args.width - 1 - column : column);
}

// Calls use(r, resized, fraction) for the strip's rows; rows between the same input rows share the reads.
template <class Logit, class Use>
__device__ void walk_rows(const BandRows& rows, const Strip& strip, int scale, const Column<Logit>& column, int first,
                          int classes, const Use& use) {
  Resized resized;
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const int32_t low = rows.low[scale][strip.row + r];
    if (r == 0 || low != rows.low[scale][strip.row + r - 1]) resized = column.read(first, classes, low);
    use(r, resized, rows.fraction[scale][strip.row + r]);
  }
}

struct Best {
  float value[kRows];
  int label[kRows];
};

__device__ void store(const PseudoLabelArgs& args, const Strip& strip, int64_t first_row, const Best& best) {
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const int64_t row = first_row + strip.row + r;
    if (row < args.height) {
      const int64_t pixel = (strip.image * args.height + row) * args.width + strip.column;
      args.label[pixel] = static_cast<uint8_t>(best.label[r]);
      args.confidence[pixel] = best.value[r];
    }
  }
}

// Calls work(strip, first_row) for every strip of the thread block's band.
template <class Work>
__device__ void for_each_strip(const PseudoLabelArgs& args, BandRows& rows, const Work& work) {
  const int64_t bands = (args.height + kBand - 1) / kBand;
  const int64_t first_row = blockIdx.x % bands * kBand;
  fill_rows(args, first_row, rows);
  const int64_t strips = static_cast<int64_t>(kBand / kRows) * args.width;
  for (int64_t i = threadIdx.x; i < strips; i += blockDim.x) {
    const Strip strip{blockIdx.x / bands, static_cast<int>(i / args.width) * kRows, static_cast<int>(i % args.width)};
    if (first_row + strip.row < args.height) work(strip, first_row);
  }
}

// What a thread keeps of each scale between its two walks, in its own slots of shared memory.
struct ScaleSlots {
  float* slots;  // [scales, kRows + 2, threads]

  __device__ float& at(int scale, int i) { return slots[(scale * (kRows + 2) + i) * blockDim.x + threadIdx.x]; }
};

template <class Logit>
__global__ void __launch_bounds__(kMaxThreads) mean_probability(const __grid_constant__ PseudoLabelArgs args) {
  MASKMATCH_DYNAMIC_SHARED(shared);
  __shared__ BandRows rows;
  ScaleSlots slots{shared};
  for_each_strip(args, rows, [&](const Strip& strip, int64_t first_row) {
    for (int s = 0; s < args.scale_count; ++s) {
      const Sample sample = column_sample(args, s, strip.column);
      const PseudoLabelScale& scale = args.scales[s];
      const auto column = column_of(logits_of<Logit>(args, s, strip.image), scale.rows, scale.columns, sample);
      PowerSum sums[kRows];
      for (int first = 0; first < args.classes; first += kClasses) {
        walk_rows(rows, strip, s, column, first, args.classes,
                  [&](int r, const Resized& resized, float fraction) { sums[r].add(resized, fraction); });
      }
      // Probability times weight is 2 ** (logit - slot).
#pragma unroll
      for (int r = 0; r < kRows; ++r) slots.at(s, r) = sums[r].log2() - log2f(scale.weight);
      slots.at(s, kRows) = sample.fraction;
      slots.at(s, kRows + 1) = __int_as_float(sample.low);
    }
    Best best;
    for (int first = 0; first < args.classes; first += kClasses) {
      float mean[kRows][kClasses] = {};
      for (int s = 0; s < args.scale_count; ++s) {
        const PseudoLabelScale& scale = args.scales[s];
        const int32_t low = __float_as_int(slots.at(s, kRows + 1));
        const int32_t high = low + 1 < scale.columns.input_size ? low + 1 : low;
        const auto column = column_of(logits_of<Logit>(args, s, strip.image), scale.rows, scale.columns,
                                      {low, high, slots.at(s, kRows)});
        walk_rows(rows, strip, s, column, first, args.classes, [&](int r, const Resized& resized, float fraction) {
          const float slot = slots.at(s, r);
#pragma unroll
          for (int k = 0; k < kClasses; ++k) mean[r][k] += exp2f(resized.at(k, fraction) - slot);
        });
      }
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
#pragma unroll
        for (int k = 0; k < kClasses; ++k) {
          // The first class is taken as it is: where it is NaN, so is every other.
          if (first + k == 0 || mean[r][k] > best.value[r]) {
            best.value[r] = mean[r][k];
            best.label[r] = first + k;
          }
        }
      }
    }
    store(args, strip, first_row, best);
  });
}

template <class Logit>
__global__ void __launch_bounds__(kMaxThreads) mean_logit(const __grid_constant__ PseudoLabelArgs args) {
  __shared__ BandRows rows;
  for_each_strip(args, rows, [&](const Strip& strip, int64_t first_row) {
    PowerSum sums[kRows];
    Best best;
#pragma unroll
    for (int r = 0; r < kRows; ++r) best.label[r] = 0;
    for (int first = 0; first < args.classes; first += kClasses) {
      Resized means[kRows] = {};
      for (int s = 0; s < args.scale_count; ++s) {
        const PseudoLabelScale& scale = args.scales[s];
        const auto column = column_of(logits_of<Logit>(args, s, strip.image), scale.rows, scale.columns,
                                      column_sample(args, s, strip.column));
        walk_rows(rows, strip, s, column, first, args.classes, [&](int r, const Resized& resized, float fraction) {
#pragma unroll
          for (int k = 0; k < kClasses; ++k) means[r].top[k] += scale.weight * resized.at(k, fraction);
        });
      }
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        float highest = sums[r].highest;
#pragma unroll
        for (int k = 0; k < kClasses; ++k) {
          if (first + k < args.classes && means[r].top[k] > highest) {
            highest = means[r].top[k];
            best.label[r] = first + k;
          }
        }
        sums[r].add(means[r], 0);
      }
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r) best.value[r] = 1 / sums[r].sum;
    store(args, strip, first_row, best);
  });
}

template <class Logit>
cudaError_t launch_of(const PseudoLabelArgs& args, cudaStream_t stream) {
  const int64_t blocks = args.count * ceil_div(args.height, kBand);
  const bool one_softmax = !args.average_probability || (args.scale_count == 1 && args.scales[0].weight == 1);
  const size_t bytes_a_thread = one_softmax ? 0 : args.scale_count * (kRows + 2) * sizeof(float);
  int64_t most = kMaxThreads;
  while (most * bytes_a_thread > kMaxSharedBytes) most /= 2;
  // As many rounds as needed, of equal size.
  const int64_t strips = static_cast<int64_t>(kBand / kRows) * args.width;
  const int threads = static_cast<int>(ceil_div(ceil_div(strips, ceil_div(strips, most)), 32) * 32);
  return launch(one_softmax ? mean_logit<Logit> : mean_probability<Logit>, blocks, threads, threads * bytes_a_thread,
                stream, args);
}

}  // namespace

cudaError_t launch_multiscale_pseudo_label(const PseudoLabelArgs& args, cudaStream_t stream) {
  if (args.type == ElementType::kHalf) return launch_of<__half>(args, stream);
  if (args.type == ElementType::kBFloat16) return launch_of<__nv_bfloat16>(args, stream);
  return launch_of<float>(args, stream);
}

}  // namespace maskmatch::cuda
