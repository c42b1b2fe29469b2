// What the kernels of cross_entropy_series.cuh, the fast form of upsample_cross_entropy, are given, and how the launch
// chooses among them.
#pragma once

#include "kernel.cuh"
#include "upsample_cross_entropy.cuh"

namespace maskmatch::cuda {

constexpr int kSeriesThreads = 256;  // of a block, at the most

struct SeriesLossArgs {
  CrossEntropyArgs loss;
  int32_t pixels;                    // of a patch
  int32_t cells_down, cells_across;  // of a tile
  int32_t tiles_down, tiles_across;  // of an image
  int32_t overlap;                   // cells that neighbouring tiles have in common along an axis
  int32_t lanes, lanes_across;       // threads of a cell, and how many lie side by side; powers of two
  int32_t staged, chunk;             // classes whose logits, and whose gradients, are in shared memory at a time
  float deep;                        // log2 units below an element's highest class where a series may fail

  __host__ __device__ int32_t cells() const { return cells_down * cells_across; }
  __host__ __device__ int32_t threads() const { return (cells() * lanes + 31) / 32 * 32; }
  __host__ __device__ int64_t blocks() const { return loss.count * tiles_down * tiles_across; }
  __host__ __device__ bool with_gradient() const { return loss.mode != LossMode::kLoss; }
  // Whether pixels have weights of their own; whether all count the same.
  __host__ __device__ bool weighted() const { return loss.pixel_weight || loss.grad_output; }
  __host__ __device__ bool plain() const { return !weighted() && !loss.class_weight && loss.label_smoothing == 0; }
};

// Where things lie in a block's shared memory, in units of 4 bytes.
struct SeriesLossMemory {
  int32_t elements;  // of a tile
  int32_t plane;     // floats from one plane of corners to the next; lanes of a cell write different banks
  // Starts of intervals; of elements what their classes have in common, and their logits; of threads the labels, two
  // moments, a number for each pixel, and marks; the corners of cells.
  int32_t rows, columns, tops, values, labels, moments, pixels, marks, corners, end;

  __host__ __device__ explicit SeriesLossMemory(const SeriesLossArgs& args) {
    const int32_t padding = args.lanes == 1 ? 0 : args.lanes == 2 ? 16 : 8;
    const int32_t threads = args.threads(), chunk = args.with_gradient() ? args.chunk : 0;
    elements = (args.cells_down + 1) * (args.cells_across + 1);
    plane = (args.cells() + 31) / 32 * 32 + padding;
    rows = 0;
    columns = rows + args.cells_down + 1;
    tops = columns + args.cells_across + 1;
    values = tops + 4 * elements;
    labels = values + args.staged * elements;
    moments = labels + args.pixels / 4 * threads;
    pixels = moments + (args.loss.label_smoothing != 0 ? 8 : 4) * threads;
    marks = pixels + (args.plain() && args.with_gradient() ? 0 : args.pixels * threads);
    corners = marks + chunk * threads;
    end = corners + chunk * 4 * plane;
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
