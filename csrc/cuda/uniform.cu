// uniform on CUDA: a thread draws the four numbers of one counter.
#include "uniform.cuh"

#include "../common/philox.h"
#include "kernel.cuh"

namespace maskmatch::cuda {
namespace {

constexpr int kThreads = 128;

__global__ void __launch_bounds__(kThreads) draw(const __grid_constant__ UniformArgs args) {
  const int64_t groups = (args.count + 3) / 4, index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (index >= args.rows * groups) return;
  const int64_t row = index / groups;
  draw_uniform(args.seeds[row], index % groups, args.stream, args.count, args.numbers + row * args.count);
}

}  // namespace

cudaError_t launch_uniform(const UniformArgs& args, cudaStream_t stream) {
  return launch(draw, ceil_div(args.rows * ceil_div(args.count, 4), kThreads), kThreads, 0, stream, args);
}

}  // namespace maskmatch::cuda
