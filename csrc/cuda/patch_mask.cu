// patch_mask on CUDA: one pass over the pixels, which does not read hidden ones. Each thread block finds by itself
// which patches of its own are hidden; images of very many patches have theirs found by a kernel before.
#include "patch_mask.cuh"

#include <algorithm>
#include <type_traits>

#include "divider.h"
#include "patch_grid.cuh"

namespace maskmatch::cuda {
namespace {

constexpr int kVector = 4;  // elements that a thread has of a row of pixels, of kRows rows
constexpr int kApart = 32;  // a warp, which has neighbouring elements where a thread cannot
template <class Element>
constexpr int kRows = sizeof(Element) == 1 ? 8 : 4;  // as many as registers hold, all of one row of patches

// An image is one plane if it is channels-last, else a plane a channel. A band is kRows rows of a plane, or fewer, in
// one row of patches; bands are counted down the planes. A block has neighbouring bands of one image.
struct NormalizeArgs {
  PatchMaskArgs mask;
  int64_t first_image, bands;
  int32_t bands_a_block;
  int32_t row_elements;  // of memory: W, of channels-last images W C
  int32_t planes;        // of an image
  Divider blocks_an_image, threads_a_row, bands_a_patch, patch_rows, patch_size;
  Divider channels;  // of a plane
};

// kVector neighbouring elements of a row whose ends are aligned; of any other every kApart-th.
template <class Element>
class alignas(kVector * sizeof(Element)) Vector {
 public:
  __device__ Element get(int i) const { return values_[i]; }
  __device__ void set(int i, Element value) { values_[i] = value; }

 private:
  Element values_[kVector];
};

// Bytes in one register, as nvcc would take them apart and put them together again.
template <>
class Vector<uint8_t> {
 public:
  __device__ uint8_t get(int i) const { return word_ >> 8 * i & 255; }
  __device__ void set(int i, uint8_t value) {
    word_ = (word_ & ~(255u << 8 * i)) | static_cast<uint32_t>(value) << 8 * i;
  }

