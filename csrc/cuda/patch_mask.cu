// patch_mask on CUDA: the patch grid, a thread block an image, then one pass over the pixels, which does not read
// hidden ones.
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

// The patches with the `hidden` lowest keys are hidden. A block finds the lowest key that is not, a digit at a time
// from the highest on: it counts the keys that agree so far by their next digit, and takes the digit at which enough of
// them are lower. Keys are drawn once where there is room to keep them.
constexpr int kKeyThreads = 512;
constexpr int kDigitBits = 8, kDigits = 1 << kDigitBits;
constexpr int kKept = 4096;
__global__ void __launch_bounds__(kKeyThreads) hide_patches(const __grid_constant__ PatchMaskArgs args) {
  __shared__ uint64_t kept[kKept];
  __shared__ int agreeing[kDigits];
  __shared__ int shared_digit, shared_wanted;
  const int64_t image = blockIdx.x, patches = static_cast<int64_t>(args.rows) * args.columns;
  const PatchKeys keys = patch_keys(args.strategy, args.seeds[image], args.rows, args.columns);
  const auto key_of = [&](int64_t patch) { return patch < kKept ? kept[patch] : distinct_key(keys, patch); };
  for (int64_t patch = threadIdx.x; patch < patches && patch < kKept; patch += kKeyThreads) {
    kept[patch] = distinct_key(keys, patch);  // which the same thread reads
  }

  uint64_t first_visible = 0;  // its digits so far
  int shift = 64;
  int wanted = static_cast<int>(args.hidden);  // of those that agree with them: how many are hidden
  while (wanted > 0 && wanted < patches) {
    shift -= kDigitBits;
    if (threadIdx.x < kDigits) agreeing[threadIdx.x] = 0;
    __syncthreads();
    for (int64_t patch = threadIdx.x; patch < patches; patch += kKeyThreads) {
      const uint64_t key = key_of(patch);
      // In two steps, as the first shift would be by all 64 bits.
      if ((key >> shift >> kDigitBits) == first_visible) atomicAdd(agreeing + (key >> shift) % kDigits, 1);
    }
    __syncthreads();
    if (threadIdx.x < 32) {
      constexpr int kDigitsALane = kDigits / 32;
      const int* own = agreeing + threadIdx.x * kDigitsALane;
      int sum = 0;
      for (int i = 0; i < kDigitsALane; ++i) sum += own[i];
      int lower = 0;  // keys of lower lanes
      for (int lanes = 1, all = sum; lanes < 32; lanes *= 2) {
        const int others = __shfl_xor_sync(~0u, all, lanes);
        if (threadIdx.x & lanes) lower += others;
        all += others;
      }
      for (int i = 0; i < kDigitsALane; ++i) {
        if (lower <= wanted && wanted < lower + own[i]) {
          shared_digit = threadIdx.x * kDigitsALane + i, shared_wanted = wanted - lower;
        }
        lower += own[i];
      }
    }
    __syncthreads();
    first_visible = first_visible << kDigitBits | shared_digit, wanted = shared_wanted;
  }
  for (int64_t patch = threadIdx.x; patch < patches; patch += kKeyThreads) {
    args.grid[image * patches + patch] = wanted > 0 || (shift < 64 && key_of(patch) >> shift < first_visible);
  }
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
  const cudaError_t error = launch(hide_patches, args.count, kKeyThreads, 0, stream, args);
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
