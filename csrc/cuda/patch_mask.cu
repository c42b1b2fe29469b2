// patch_mask on CUDA: the patch grid by the ranks of the patches' keys, then one pass over the pixels, which does not
// read hidden ones.
#include "patch_mask.cuh"

#include <algorithm>
#include <type_traits>

#include "divider.h"
#include "kernel.cuh"

namespace maskmatch::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kVector = 4;  // elements that a thread has of a row of pixels,
constexpr int kRows = 4;    // and rows, all of one row of patches
constexpr int kApart = 32;  // a warp, which has neighbouring elements where a thread cannot

// A patch is hidden where fewer than `hidden` keys of its image are lower; kLanes threads count them. Each block draws
// all keys of its image, so that of many patches it had better rank many.
constexpr int64_t kManyPatches = 1024;
template <int kLanes>
__global__ void __launch_bounds__(kThreads) hide_patches(const __grid_constant__ PatchMaskArgs args) {
  __shared__ uint64_t others[kThreads];
  constexpr int kPatches = kThreads / kLanes;
  const int64_t patches = static_cast<int64_t>(args.rows) * args.columns;
  const int64_t blocks_an_image = (patches + kPatches - 1) / kPatches, image = blockIdx.x / blocks_an_image;
  const int64_t patch = blockIdx.x % blocks_an_image * kPatches + threadIdx.x / kLanes;
  const int lane = threadIdx.x % kLanes;
  const PatchKeys keys = patch_keys(args.strategy, args.seeds[image], args.rows, args.columns);
  const uint64_t key = distinct_key(keys, patch);
  int64_t lower = 0;
  for (int64_t first = 0; first < patches; first += kThreads) {
    const int64_t left = patches - first, count = left < kThreads ? left : kThreads;
    if (threadIdx.x < count) others[threadIdx.x] = distinct_key(keys, first + threadIdx.x);
    __syncthreads();
    for (int i = lane; i < count; i += kLanes) lower += others[i] < key;
    __syncthreads();
  }
#pragma unroll
  for (int lanes = 1; lanes < kLanes; lanes *= 2) lower += __shfl_xor_sync(~0u, lower, lanes);
  if (lane == 0 && patch < patches) args.grid[image * patches + patch] = lower < args.hidden;
}

// Threads are counted along a row, down the rows of a patch, down the patches, and over the planes: the images, or
// where they are not channels-last their channels.
struct NormalizeArgs {
  PatchMaskArgs mask;
  int64_t first_plane;
  uint32_t threads;
  int32_t row_elements;  // of memory: W, of channels-last images W C
  Divider threads_a_row, threads_a_patch, patch_rows, channels, patch_size;
};

// kVector neighbouring elements of a row whose ends are aligned; of any other every kApart-th.
template <class Element>
struct alignas(kVector * sizeof(Element)) Vector {
  Element values[kVector];
};

template <bool kAligned, class Element>
__device__ Vector<Element> load(const Element* row, int32_t step, int inside) {
  if constexpr (kAligned) {
    return *reinterpret_cast<const Vector<Element>*>(row);
  } else {
    Vector<Element> vector{};
#pragma unroll
    for (int i = 0; i < kVector; ++i) {
      if (i < inside) vector.values[i] = row[i * step];
    }
    return vector;
  }
}

template <bool kAligned, class Element>
__device__ void store(Element* row, int32_t step, int inside, const Vector<Element>& vector) {
  if constexpr (kAligned) {
    *reinterpret_cast<Vector<Element>*>(row) = vector;
  } else {
#pragma unroll
    for (int i = 0; i < kVector; ++i) {
      if (i < inside) row[i * step] = vector.values[i];
    }
  }
}

