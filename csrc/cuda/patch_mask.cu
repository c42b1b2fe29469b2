// patch_mask on CUDA: the patch grid by the ranks of the patches' keys, then one pass over the pixels, which does not
// read hidden ones.
#include "patch_mask.cuh"

#include <type_traits>

#include "divider.h"
#include "kernel.cuh"

namespace maskmatch::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kVector = 4;   // elements that a thread moves at a time
constexpr int kVectors = 4;  // of a thread
constexpr int kBlockElements = kThreads * kVector * kVectors;

// A patch is hidden where fewer than `hidden` keys of its image are lower.
__global__ void __launch_bounds__(kThreads) hide_patches(const __grid_constant__ PatchMaskArgs args) {
  __shared__ uint64_t others[kThreads];
  const int64_t patches = static_cast<int64_t>(args.rows) * args.columns;
  const int64_t blocks_an_image = (patches + kThreads - 1) / kThreads, image = blockIdx.x / blocks_an_image;
  const int64_t patch = blockIdx.x % blocks_an_image * kThreads + threadIdx.x;
  const PatchKeys keys = patch_keys(args.strategy, args.seeds[image], args.rows, args.columns);
  const uint64_t key = distinct_key(keys, patch);
  int64_t lower = 0;
  for (int64_t first = 0; first < patches; first += kThreads) {
    const int64_t left = patches - first, count = left < kThreads ? left : kThreads;
    if (threadIdx.x < count) others[threadIdx.x] = distinct_key(keys, first + threadIdx.x);
    __syncthreads();
    for (int i = 0; i < count; ++i) lower += others[i] < key;
    __syncthreads();
  }
  if (patch < patches) args.grid[image * patches + patch] = lower < args.hidden;
}

struct NormalizeArgs {
  PatchMaskArgs mask;
  Divider channels, width, height, patch;
};

// Walks the elements of the images in the order of memory; `Number` counts them: uint32_t, or int64_t where they are
// more than 2**31.
template <bool kChannelsLast, class Number>
class Cursor {
 public:
  __device__ Cursor(const NormalizeArgs& args, Number element) : args_(args.mask), patch_(args.patch) {
    if (kChannelsLast) channel_ = args.channels.split(element);
    x_ = args.width.split(element);
    y_ = args.height.split(element);
    if (!kChannelsLast) channel_ = args.channels.split(element);
    image_ = element;
    column_ = static_cast<int32_t>(patch_.quotient(static_cast<uint32_t>(x_)));
    left_ = (column_ + 1) * args_.patch_size - x_;
    look_up();
  }

  __device__ int channel() const { return channel_; }
  __device__ bool hidden() const { return hidden_; }

  __device__ void next() {
    if (kChannelsLast) {
      if (++channel_ < args_.channels) return;
      channel_ = 0;
    }
    --left_;
    if (++x_ < args_.width && left_ > 0) return;
    ++column_;
    if (x_ == args_.width) next_row();
    left_ = args_.patch_size;
    look_up();
  }

 private:
  __device__ void next_row() {
    x_ = column_ = 0;
    if (++y_ < args_.height) return;
    y_ = 0;
    if (!kChannelsLast && ++channel_ < args_.channels) return;
    channel_ = 0;
    ++image_;
  }

  __device__ void look_up() {
    hidden_ = args_.grid[(image_ * args_.rows + patch_.quotient(static_cast<uint32_t>(y_))) * args_.columns + column_];
  }

  const PatchMaskArgs& args_;
  const Divider& patch_;
  int64_t image_;
  int32_t channel_, y_, x_;
  int32_t column_, left_;  // of the patch, and its pixels from here on
  bool hidden_;
};

template <class Element>
struct alignas(kVector * sizeof(Element)) Vector {
  Element values[kVector];
};

template <class Element, bool kChannelsLast, class Number>
__global__ void __launch_bounds__(kThreads) normalize(const __grid_constant__ NormalizeArgs normalize_args) {
  const PatchMaskArgs& args = normalize_args.mask;
  using Result = std::conditional_t<std::is_same<Element, uint8_t>::value, float, Element>;
  const Element* images = static_cast<const Element*>(args.images);
  Result* output = static_cast<Result*>(args.output);
  const bool aligned = reinterpret_cast<uintptr_t>(images) % sizeof(Vector<Element>) == 0;
  const int64_t elements = args.count * args.channels * args.height * args.width;
  for (int v = 0; v < kVectors; ++v) {
    const int64_t first = blockIdx.x * static_cast<int64_t>(kBlockElements) + (v * kThreads + threadIdx.x) * kVector;
    if (first >= elements) return;
    const int count = elements - first < kVector ? static_cast<int>(elements - first) : kVector;
    Cursor<kChannelsLast, Number> cursor(normalize_args, static_cast<Number>(first));
    bool hidden[kVector];
    int channel[kVector];
    bool any_visible = false;
#pragma unroll
    for (int i = 0; i < kVector; ++i) {
      if (i > 0 && i < count) cursor.next();
      hidden[i] = cursor.hidden();
      channel[i] = cursor.channel();
      any_visible |= !hidden[i];
    }
    Vector<Element> read{};
    if (aligned && count == kVector) {
      if (any_visible) read = *reinterpret_cast<const Vector<Element>*>(images + first);
    } else {
#pragma unroll
      for (int i = 0; i < kVector; ++i) {
        if (i < count && !hidden[i]) read.values[i] = images[first + i];
      }
    }
    Vector<Result> result;
#pragma unroll
    for (int i = 0; i < kVector; ++i) {
      const int c = channel[i];
      const float value = to_float(read.values[i]) * args.scale[c] + args.bias[c];
      result.values[i] = from_float<Result>(hidden[i] ? args.fill[c] : value);
    }
    if (count == kVector) {
      *reinterpret_cast<Vector<Result>*>(output + first) = result;
    } else {
#pragma unroll
      for (int i = 0; i < kVector; ++i) {
        if (i < count) output[first + i] = result.values[i];
      }
    }
  }
}

template <class Element>
cudaError_t launch_normalize(const PatchMaskArgs& args, cudaStream_t stream) {
  const int64_t elements = args.count * args.channels * args.height * args.width;
  const NormalizeArgs all{args, Divider(args.channels), Divider(args.width), Divider(args.height),
                          Divider(args.patch_size)};
  const bool small = elements < INT32_MAX;
  const auto kernel = args.channels_last
                          ? small ? normalize<Element, true, uint32_t> : normalize<Element, true, int64_t>
                      : small ? normalize<Element, false, uint32_t>
                              : normalize<Element, false, int64_t>;
  return launch(kernel, ceil_div(elements, kBlockElements), kThreads, 0, stream, all);
}

}  // namespace

cudaError_t launch_patch_mask(const PatchMaskArgs& args, cudaStream_t stream) {
  const int64_t blocks_an_image = ceil_div(static_cast<int64_t>(args.rows) * args.columns, kThreads);
  const cudaError_t error = launch(hide_patches, args.count * blocks_an_image, kThreads, 0, stream, args);
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
