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

#include <type_traits>

#include "cross_entropy_cells.cuh"
#include "cross_entropy_patch.cuh"
#include "cross_entropy_sums.cuh"
#include "cross_entropy_weights.cuh"

namespace maskmatch::cuda {
namespace {  // each file that includes this has its own

// What a thread knows of its cell.
struct Cell {
  int32_t lane, index, down, across;  // in the tile
  bool inside, own;                   // whether there is such a cell, and its loss counts here
  int32_t element;                    // the upper left one's place in the tile

  __device__ Cell(const SeriesLossArgs& args, const CellTile& tile) {
    const int32_t thread = threadIdx.x;
    lane = thread % args.lanes;
    inside = thread / args.lanes < args.cells();
    index = inside ? thread / args.lanes : 0;
    down = index / args.cells_across;
    across = index % args.cells_across;
    element = down * (args.cells_across + 1) + across;
    own = inside && (down > 0 || tile.first_down) && (across > 0 || tile.first_across);
  }
};

// Sets the patch's pixels and gives its place, both from where the intervals start.
template <class Patch>
__device__ Place place_of(const SeriesLossArgs& args, const CellTile& tile, const Cell& cell, const int32_t* rows,
                          const int32_t* columns, int kAcross, int kDown, Patch& patch) {
  const Bilinear &y = args.loss.rows, &x = args.loss.columns;
  const int32_t i = tile.row + cell.down, j = tile.column + cell.across;
  const int32_t row = rows[cell.down] + cell.lane / args.lanes_across * kDown;
  const int32_t column = columns[cell.across] + cell.lane % args.lanes_across * kAcross;
  patch.rows = cell.inside ? rows[cell.down + 1] - row : 0;
  patch.columns = columns[cell.across + 1] - column;
  patch.first = (tile.image * y.output_size + row) * x.output_size + column;
  const float down_divisor = 1 / static_cast<float>(y.divisor), across_divisor = 1 / static_cast<float>(x.divisor);
  Place place{static_cast<float>(x.numerator(column) - j * x.divisor) * across_divisor,
              static_cast<float>(y.numerator(row) - i * y.divisor) * down_divisor,
              static_cast<float>(x.scale) * across_divisor, static_cast<float>(y.scale) * down_divisor};
  // Beyond the first and the last element there is one, which is to receive all.
  if (j < 0 || j + 1 >= x.input_size) place.across = j < 0, place.across_step = 0;
  if (i < 0 || i + 1 >= y.input_size) place.down = i < 0, place.down_step = 0;
  return place;
}

// Between the sums and the gradient: losses of the patch's pixels.
template <int kAcross, int kDown, bool kWithGradient>
struct Losses {
  using Pixels = Patch<kAcross, kDown>;

  int left_out;           // -1 where sums are deep
  Surface smoothed;       // class weight * logit, summed over the classes
  float total = 0;        // in units of log2
  Moments mine;           // of the gradient in the class that was left out
  Moments smooth;         // of what smoothing takes off the gradient in each class, but for the class weight
  uint32_t negative = 0;  // a bit for each negative factor

