// patch_mask on CUDA: the patch grid by the ranks of the patches' keys, then one pass over the pixels, which does not
// read hidden ones.
#include "patch_mask.cuh"

#include <type_traits>

#include "kernel.cuh"

namespace maskmatch::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kVector = 4;  // elements that a thread moves at a time
constexpr int kRounds = 4;
constexpr int kBlockElements = kThreads * kVector * kRounds;

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

// Walks the elements of the images in the order of memory.
template <bool kChannelsLast>
class Cursor {
 public:
  __device__ Cursor(const PatchMaskArgs& args, int64_t element) : args_(args) {
    if (kChannelsLast) {
      channel_ = static_cast<int32_t>(element % args.channels);
      element /= args.channels;
    }
    x_ = static_cast<int32_t>(element % args.width);
    element /= args.width;
    y_ = static_cast<int32_t>(element % args.height);
    image_ = element / args.height;
    if (!kChannelsLast) {
      channel_ = static_cast<int32_t>(image_ % args.channels);
      image_ /= args.channels;
    }
    column_ = x_ / args.patch_size;
    left_ = args.patch_size - x_ % args.patch_size;
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
    hidden_ = args_.grid[(image_ * args_.rows + y_ / args_.patch_size) * args_.columns + column_];
  }

  const PatchMaskArgs& args_;
  int64_t image_;
  int32_t channel_, y_, x_;
  int32_t column_, left_;  // of the patch, and its pixels from here on
  bool hidden_;
};

template <class Element>
struct alignas(kVector * sizeof(Element)) Vector {
  Element values[kVector];
};

template <class Element, bool kChannelsLast>
__global__ void __launch_bounds__(kThreads) normalize(const __grid_constant__ PatchMaskArgs args) {
  using Result = std::conditional_t<std::is_same<Element, uint8_t>::value, float, Element>;
  const Element* images = static_cast<const Element*>(args.images);
  Result* output = static_cast<Result*>(args.output);
  const bool aligned = reinterpret_cast<uintptr_t>(images) % sizeof(Vector<Element>) == 0;
  const int64_t elements = args.count * args.channels * args.height * args.width;
  for (int round = 0; round < kRounds; ++round) {
    const int64_t first =
        blockIdx.x * static_cast<int64_t>(kBlockElements) + (round * kThreads + threadIdx.x) * kVector;
    if (first >= elements) return;
    const int count = elements - first < kVector ? static_cast<int>(elements - first) : kVector;
    Cursor<kChannelsLast> cursor(args, first);
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
  const int64_t blocks = ceil_div(args.count * args.channels * args.height * args.width, kBlockElements);
  return launch(args.channels_last ? normalize<Element, true> : normalize<Element, false>, blocks, kThreads, 0, stream,
                args);
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
