// A class's logits between four elements, and sums over the pixels there.
#pragma once

#include "../common/log2.h"
#include "kernel.cuh"

namespace maskmatch::cuda {
namespace {  // each file that includes this has its own

// Logits of a class over a patch, in units of log2: at column k and row r, base + k across + r down + k r both.
struct Surface {
  float base, across, down, both;

  __device__ float at(int k, int r) const { return fmaf(r, fmaf(k, both, down), fmaf(k, across, base)); }
  __device__ void add(float factor, const Surface& other) {
    base = fmaf(factor, other.base, base);
    across = fmaf(factor, other.across, across);
    down = fmaf(factor, other.down, down);
    both = fmaf(factor, other.both, both);
  }
};

// Sums of a value over pixels: of itself, and times k, r and k r.
struct Moments {
  float sum = 0, across = 0, down = 0, both = 0;

  __device__ void add(float value, int k, int r) { add_column(value, r * value, k); }
  __device__ void add_column(float column, float column_down, int k) {
    sum += column;
    across = fmaf(k, column, across);
    down += column_down;
    both = fmaf(k, column_down, both);
  }
  __device__ void subtract(float factor, const Moments& other) {
    sum = fmaf(-factor, other.sum, sum);
    across = fmaf(-factor, other.across, across);
    down = fmaf(-factor, other.down, down);
    both = fmaf(-factor, other.both, both);
  }
  // In shared memory, `blockDim.x` floats apart.
  __device__ void store(float* to) const {
    const int step = blockDim.x;
    to[0] = sum, to[step] = across, to[2 * step] = down, to[3 * step] = both;
  }
  __device__ static Moments load(const float* from) {
    const int step = blockDim.x;
    return {from[0], from[step], from[2 * step], from[3 * step]};
  }
  // The sum of value * logit.
  __device__ float dot(const Surface& surface) const {
    return fmaf(both, surface.both, fmaf(down, surface.down, fmaf(across, surface.across, sum * surface.base)));
  }
};

// The four elements around a cell: upper left, upper right, lower left, lower right.
struct Corners {
  float values[4];

  __device__ float lowest() const { return fminf(fminf(values[0], values[1]), fminf(values[2], values[3])); }
  __device__ float highest() const { return fmaxf(fmaxf(values[0], values[1]), fmaxf(values[2], values[3])); }
};

// Where a patch lies between its elements: its first pixel, and the distance of pixels.
struct Place {
  float across, down, across_step, down_step, both_step;  // the last one the product of the steps

  __device__ Surface surface(const Corners& corners) const {
    const float (&v)[4] = corners.values;
    const float right = v[1] - v[0], below = v[2] - v[0], twist = (v[3] - v[2]) - right;
    const float slope = fmaf(across, twist, below);
    return {fmaf(down, slope, fmaf(across, right, v[0])), across_step * fmaf(down, twist, right), down_step * slope,
            both_step * twist};
  }

  // What pixels give to the elements, each by its distance.
  __device__ Corners spread(const Moments& moments) const {
    const float right = fmaf(across_step, moments.across, across * moments.sum);
    const float below = fmaf(down_step, moments.down, down * moments.sum);
    const float both = fmaf(down_step, fmaf(across_step, moments.both, across * moments.down), down * right);
    return {{(moments.sum - right) - (below - both), right - both, below - both, both}};
  }
};

}  // namespace
}  // namespace maskmatch::cuda