  // Makes factors of the sums; forgets the labels that are the class left out.
  __device__ void take(const CrossEntropyArgs& args, const Elements& elements, const Cell& cell, const Place& place,
                       const Corners& tops, Pixels& patch, float (&sums)[Pixels::kPixels]) {
    const bool deep = left_out < 0;
    const float smoothing = args.label_smoothing / args.classes, weight_sum = class_weight_sum(args);
    Surface certain{};
    if (patch.active && !deep) certain = place.surface(elements.read(left_out, cell.element, tops));
    float power = exp2f(certain.base), ratio = exp2f(certain.down);
    const float across = exp2f(certain.across), both = exp2f(certain.both);
#pragma unroll
    for (int k = 0; k < kAcross; ++k) {
      float value = power;
#pragma unroll
      for (int r = 0; r < kDown; ++r) {
        const int p = k * kDown + r, label = patch.label(p);
        const bool active = patch.is_active(p), other = label != left_out;
        const float weight = patch.by_bits && active ? patch.weight(args, k, r) : 1;
        float hard = weight * (1 - args.label_smoothing);
        if (args.class_weight && active) hard *= args.class_weight[label];
        const float soft = weight * smoothing, scale = fmaf(soft, weight_sum, hard);
        // Of the class left out, and how far the sum lies above it.
        const float logit = certain.at(k, r), rest = deep ? sums[p] : log2_of_one_and(__fdividef(sums[p], value));
        float loss = hard * (other ? rest + logit : rest);
        if (args.label_smoothing != 0) loss = fmaf(soft, weight_sum * (rest + logit) - smoothed.at(k, r), loss);
        if (kWithGradient) {
          if (args.label_smoothing != 0) smooth.add(active ? soft : 0, k, r);
          if (deep) {
            sums[p] = active ? sums[p] - __log2f(fabsf(scale)) : -kLowest;
            negative |= scale < 0 ? 1u << p : 0;
          } else {
            const float others = sums[p];
            sums[p] = active ? __fdividef(scale, others + value) : 0;
            mine.add(active ? (other ? scale : soft * weight_sum) - others * sums[p] : 0, k, r);
            if (!other) patch.forget_label(p);
          }
        } else {
          if (active && other) {
            loss -= hard * place.surface(elements.read(label, cell.element, tops)).at(k, r);
          }
          if (k < patch.columns && r < patch.rows) {
            const int64_t i = patch.pixel(args, k, r);
            if (args.pixel_loss) args.pixel_loss[i] = active ? loss * kLn2 : 0;
            if (args.log_sum) args.log_sum[i] = active ? (rest + logit + place.surface(tops).at(k, r)) * kLn2 : 0;
          }
        }
        if (active) total += loss;
        value *= ratio;
      }
      power *= across;
      ratio *= both;
    }
  }
};

// Adds what the lanes of a cell have for its corners and puts it into shared memory. All threads of a warp must call.
__device__ void give(const Corners& corners, const SeriesLossArgs& args, const SeriesLossMemory& memory,
                     const Cell& cell, float* planes) {
  const float (&v)[4] = corners.values;
  float* const plane = planes + cell.index;
  if (args.lanes == 1) {
    if (!cell.inside) return;
#pragma unroll
    for (int corner = 0; corner < 4; ++corner) plane[corner * memory.plane] = v[corner];
    return;
  }
  // Each lane keeps the corners of one side, then one of these.
  const bool right = cell.lane & 1, lower = cell.lane & 2;
  const float above = (right ? v[1] : v[0]) + __shfl_xor_sync(~0u, right ? v[0] : v[1], 1);
  const float below = (right ? v[3] : v[2]) + __shfl_xor_sync(~0u, right ? v[2] : v[3], 1);
  if (args.lanes == 2) {
    if (!cell.inside) return;
    plane[right * memory.plane] = above;
    plane[(2 + right) * memory.plane] = below;
    return;
  }
  float sum = (lower ? below : above) + __shfl_xor_sync(~0u, lower ? above : below, 2);
  for (int lanes = 4; lanes < args.lanes; lanes *= 2) sum += __shfl_xor_sync(~0u, sum, lanes);
  if (cell.inside && cell.lane < 4) plane[cell.lane * memory.plane] = sum;
}

// What an element's thread writes: the gradient in every `lanes`th class.
class Gatherer {
 public:
  __device__ Gatherer(const SeriesLossArgs& args, const SeriesLossMemory& memory, const CellTile& tile)
      : plane_(memory.plane), across_(args.cells_across), part_(threadIdx.x / args.cells()) {
    const int32_t cells = args.cells(), index = threadIdx.x % cells;
    const int32_t down = index / across_, across = index % across_;
    const int32_t row = tile.row + down, column = tile.column + across;
    const int64_t height = args.loss.rows.input_size, width = args.loss.columns.input_size;
    own_ = part_ < args.lanes && down > 0 && across > 0 && row < height && column < width;
    cell_ = index;
    size_ = height * width;
    place_ = tile.image * args.loss.classes * size_ + row * width + column;
  }

  __device__ void clear(const SeriesLossArgs& args) const {
    if (!own_) return;
    for (int c = part_; c < args.loss.classes; c += args.lanes) store(args.loss, place_ + c * size_, 0);
  }