 private:
  uint32_t word_;
};

template <bool kAligned, class Element>
__device__ Vector<Element> load(const Element* row, int32_t step, int inside) {
  if constexpr (kAligned) {
    return *reinterpret_cast<const Vector<Element>*>(row);
  } else {
    Vector<Element> vector{};
#pragma unroll
    for (int i = 0; i < kVector; ++i) {
      if (i < inside) vector.set(i, row[i * step]);
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
      if (i < inside) row[i * step] = vector.get(i);
    }
  }
}

// Where a band is.
struct Band {
  int32_t plane, patch_row, in_patch;  // counted from the patch's first one
};

// A thread's elements of a band.
template <class Element, bool kAligned, class IsHidden>
__device__ void normalize_vector(const NormalizeArgs& all, int64_t image, const Band& band, int32_t in_row,
                                 IsHidden is_hidden) {
  using Result = std::conditional_t<std::is_same<Element, uint8_t>::value, float, Element>;
  const PatchMaskArgs& args = all.mask;
  const int32_t step = kAligned ? 1 : kApart;
  const int32_t first = kAligned ? in_row * kVector : in_row / kApart * (kApart * kVector) + in_row % kApart;

  float scale[kVector], bias[kVector];
  Vector<Result> fill;
  bool hidden[kVector], any_visible = false;
  int inside = 0;
#pragma unroll
  for (int i = 0; i < kVector; ++i) {
    uint32_t x = min(first + i * step, all.row_elements - 1);
    const int32_t channel = band.plane + all.channels.split(x);
    inside += first + i * step < all.row_elements;
    scale[i] = args.scale[channel], bias[i] = args.bias[channel];
    fill.set(i, from_float<Result>(args.fill[channel]));
    hidden[i] = is_hidden(band.patch_row, all.patch_size.quotient(x));
    any_visible |= !hidden[i];
  }

  const int32_t patch_top = band.patch_row * args.patch_size, top = patch_top + band.in_patch * kRows<Element>;
  const int32_t rows = min(min(patch_top + args.patch_size, args.height) - top, kRows<Element>);
  const int64_t plane = image * all.planes + band.plane;
  const int64_t start = (plane * args.height + top) * all.row_elements + first;
  const Element* images = static_cast<const Element*>(args.images) + start;
  Result* output = static_cast<Result*>(args.output) + start;
  Vector<Element> read[kRows<Element>] = {};
#pragma unroll
  for (int r = 0; r < kRows<Element>; ++r) {
    if (r < rows && any_visible) {
      read[r] = load<kAligned>(images + static_cast<int64_t>(r) * all.row_elements, step, inside);
    }
  }
#pragma unroll
  for (int r = 0; r < kRows<Element>; ++r) {
    if (r >= rows) break;
    Vector<Result> result = fill;
#pragma unroll
    for (int i = 0; i < kVector; ++i) {
      const float value = fmaf(to_float(read[r].get(i)), scale[i], bias[i]);
      if (!hidden[i]) result.set(i, from_float<Result>(value));
    }
    store<kAligned>(output + static_cast<int64_t>(r) * all.row_elements, step, inside, result);
  }
}

template <class Element, bool kAligned, bool kManyPatches>
__global__ void __launch_bounds__(kBlockThreads) normalize(const __grid_constant__ NormalizeArgs all) {
  __shared__ PatchRanks ranks;
  const PatchMaskArgs& args = all.mask;
  uint32_t index = blockIdx.x;
  int64_t place = int64_t{all.blocks_an_image.split(index)} * all.bands_a_block;
  const int64_t image = all.first_image + index;
  const auto bands = static_cast<int32_t>(min(all.bands - place, int64_t{all.bands_a_block}));
  Band first;
  first.in_patch = all.bands_a_patch.split(place);
  first.patch_row = all.patch_rows.split(place);
  first.plane = static_cast<int32_t>(place);

  bool* grid = args.grid + image * args.rows * args.columns;
  if constexpr (!kManyPatches) {
    const auto last_row = static_cast<int32_t>(all.bands_a_patch.quotient(first.in_patch + bands - 1));
    const int32_t patch_rows = min(last_row + 1, args.rows);
    const int32_t patch = first.patch_row * args.columns, patches = patch_rows * args.columns;
    rank_patches(args, image, patch, patches, ranks);
    // The block that has the first band of a patch writes the grid.
    const int32_t end = first.plane > 0 ? 0 : min(patch + patches, args.rows * args.columns);
    for (int i = patch + (first.in_patch > 0) * args.columns + threadIdx.x; i < end; i += kBlockThreads) {
      grid[i] = ranks.hidden[i];
    }
  }
  const auto is_hidden = [&](int32_t row, int32_t column) -> bool {
    return kManyPatches ? grid[int64_t{row} * args.columns + column] : ranks.hidden[row * args.columns + column];
  };

  const uint32_t vectors = bands * all.threads_a_row.divisor;
  for (uint32_t vector = threadIdx.x; vector < vectors; vector += kBlockThreads) {
    uint32_t row = vector;
    const int32_t in_row = all.threads_a_row.split(row);
    Band band = first;
    row += first.in_patch;
    band.in_patch = all.bands_a_patch.split(row);
    row += first.patch_row;
    band.patch_row = all.patch_rows.split(row);
    band.plane += row;
    normalize_vector<Element, kAligned>(all, image, band, in_row, is_hidden);
  }
}

// Thread blocks an image: one a multiprocessor in all, as each finds hidden patches anew; where these would leave too
// many idle, four times as many. None has more than kMostVectors, so that the last ones end together.
int64_t blocks_an_image(int64_t images, int64_t vectors) {
  constexpr int64_t kMostVectors = 32 * kBlockThreads;
  const int64_t multiprocessors = std::max(current_device().multiprocessors, 1);
  int64_t blocks = multiprocessors / images;
  if (8 * blocks * images < 7 * multiprocessors) blocks = ceil_div(4 * multiprocessors, images);
  return std::min(std::max(blocks, ceil_div(vectors, kMostVectors)), ceil_div(vectors, kBlockThreads));
}

template <class Element, bool kManyPatches>
cudaError_t launch_normalize(const PatchMaskArgs& args, cudaStream_t stream) {
  const int32_t channels = args.channels_last ? args.channels : 1, planes = args.channels / channels;
  const int64_t row_elements = int64_t{args.width} * channels;
  const auto bands_a_patch = static_cast<int32_t>(ceil_div(std::min(args.patch_size, args.height), kRows<Element>));
  const bool aligned =
      row_elements % kVector == 0 && reinterpret_cast<uintptr_t>(args.images) % sizeof(Vector<Element>) == 0;
  const auto threads_a_row =
      static_cast<int32_t>(aligned ? row_elements / kVector : ceil_div(row_elements, kApart * kVector) * kApart);
  const auto kernel = aligned ? normalize<Element, true, kManyPatches> : normalize<Element, false, kManyPatches>;
  const int64_t bands = int64_t{planes} * args.rows * bands_a_patch;
  const int64_t bands_a_block = ceil_div(bands, blocks_an_image(args.count, bands * threads_a_row));
  const int64_t blocks = ceil_div(bands, bands_a_block);
  NormalizeArgs all{args,
                    0,
                    bands,
                    static_cast<int32_t>(bands_a_block),
                    static_cast<int32_t>(row_elements),
                    planes,
                    Divider(static_cast<int32_t>(blocks)),
                    Divider(threads_a_row),
                    Divider(bands_a_patch),
                    Divider(args.rows),
                    Divider(args.patch_size),
                    Divider(channels)};
  const int64_t images_a_launch = std::max<int64_t>(INT32_MAX / blocks, 1);  // all but always
  for (; all.first_image < args.count; all.first_image += images_a_launch) {
    const int64_t images = std::min(images_a_launch, args.count - all.first_image);
    const cudaError_t error = launch(kernel, images * blocks, kBlockThreads, 0, stream, all);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

template <class Element>
cudaError_t launch_kernels(const PatchMaskArgs& args, cudaStream_t stream) {
  if (int64_t{args.rows} * args.columns <= kKept) return launch_normalize<Element, false>(args, stream);
  const cudaError_t error = launch(hide_patches, args.count, kBlockThreads, 0, stream, args);
  return error == cudaSuccess ? launch_normalize<Element, true>(args, stream) : error;
}

}  // namespace

cudaError_t launch_patch_mask(const PatchMaskArgs& args, cudaStream_t stream) {
  if (args.count == 0) return cudaSuccess;
  switch (args.type) {
    case ElementType::kUint8:
      return launch_kernels<uint8_t>(args, stream);
    case ElementType::kHalf:
      return launch_kernels<__half>(args, stream);
    case ElementType::kBFloat16:
      return launch_kernels<__nv_bfloat16>(args, stream);
    default:
      return launch_kernels<float>(args, stream);
  }
}

}  // namespace maskmatch::cuda
