// The fast form of upsample_cross_entropy. A thread block owns elements and walks the cells around them; a thread owns
// a patch of a cell with all classes. Over a patch the logit of a class is bilinear, so that its powers are a geometric
// series, four exponentials and one multiplication a pixel:
//   1. every pixel's sum of powers, relative to the elements' highest classes: no pixel needs a maximum of its own;
//   2. its loss, and the factor that makes probabilities of powers;
//   3. class by class the moments of probabilities over the patch, which say what the cell's corners receive. A block
//      recomputes the cells that it shares with others, so that each element's gradient is written once, as the sum of
//      its four cells in an order that never changes.
// The class that is highest at a cell's first element is left out of the sums: its probability less one is minus the
// others' sum, which keeps the digits of pixels that are nearly certain.
#pragma once

#include "cross_entropy_corners.cuh"
#include "cross_entropy_sums.cuh"
#include "cross_entropy_worker.cuh"

namespace maskmatch::cuda {
namespace {  // each file that includes this has its own

// The first walk over the classes. For the whole block.
template <class Worker>
__device__ void walk_sums(const SeriesLossArgs& args, const Elements& elements, Worker& worker) {
  const int classes = args.loss.classes;
  for (int first = 0; first < classes; first += args.staged) {
    const int chunk = min(args.staged, classes - first);
    elements.stage(first, chunk);
    __syncthreads();
    if (worker.patch.active) {
      if (first == 0) worker.begin();
      worker.sum_powers(first, chunk);
    }
    if (args.staged < classes) __syncthreads();
  }
}

// The second walk. For the whole block.
template <class Worker>
__device__ void walk_gradients(const SeriesLossArgs& args, const CellTile& tile, const Elements& elements,
                               const Cell& cell, Worker& worker, float* shared) {
  float* const planes = shared + args.memory.corners;
  const Gatherer gatherer(args, tile);
  const int classes = args.loss.classes;
  const bool all_staged = args.staged == classes;
  for (int first = 0; first < classes; first += args.chunk) {
    const int chunk = min(args.chunk, classes - first);
    if (!all_staged) elements.stage(first, chunk);
    if (worker.patch.active) worker.patch.set_marks(first, chunk);
    if (first > 0 || !all_staged) __syncthreads();
#pragma unroll 1
    for (int c = 0; c < chunk; ++c) {
      Corners corners{};
      if (worker.patch.active) corners = worker.take_gradient(first + c, all_staged ? first + c : c, c);
      give(corners, args, cell, planes + 4 * c * args.memory.plane);
    }
    __syncthreads();
    gatherer.write(first, chunk, planes);
  }
}

template <int kAcross, int kDown, int kBlocks, bool kWithGradient>
__global__ void __launch_bounds__(kSeriesThreads, kBlocks)
    cross_entropy_series(const __grid_constant__ SeriesLossArgs args) {
  MASKMATCH_DYNAMIC_SHARED(shared);
  const CellTile tile(args);
  const Cell cell(args, tile);
  const Elements elements(args, tile, shared);
  tile.fill(args, reinterpret_cast<int32_t*>(shared + args.memory.rows),
            reinterpret_cast<int32_t*>(shared + args.memory.columns));
  __syncthreads();
  Worker<kAcross, kDown> worker(args, tile, elements, cell, shared);
  const bool any = __syncthreads_or(worker.patch.active != 0);
  if (any) {
    elements.find_tops();
    walk_sums(args, elements, worker);
  }
  if constexpr (!kWithGradient) {
    worker.write_losses();
  } else if (any) {
    if (worker.patch.active) worker.take_losses();
    walk_gradients(args, tile, elements, cell, worker, shared);
  } else {
    Gatherer(args, tile).write_zeros();
  }
  if (args.loss.mode == LossMode::kGradient) return;
  LossTotals totals{};
  if (cell.own) totals = {worker.total * kLn2, __popc(worker.patch.valid), __popc(worker.patch.active)};
  totals = block_sum(totals);
  if (threadIdx.x == 0) args.loss.totals[blockIdx.x] = totals;
}

template <int kAcross, int kDown, int kBlocks>
constexpr SeriesLossKernel series_loss_kernel() {
  return {cross_entropy_series<kAcross, kDown, kBlocks, false>, cross_entropy_series<kAcross, kDown, kBlocks, true>,
          kAcross, kDown, kBlocks};
}

}  // namespace
}  // namespace maskmatch::cuda