  // Adds the four cells around the element.
  __device__ void gather(const SeriesLossArgs& args, int first, int chunk, const float* planes) const {
    if (!own_) return;
#pragma unroll 4
    for (int k = part_; k < chunk; k += args.lanes) {
      const float* const below = planes + 4 * k * plane_ + cell_;
      const float* const above = below - across_;
      const float sum = ((above[3 * plane_ - 1] + above[2 * plane_]) + below[plane_ - 1]) + below[0];
      store(args.loss, place_ + (first + k) * size_, sum);
    }
  }

 private:
  __device__ static void store(const CrossEntropyArgs& args, int64_t i, float value) {
    if (args.mode == LossMode::kLossAndGradient || args.type == ElementType::kFloat) {
      static_cast<float*>(args.gradient)[i] = value;
    } else if (args.type == ElementType::kHalf) {
      static_cast<__half*>(args.gradient)[i] = from_float<__half>(value);
    } else {
      static_cast<__nv_bfloat16*>(args.gradient)[i] = from_float<__nv_bfloat16>(value);
    }
  }

  int32_t plane_, across_, part_, cell_;
  bool own_;
  int64_t size_, place_;
};

// Where the tile's intervals of pixels start.
__device__ void fill_starts(const SeriesLossArgs& args, const CellTile& tile, int32_t* rows, int32_t* columns) {
  const int32_t thread = threadIdx.x;
  if (thread <= args.cells_down) {
    rows[thread] = static_cast<int32_t>(interval_start(args.loss.rows, tile.row + thread));
  }
  if (thread <= args.cells_across) {
    columns[thread] = static_cast<int32_t>(interval_start(args.loss.columns, tile.column + thread));
  }
}

// Walks the classes once: the sums of powers, and what label smoothing needs. For the whole block.
template <int kAcross, int kDown, class Losses>
__device__ void sum_powers(const SeriesLossArgs& args, const Elements& elements, const Cell& cell, const Place& place,
                           const Corners& tops, Losses& losses, bool active, float (&sums)[kAcross * kDown]) {
  using Pixels = Patch<kAcross, kDown>;
  const int classes = args.loss.classes, left_out = losses.left_out;
  const bool deep = left_out < 0, staged = args.chunk == classes;
#pragma unroll
  for (float& sum : sums) sum = deep ? kLowest : 0;
  for (int first = 0; first < classes; first += args.chunk) {
    const int chunk = min(args.chunk, classes - first);
    if (!staged) {
      elements.stage(first, chunk);
      __syncthreads();
    }
    if (active && deep) {
#pragma unroll 1
      for (int c = 0; c < chunk; ++c) Pixels::add_deep(place.surface(elements.staged(c, cell.element, tops)), sums);
    } else if (active) {
#pragma unroll 2
      for (int c = 0; c < chunk; ++c) {
        Pixels::add_series(place.surface(elements.staged(c, cell.element, tops)), first + c == left_out, sums);
      }
    }
    if (active && args.loss.label_smoothing != 0) {
      for (int c = 0; c < chunk; ++c) {
        losses.smoothed.add(class_weight_of(args.loss, first + c),
                            place.surface(elements.staged(c, cell.element, tops)));
      }
    }
    if (!staged) __syncthreads();
  }
}

// Walks the classes again: the gradient. Gives the logits of the labels, summed with their weights. For the whole
// block.
template <int kAcross, int kDown, class Losses>
__device__ float give_gradient(const SeriesLossArgs& args, const SeriesLossMemory& memory, const Elements& elements,
                               const Cell& cell, const Place& place, const Corners& tops, const CellTile& tile,
                               const Patch<kAcross, kDown>& patch, const Losses& losses,
                               const float (&factors)[kAcross * kDown], float* shared) {
  using Pixels = Patch<kAcross, kDown>;
  const CrossEntropyArgs& loss = args.loss;
  uint32_t* const marks = reinterpret_cast<uint32_t*>(shared + memory.marks) + threadIdx.x;
  float* const planes = shared + memory.corners;
  const float share = 1 - loss.label_smoothing;
  const Gatherer gatherer(args, memory, tile);
  float labelled = 0;
  for (int first = 0; first < loss.classes; first += args.chunk) {
    const int chunk = min(args.chunk, loss.classes - first);
    if (args.chunk < loss.classes) {
      elements.stage(first, chunk);
      __syncthreads();
    }
    if (patch.active) patch.set_marks(marks, blockDim.x, first, chunk);
#pragma unroll 1
    for (int c = 0; c < chunk; ++c) {
      Corners corners{};
      if (patch.active) {
        const Surface surface = place.surface(elements.staged(c, cell.element, tops));
        Moments moments;
        if (first + c == losses.left_out) {
          moments.subtract(-1, losses.mine);
        } else if (losses.left_out < 0) {
          moments = Pixels::deep_moments(surface, factors, losses.negative);
        } else {
          moments = Pixels::series_moments(surface, factors);
        }
        if (const uint32_t mark = marks[c * blockDim.x]) {
          const Moments marked = patch.marked(loss, mark);
          const float weight = share * class_weight_of(loss, first + c);
          moments.subtract(weight, marked);
          labelled = fmaf(weight, marked.dot(surface), labelled);
        }
        if (loss.label_smoothing != 0) moments.subtract(class_weight_of(loss, first + c), losses.smooth);
        corners = place.spread(moments);
      }
      give(corners, args, memory, cell, planes + 4 * c * memory.plane);
    }
    __syncthreads();
    gatherer.gather(args, first, chunk, planes);
  }
  return labelled;
}

template <int kAcross, int kDown, int kBlocks, bool kWithGradient>
__global__ void __launch_bounds__(kSeriesThreads, kBlocks)
    cross_entropy_series(const __grid_constant__ SeriesLossArgs args) {
  using Pixels = Patch<kAcross, kDown>;
  MASKMATCH_DYNAMIC_SHARED(shared);
  const CrossEntropyArgs& loss = args.loss;
  const SeriesLossMemory memory(args);
  const CellTile tile(args);
  const Cell cell(args, tile);
  const Elements elements(args, memory, tile, shared);
  int32_t* const rows = reinterpret_cast<int32_t*>(shared + memory.rows);
  int32_t* const columns = reinterpret_cast<int32_t*>(shared + memory.columns);
  fill_starts(args, tile, rows, columns);
  __syncthreads();
  Pixels patch;
  const Place place = place_of(args, tile, cell, rows, columns, kAcross, kDown, patch);
  patch.by_bits = loss.pixel_weight || loss.grad_output;
  if (loss.target_is_uint8) {
    patch.template read<uint8_t>(loss);
  } else {
    patch.template read<int64_t>(loss);
  }
  const bool any = __syncthreads_or(patch.active != 0);
  float sums[Pixels::kPixels] = {};
  Losses<kAcross, kDown, kWithGradient> losses{};
  float labelled = 0;  // logits of labels
  if (!any) {
    if (kWithGradient) Gatherer(args, memory, tile).clear(args);
  } else {
    elements.find_tops();
    if (args.chunk == loss.classes) elements.stage(0, args.chunk);
    __syncthreads();
  }
  const Corners tops = any ? elements.tops(cell.element) : Corners{};
  bool deep = false;
  if (any) {
    deep = patch.active && elements.deep(cell.element, tops);
    losses.left_out = deep ? -1 : elements.best(cell.element);
    sum_powers<kAcross, kDown>(args, elements, cell, place, tops, losses, patch.active != 0, sums);
  }
  if (patch.active || !kWithGradient) losses.take(loss, elements, cell, place, tops, patch, sums);
  if (kWithGradient && any) {
    labelled =
        give_gradient<kAcross, kDown>(args, memory, elements, cell, place, tops, tile, patch, losses, sums, shared);
  }
  if (!(loss.mode == LossMode::kGradient)) {
    LossTotals totals{};
    if (cell.own) totals = {(losses.total - labelled) * kLn2, __popc(patch.valid), __popc(patch.active)};
    totals = block_sum(totals);
    if (threadIdx.x == 0) loss.totals[blockIdx.x] = totals;
  }
}

template <int kAcross, int kDown, int kBlocks>
constexpr SeriesLossKernel series_loss_kernel() {
  return {cross_entropy_series<kAcross, kDown, kBlocks, false>, cross_entropy_series<kAcross, kDown, kBlocks, true>,
          kAcross, kDown, kBlocks};
}

}  // namespace
}  // namespace maskmatch::cuda
