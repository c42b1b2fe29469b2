// upsample_cross_entropy on CUDA: which of its two forms runs, and how the fast one cuts images into tiles.
#include "upsample_cross_entropy.cuh"

#include <algorithm>
#include <limits>

#include "cross_entropy_general.cuh"
#include "cross_entropy_series.h"
#include "forms.h"

namespace maskmatch::cuda {
namespace {

// ---- the fast form ----

constexpr int64_t kMaxLanes = 32;  // a warp
constexpr int64_t kMaxCellsAcross = 32;

// Pixels between two neighbouring elements of an axis, at the most.
int64_t longest_interval(const Bilinear& axis) {
  return axis.scale > 0 ? ceil_div(axis.divisor, axis.scale) : axis.output_size;
}

int64_t power_of_two_from(int64_t value) {
  int64_t power = 1;
  while (power < value) power *= 2;
  return power;
}

struct Series {
  SeriesLossKernel kernel;
  SeriesLossArgs args;

  int64_t bytes() const { return SeriesLossMemory(args).end * static_cast<int64_t>(sizeof(float)); }
};

// Classes at a time, so that `blocks` thread blocks fit a multiprocessor; 0 where not even one class fits.
int64_t choose_chunk(Series& series, const Device& device, int blocks) {
  const int64_t most = std::min<int64_t>(device.shared_bytes_a_block, device.shared_bytes / blocks - 1024);
  const int64_t classes = series.args.loss.classes;
  series.args.chunk = 0;
  const int64_t fixed = series.bytes();
  series.args.chunk = 1;
  const int64_t fit = (most - fixed) / (series.bytes() - fixed);
  return fit < 1 ? 0 : ceil_div(classes, ceil_div(classes, fit));
}

// How long the tile's blocks keep the busiest multiprocessor, in warps.
double cost_of(const SeriesLossArgs& args, int resident, const Device& device) {
  const int64_t warps = args.threads() / 32, blocks = args.blocks();
  const int64_t together = std::min<int64_t>(ceil_div(blocks, device.multiprocessors), resident);
  const double few = 1 + 0.04 * std::max<int64_t>(0, 14 - together * warps);  // to hide what each waits for
  if (blocks <= resident * device.multiprocessors) return together * warps * few;
  return (static_cast<double>(blocks) / device.multiprocessors + 0.4) * warps * few;
}

// Chooses the tile of cells, as wide or high as a block's threads allow.
void choose_tile(Series& series, const Device& device) {
  SeriesLossArgs& args = series.args;
  const int64_t most = kSeriesThreads / args.lanes, overlap = args.overlap;
  const int64_t height = args.loss.rows.input_size + 1 - overlap, width = args.loss.columns.input_size + 1 - overlap;
  SeriesLossArgs best{};
  double lowest = std::numeric_limits<double>::infinity();
  for (int64_t widest = 1 + overlap; widest <= std::min(most / (1 + overlap), kMaxCellsAcross); ++widest) {
    args.tiles_across = static_cast<int32_t>(ceil_div(width, widest - overlap));
    args.cells_across = static_cast<int32_t>(ceil_div(width, args.tiles_across) + overlap);
    args.tiles_down = static_cast<int32_t>(ceil_div(height, most / args.cells_across - overlap));
    args.cells_down = static_cast<int32_t>(ceil_div(height, args.tiles_down) + overlap);
    const double cost = cost_of(args, series.kernel.blocks, device);
    if (cost < lowest) lowest = cost, best = args;
    if (args.tiles_across == 1) break;
  }
  args = best;
}

// Whether the fast form takes the arguments, and how.
bool choose_series(const CrossEntropyArgs& args, Series& series) {
  const int64_t height = longest_interval(args.rows), width = longest_interval(args.columns);
  const int64_t plane = args.rows.input_size * args.columns.input_size;
  // With fewer pixels the series are too short.
  if (plane > 1 << 30 || args.rows.output_size * args.columns.output_size < 2 * plane) return false;
  series.kernel = height <= 4 && width <= 4 ? series_loss_4x4 : series_loss_4x8;
  const int64_t lanes_across = power_of_two_from(ceil_div(width, series.kernel.across));
  const int64_t lanes = lanes_across * power_of_two_from(ceil_div(height, series.kernel.down));
  if (lanes > kMaxLanes) return false;
  series.args = {};
  series.args.loss = args;
  series.args.overlap = args.mode != LossMode::kLoss;
  series.args.lanes = static_cast<int32_t>(lanes);
  series.args.lanes_across = static_cast<int32_t>(lanes_across);
  const Device device = current_device();
  choose_tile(series, device);
  int64_t chunk = choose_chunk(series, device, series.kernel.blocks);
  if (!chunk) chunk = choose_chunk(series, device, 1);
  series.args.chunk = static_cast<int32_t>(chunk);
  return chunk > 0;
}

}  // namespace

int64_t loss_blocks(const CrossEntropyArgs& args) {
  Series series;
  return choose_series(args, series) ? series.args.blocks() : general_blocks(args);
}

cudaError_t launch_upsample_cross_entropy(const CrossEntropyArgs& args, cudaStream_t stream) {
  Series series;
  const bool fast = choose_series(args, series);
  cross_entropy_form = fast ? "series" : "general";
  const auto kernel = args.mode == LossMode::kLoss ? series.kernel.loss : series.kernel.gradient;
  const int64_t blocks = fast ? series.args.blocks() : general_blocks(args);
  const cudaError_t error = fast ? launch(kernel, blocks, series.args.threads(), series.bytes(), stream, series.args)
                                 : launch_general(args, stream);
  if (error != cudaSuccess || args.mode == LossMode::kGradient) return error;
  return launch(sum_blocks, 1, kThreads, 0, stream, SumArgs{args.totals, blocks, args.loss, args.counts});
}

}  // namespace maskmatch::cuda
