// patch_mask on CUDA: keys, the patch grid by their ranks, then one pass over the pixels.
#include "patch_mask.cuh"

namespace maskmatch::cuda {
namespace {

constexpr int kThreads = 256;

__device__ int64_t global_thread() { return blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x; }

__global__ void write_keys(PatchMaskArgs args) {
  const int64_t patches = args.rows * args.columns, i = global_thread();
  if (i >= args.count * patches) return;
  const PatchKeys keys = patch_keys(args.strategy, args.seeds[i / patches], args.rows, args.columns);
  args.keys[i] = distinct_key(keys, i % patches);
}

// A patch is hidden where fewer than `hidden` keys of its image are lower.
__global__ void rank_keys(PatchMaskArgs args) {
  const int64_t patches = args.rows * args.columns, i = global_thread();
  if (i >= args.count * patches) return;
  const uint64_t* image = args.keys + i / patches * patches;
  const uint64_t key = args.keys[i];
  int64_t lower = 0;
  for (int64_t j = 0; j < patches; ++j) lower += image[j] < key;
  args.grid[i] = lower < args.hidden;
}

template <class Element>
__global__ void normalize(PatchMaskArgs args, const Element* images) {
  const int64_t plane = args.height * args.width, i = global_thread();
  if (i >= args.count * args.channels * plane) return;
  const int64_t image = i / (args.channels * plane);
  const int64_t channel = args.channels_last ? i % args.channels : i / plane % args.channels;
  const int64_t pixel = args.channels_last ? i / args.channels % plane : i % plane;
  const int64_t row = pixel / args.width / args.patch_size, column = pixel % args.width / args.patch_size;
  const bool hidden = args.grid[(image * args.rows + row) * args.columns + column];
  args.output[i] =
      hidden ? args.fill[channel] : static_cast<float>(images[i]) * args.scale[channel] + args.bias[channel];
}

unsigned blocks_for(int64_t threads) { return static_cast<unsigned>((threads + kThreads - 1) / kThreads); }

}  // namespace

cudaError_t launch_patch_mask(const PatchMaskArgs& args, cudaStream_t stream) {
  const int64_t patches = args.count * args.rows * args.columns;
  const int64_t elements = args.count * args.channels * args.height * args.width;
  if (elements == 0) return cudaSuccess;
  write_keys<<<blocks_for(patches), kThreads, 0, stream>>>(args);
  cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess) return error;
  rank_keys<<<blocks_for(patches), kThreads, 0, stream>>>(args);
  error = cudaGetLastError();
  if (error != cudaSuccess) return error;
  if (args.is_uint8) {
    normalize<<<blocks_for(elements), kThreads, 0, stream>>>(args, static_cast<const uint8_t*>(args.images));
  } else {
    normalize<<<blocks_for(elements), kThreads, 0, stream>>>(args, static_cast<const float*>(args.images));
  }
  return cudaGetLastError();
}

}  // namespace maskmatch::cuda