template <class Element, bool kChannelsLast, bool kAligned>
__global__ void __launch_bounds__(kThreads) normalize(const __grid_constant__ NormalizeArgs all) {
  using Result = std::conditional_t<std::is_same<Element, uint8_t>::value, float, Element>;
  const PatchMaskArgs& args = all.mask;
  uint32_t index = blockIdx.x * kThreads + threadIdx.x;
  if (index >= all.threads) return;
  const int32_t in_row = all.threads_a_row.split(index), in_patch = all.threads_a_patch.split(index);
  const int32_t patch_row = all.patch_rows.split(index);
  const int64_t plane = all.first_plane + index, image = kChannelsLast ? plane : plane / args.channels;
  const int32_t step = kAligned ? 1 : kApart;
  const int32_t first = kAligned ? in_row * kVector : in_row / kApart * (kApart * kVector) + in_row % kApart;

  float scale[kVector], bias[kVector];
  Vector<Result> fill;
  bool hidden[kVector], any_visible = false;
  int inside = 0;
#pragma unroll
  for (int i = 0; i < kVector; ++i) {
    uint32_t x = min(first + i * step, all.row_elements - 1);
    const int32_t channel = kChannelsLast ? all.channels.split(x) : static_cast<int32_t>(plane - image * args.channels);
    inside += first + i * step < all.row_elements;
    scale[i] = args.scale[channel], bias[i] = args.bias[channel];
    fill.values[i] = from_float<Result>(args.fill[channel]);
    hidden[i] = args.grid[(image * args.rows + patch_row) * args.columns + all.patch_size.quotient(x)];
    any_visible |= !hidden[i];
  }

  const int32_t patch_top = patch_row * args.patch_size, top = patch_top + in_patch * kRows;
  const int32_t rows = min(min(patch_top + args.patch_size, args.height) - top, kRows);
  const int64_t start = (plane * args.height + top) * all.row_elements + first;
  const Element* images = static_cast<const Element*>(args.images) + start;
  Result* output = static_cast<Result*>(args.output) + start;
  Vector<Element> read[kRows] = {};
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    if (r < rows && any_visible) {
      read[r] = load<kAligned>(images + static_cast<int64_t>(r) * all.row_elements, step, inside);
    }
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    if (r >= rows) break;
    Vector<Result> result = fill;
#pragma unroll
    for (int i = 0; i < kVector; ++i) {
      const float value = fmaf(to_float(read[r].values[i]), scale[i], bias[i]);
      if (!hidden[i]) result.values[i] = from_float<Result>(value);
    }
    store<kAligned>(output + static_cast<int64_t>(r) * all.row_elements, step, inside, result);
  }
}

template <class Element>
cudaError_t launch_normalize(const PatchMaskArgs& args, cudaStream_t stream) {
  const int64_t row_elements = static_cast<int64_t>(args.width) * (args.channels_last ? args.channels : 1);
  const auto threads_a_patch = static_cast<int32_t>(ceil_div(args.patch_size, kRows));
  const bool aligned =
      row_elements % kVector == 0 && reinterpret_cast<uintptr_t>(args.images) % sizeof(Vector<Element>) == 0;
  const auto threads_a_row =
      static_cast<int32_t>(aligned ? row_elements / kVector : ceil_div(row_elements, kApart * kVector) * kApart);
  const auto kernel = args.channels_last ? aligned ? normalize<Element, true, true> : normalize<Element, true, false>
                      : aligned          ? normalize<Element, false, true>
                                         : normalize<Element, false, false>;
  NormalizeArgs all{args,
                    0,
                    0,
                    static_cast<int32_t>(row_elements),
                    Divider(threads_a_row),
                    Divider(threads_a_patch),
                    Divider(args.rows),
                    Divider(args.channels),
                    Divider(args.patch_size)};
  const int64_t planes = args.count * (args.channels_last ? 1 : args.channels);
  const int64_t threads_a_plane = int64_t{args.rows} * threads_a_patch * threads_a_row;
  const int64_t planes_a_launch = std::max<int64_t>((INT32_MAX - kThreads) / threads_a_plane, 1);  // all but always
  for (; all.first_plane < planes; all.first_plane += planes_a_launch) {
    all.threads = static_cast<uint32_t>(std::min(planes_a_launch, planes - all.first_plane) * threads_a_plane);
    const cudaError_t error = launch(kernel, ceil_div(all.threads, kThreads), kThreads, 0, stream, all);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

}  // namespace

cudaError_t launch_patch_mask(const PatchMaskArgs& args, cudaStream_t stream) {
  const int64_t patches = static_cast<int64_t>(args.rows) * args.columns;
  const int lanes = patches < kManyPatches ? 8 : 2;
  const int64_t blocks = args.count * ceil_div(patches, kThreads / lanes);
  const cudaError_t error = launch(lanes == 8 ? hide_patches<8> : hide_patches<2>, blocks, kThreads, 0, stream, args);
  if (error != cudaSuccess) return error;
  switch (args.type) {
    case ElementType::kUint8:
      return launch_normalize<uint8_t>(args, stream);
    case ElementType::kHalf:
      return launch_normalize<__half>(args, stream);
    case ElementType::kBFloat16:
      return launch_normalize<__nv_bfloat16>(args, stream);
    default:
      return launch_normalize<float>(args, stream);
  }
}

}  // namespace maskmatch::cuda
