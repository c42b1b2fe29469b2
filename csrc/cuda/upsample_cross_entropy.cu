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
constexpr int64_t kReserved = 2048;  // bytes of a block's shared memory for the system and what is static
constexpr int kFewClasses = 8;  // whose gradients are exchanged at a time; rather than fewer, logits are read again

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

  int64_t bytes() const { return args.memory.end * static_cast<int64_t>(sizeof(float)); }
};

// Chooses how many classes are in shared memory at a time, so that `blocks` thread blocks fit a multiprocessor. False
// where not even one class fits.
bool choose_chunks(Series& series, const Device& device, int blocks) {
  SeriesLossArgs& args = series.args;
  const int64_t most = std::min<int64_t>(device.shared_bytes_a_block, device.shared_bytes / blocks) - kReserved;
  const int32_t classes = args.loss.classes;
  for (const bool all_staged : {true, false}) {
    for (int32_t chunks = 1; chunks <= classes; ++chunks) {
      args.chunk = static_cast<int32_t>(ceil_div(classes, chunks));
      args.staged = all_staged ? classes : args.chunk;
      if (all_staged && args.chunk < std::min(kFewClasses, classes)) break;
      args.lay_out();
      if (series.bytes() <= most) return true;
    }
  }
  return false;
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
  // With fewer pixels, or where it shrinks, the series are too short.
  if (args.rows.scale > args.rows.divisor || args.columns.scale > args.columns.divisor) return false;
  if (plane > 1 << 30 || args.rows.output_size * args.columns.output_size < 2 * plane) return false;
  series.kernel = height <= 4 && width <= 4 ? series_loss_4x4 : series_loss_4x8;
  const int64_t lanes_across = power_of_two_from(ceil_div(width, series.kernel.across));
  const int64_t lanes = lanes_across * power_of_two_from(ceil_div(height, series.kernel.down));
  if (lanes > kMaxLanes) return false;
  series.args = {};
  series.args.loss = args;
  series.args.pixels = series.kernel.across * series.kernel.down;
  series.args.overlap = args.mode != LossMode::kLoss;
  series.args.lanes = static_cast<int32_t>(lanes);
  series.args.lanes_across = static_cast<int32_t>(lanes_across);
  const Device device = current_device();
  choose_tile(series, device);
  const double rows = static_cast<double>(args.rows.scale) / args.rows.divisor,
               columns = static_cast<double>(args.columns.scale) / args.columns.divisor;
  // The ratio of powers from row to row of a patch must be finite in all of its columns.
  series.args.deep = static_cast<float>(-std::min(100.0, 125 / std::max(rows * (1 + 6 * columns), 1e-3)));
  return choose_chunks(series, device, series.kernel.blocks) || choose_chunks(series, device, 1);
}

}  // namespace

int64_t loss_blocks(const CrossEntropyArgs& args) {
  Series series{};
  return choose_series(args, series) ? series.args.blocks() : general_blocks(args);
}

cudaError_t launch_upsample_cross_entropy(const CrossEntropyArgs& args, cudaStream_t stream) {
  Series series{};
  const bool fast = choose_series(args, series);
  cross_entropy_form = fast ? "series" : "general";
  const auto kernel = args.mode == LossMode::kLoss ? series.kernel.loss : series.kernel.gradient;
  const int64_t blocks = fast ? series.args.blocks() : general_blocks(args);
  const cudaError_t error = fast ? launch(kernel, blocks, series.args.threads(), series.bytes(), stream, series.args)
                                 : launch_general(args, stream);
  if (error != cudaSuccess || !args.loss) return error;
  return launch(sum_blocks, 1, kThreads, 0, stream,
                SumArgs{args.totals, blocks, args.normalize, args.given_divisor, args.loss, args.divisor});
}

}  // namespace maskmatch::cuda
