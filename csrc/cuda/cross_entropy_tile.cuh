// How upsample_cross_entropy cuts images into tiles of low-resolution elements, one a thread block, and the pixels that
// read a tile into strips, one a thread at a time. The pixels between two neighbouring rows or columns of elements are
// an interval, those between four elements a cell; a strip lies in one cell.
#pragma once

#include <algorithm>

#include "kernel.cuh"
#include "resized.cuh"
#include "upsample_cross_entropy.cuh"

namespace maskmatch::cuda {

constexpr int kStripRows = 8;
// Fewer rows mean more blocks, and more reads along the tiles' edges; the loss alone needs no pixels beyond them.
constexpr int kTileRows = 4, kTileRowsOfLoss = 2, kMaxTileColumns = 48;

// How the launch cuts an image into tiles of low-resolution elements.
struct Tiling {
  int rows, columns;  // of a tile
  int64_t down, across;

  __host__ __device__ int64_t tiles() const { return down * across; }
};

// The gradient of a tile, `max_elements` at the most, is kept in shared memory.
inline Tiling tiling_of(const CrossEntropyArgs& args, int64_t max_elements) {
  const bool with_gradient = args.mode != LossMode::kLoss;
  Tiling tiling{};
  tiling.rows = with_gradient ? kTileRows : kTileRowsOfLoss;
  int64_t most = kMaxTileColumns;
  if (with_gradient) most = std::max<int64_t>(1, std::min(most, max_elements / (args.classes * tiling.rows)));
  const int64_t width = args.columns.input_size;
  tiling.columns = static_cast<int>(ceil_div(width, ceil_div(width, most)));
  tiling.across = ceil_div(width, tiling.columns);
  tiling.down = ceil_div(args.rows.input_size, tiling.rows);
  return tiling;
}

// The tile of a thread block, and where the pixels start that read its rows and columns.
struct Tile {
  int64_t image;
  int64_t top, left, bottom, right;  // elements owned, ends excluded
  int64_t first_row, first_column;   // the first intervals of pixels walked
  int32_t row_start[kTileRows + 2];  // of interval first_row + i, and the end
  int32_t column_start[kMaxTileColumns + 2];
  int32_t strips_an_interval, strips_down, pixels_across;

  // For the whole block; ends with a barrier.
  __device__ void fill(const Tiling& tiling, const Bilinear& rows, const Bilinear& columns, bool with_gradient) {
    const int64_t index = blockIdx.x % tiling.tiles();
    const int64_t y = index / tiling.across * tiling.rows, x = index % tiling.across * tiling.columns;
    const int64_t y_end = y + tiling.rows < rows.input_size ? y + tiling.rows : rows.input_size;
    const int64_t x_end = x + tiling.columns < columns.input_size ? x + tiling.columns : columns.input_size;
    // The gradient also comes from the pixels before the first element.
    const int64_t y_first = with_gradient && y > 0 ? y - 1 : y, x_first = with_gradient && x > 0 ? x - 1 : x;
    const int thread = threadIdx.x;
    if (thread <= y_end - y_first) row_start[thread] = static_cast<int32_t>(rows.first_output(y_first + thread));
    if (thread <= x_end - x_first) column_start[thread] = static_cast<int32_t>(columns.first_output(x_first + thread));
    __syncthreads();
    if (thread == 0) {
      image = blockIdx.x / tiling.tiles();
      top = y;
      left = x;
      bottom = y_end;
      right = x_end;
      first_row = y_first;
      first_column = x_first;
      const int intervals = static_cast<int>(y_end - y_first);
      int32_t longest = 0;
      for (int i = 0; i < intervals; ++i) {
        const int32_t length = row_start[i + 1] - row_start[i];
        longest = length > longest ? length : longest;
      }
      strips_an_interval = (longest + kStripRows - 1) / kStripRows;
      strips_down = strips_an_interval * intervals;
      pixels_across = column_start[x_end - x_first] - column_start[0];
    }
    __syncthreads();
  }
};

// A strip of up to kStripRows rows, all between the input rows `low` and `low` + 1.
struct LossStrip : Strip {
  int32_t low;
  int rows;

  // Strips are counted along the rows of pixels.
  __device__ LossStrip(const Tile& tile, int64_t index) {
    const int32_t down = static_cast<int32_t>(index / tile.pixels_across);
    const int32_t interval = down / tile.strips_an_interval;
    low = static_cast<int32_t>(tile.first_row + interval);
    row = tile.row_start[interval] + down % tile.strips_an_interval * kStripRows;
    column = tile.column_start[0] + static_cast<int32_t>(index % tile.pixels_across);
    const int32_t left = tile.row_start[interval + 1] - row;
    rows = left < 0 ? 0 : left < kStripRows ? left : kStripRows;
  }

  // The index of pixel r in a map [N, H, W].
  __device__ int64_t pixel(const CrossEntropyArgs& args, int64_t image, int r) const {
    return (image * args.rows.output_size + row + r) * args.columns.output_size + column;
  }
};

}  // namespace maskmatch::cuda
