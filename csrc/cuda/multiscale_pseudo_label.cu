// multiscale_pseudo_label on CUDA: which of its two forms runs, and how the fast one cuts images into tiles.
#include "multiscale_pseudo_label.cuh"

#include <type_traits>

#include "forms.h"
#include "pseudo_label_general.cuh"
#include "pseudo_label_series.h"

namespace maskmatch::cuda {
namespace {

// ---- the general form ----

constexpr int kStripRows = 4, kClasses = 4;  // of a thread at a time
constexpr int kMaxThreads = 128;
constexpr size_t kMaxSlotBytes = 48 << 10;

template <class Logit, bool kOneSoftmax>
__global__ void __launch_bounds__(kMaxThreads, 4) pseudo_label_general(const __grid_constant__ PseudoLabelArgs args) {
  MASKMATCH_DYNAMIC_SHARED(shared);
  const int64_t strips_down = (args.height + kStripRows - 1) / kStripRows,
                thread = blockIdx.x * int64_t{blockDim.x} + threadIdx.x;
  const int64_t row = thread / args.width, image = row / strips_down;
  if (image >= args.count) return;
  const LabelStrip strip{
      {static_cast<int32_t>(row % strips_down) * kStripRows, static_cast<int32_t>(thread % args.width)}, image};
  const Slots<kStripRows> slots{shared};
  if constexpr (kOneSoftmax) {
    mean_logit<kStripRows, kClasses, const Logit*>(args, strip, slots);
  } else {
    mean_probability<kStripRows, kClasses, const Logit*>(args, strip, slots);
  }
}

template <class Logit>
cudaError_t launch_general(const PseudoLabelArgs& args, cudaStream_t stream) {
  const bool one_softmax = !args.average_probability || (args.scale_count == 1 && args.scales[0].weight == 1);
  const size_t bytes_a_thread = args.scale_count * Slots<kStripRows>::kCount * sizeof(float);
  int threads = kMaxThreads;
  while (threads > 32 && threads * bytes_a_thread > kMaxSlotBytes) threads /= 2;
  const int64_t blocks = ceil_div(args.count * ceil_div(args.height, kStripRows) * args.width, threads);
  const auto kernel = one_softmax ? pseudo_label_general<Logit, true> : pseudo_label_general<Logit, false>;
  return launch(kernel, blocks, threads, threads * bytes_a_thread, stream, args);
}

// ---- the fast form ----

constexpr int kSeriesStripRows[] = {20, 16, 12, 8, 4, 2};  // to choose from

bool make_axis(const Bilinear& from, SeriesAxis& axis) {
  const int64_t largest = from.output_size * from.scale + from.input_size + from.divisor;
  if (largest * 2 >= INT32_MAX || from.input_size * from.divisor >= INT32_MAX) return false;
  const auto scale = static_cast<int32_t>(from.scale), divisor = static_cast<int32_t>(from.divisor);
  axis = {static_cast<int32_t>(from.input_size),
          static_cast<int32_t>(from.output_size),
          scale,
          static_cast<int32_t>(from.offset),
          Divider(divisor),
          Divider(std::max(scale, 1)),
          1 / static_cast<float>(from.divisor)};
  return true;
}

// Input elements that `outputs` neighbouring pixels of an axis read at the most, with the one that repeats the last.
int64_t window_of(const Bilinear& axis, int64_t outputs) {
  return std::min<int64_t>((std::min<int64_t>(outputs, axis.output_size) - 1) * axis.scale / axis.divisor + 3,
                           axis.input_size + 1);
}

// Bytes of shared memory of a block whose threads' strips have so many rows.
int64_t series_bytes(const PseudoLabelArgs& args, const SeriesKernel& kernel, int64_t strip_rows) {
  const int64_t rows = strip_rows * kernel.strips_down;
  int64_t elements = 0;
  for (int s = 0; s < args.scale_count; ++s) {
    elements += window_of(args.scales[s].rows, rows) * window_of(args.scales[s].columns, kernel.columns);
  }
  const int64_t front = series_floats(kernel.scales, kernel.threads, static_cast<int32_t>(rows));
  const int64_t slots = args.scale_count * Slots<1>::kCount * kernel.threads;
  return std::max(front + elements * kernel.pitch, slots) * static_cast<int64_t>(sizeof(float));
}

// The tallest strips of which three blocks fit a multiprocessor and that make enough blocks; 0 where none fits.
int choose_strip_rows(const PseudoLabelArgs& args, const SeriesKernel& kernel, const Device& device) {
  int chosen = 0;
  for (const int rows : kSeriesStripRows) {
    const int64_t bytes = series_bytes(args, kernel, rows);
    if (bytes > device.shared_bytes_a_block) continue;
    const int64_t blocks =
        args.count * ceil_div(args.height, rows * kernel.strips_down) * ceil_div(args.width, kernel.columns);
    if (!chosen) chosen = rows;
    if (3 * (bytes + 1024) > device.shared_bytes) continue;
    chosen = rows;
    if (blocks >= 2 * device.multiprocessors) break;
  }
  return chosen;
}

}  // namespace

cudaError_t launch_multiscale_pseudo_label(const PseudoLabelArgs& args, cudaStream_t stream) {
  SeriesArgs series{};
  series.labels = args;
  bool fits = (args.average_probability || args.scale_count == 1) && args.scale_count <= kMaxSeriesScales;
  for (int s = 0; fits && s < args.scale_count; ++s) {
    fits = make_axis(args.scales[s].rows, series.rows[s]) && make_axis(args.scales[s].columns, series.columns[s]) &&
           args.scales[s].rows.input_size * args.scales[s].columns.input_size < INT32_MAX / 4;  // in bytes too
  }
  if (fits) {
    const SeriesKernel& kernel =
        args.scale_count == 1 ? find_series_of_one(args.classes) : find_series_of_three(args.classes);
    series.strip_rows = choose_strip_rows(args, kernel, current_device());
    if (series.strip_rows) {
      pseudo_label_form = "series";
      series.down = static_cast<int32_t>(ceil_div(args.height, series.strip_rows * kernel.strips_down));
      series.across = static_cast<int32_t>(ceil_div(args.width, kernel.columns));
      return launch(kernel.kernel, args.count * series.down * series.across, kernel.threads,
                    series_bytes(args, kernel, series.strip_rows), stream, series);
    }
  }
  pseudo_label_form = "general";
  if (args.type == ElementType::kHalf) return launch_general<__half>(args, stream);
  if (args.type == ElementType::kBFloat16) return launch_general<__nv_bfloat16>(args, stream);
  return launch_general<float>(args, stream);
}

}  // namespace maskmatch::cuda
