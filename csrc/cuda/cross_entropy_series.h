// What the kernels of cross_entropy_series.cuh, the fast form of upsample_cross_entropy, are given, and how the launch
// chooses among them.
#pragma once

#include "kernel.cuh"
#include "upsample_cross_entropy.cuh"

namespace maskmatch::cuda {

constexpr int kSeriesThreads = 256;  // of a block, at the most

// Where things lie in a block's shared memory, in units of 4 bytes: starts of intervals; of elements what their classes
// have in common, and their logits; of threads the labels, two moments, a number for each pixel, and marks; the corners
// of cells.
struct SeriesLossMemory {
  int32_t rows, columns, tops, values, labels, moments, pixels, marks, corners, end;
  int32_t plane;  // from one plane of corners to the next; lanes of a cell write different banks
};

struct SeriesLossArgs {
  CrossEntropyArgs loss;
  int32_t pixels;                    // of a patch
  int32_t cells_down, cells_across;  // of a tile
  int32_t tiles_down, tiles_across;  // of an image
  int32_t overlap;                   // cells that neighbouring tiles have in common along an axis
  int32_t lanes, lanes_across;       // threads of a cell, and how many lie side by side; powers of two
  int32_t staged, chunk;             // classes whose logits, and whose gradients, are in shared memory at a time
  float deep;                        // log2 units below an element's highest class where a series may fail
  SeriesLossMemory memory;

  __host__ __device__ int32_t cells() const { return cells_down * cells_across; }
  __host__ __device__ int32_t elements() const { return (cells_down + 1) * (cells_across + 1); }
  __host__ __device__ int32_t threads() const { return (cells() * lanes + 31) / 32 * 32; }
  __host__ __device__ int64_t blocks() const { return loss.count * tiles_down * tiles_across; }
  __host__ __device__ bool with_gradient() const { return loss.mode != LossMode::kLoss; }
  // Whether pixels have weights of their own; whether all count the same.
  __host__ __device__ bool weighted() const { return loss.pixel_weight || loss.grad_output; }
  __host__ __device__ bool plain() const { return !weighted() && !loss.class_weight && loss.label_smoothing == 0; }

  void lay_out() {
    const int32_t padding = lanes == 1 ? 0 : lanes == 2 ? 16 : 8, exchanged = with_gradient() ? chunk : 0;
    memory.plane = (cells() + 31) / 32 * 32 + padding;
    memory.rows = 0;
    memory.columns = memory.rows + cells_down + 1;
    memory.tops = memory.columns + cells_across + 1;
    memory.values = memory.tops + 4 * elements();
    memory.labels = memory.values + staged * elements();
    memory.moments = memory.labels + pixels / 4 * threads();
    memory.pixels = memory.moments + (loss.label_smoothing != 0 ? 8 : 4) * threads();
    memory.marks = memory.pixels + (plain() && with_gradient() ? 0 : pixels * threads());
    memory.corners = memory.marks + exchanged * threads();
    memory.end = memory.corners + exchanged * 4 * memory.plane;
  }
};

struct SeriesLossKernel {
  void (*loss)(SeriesLossArgs);
  void (*gradient)(SeriesLossArgs);
  int across, down;  // pixels of a patch
  int blocks;        // of a multiprocessor, by registers
};

extern const SeriesLossKernel series_loss_4x4, series_loss_4x8;

}  // namespace maskmatch::cuda
