// The tile of a thread block in the fast form of multiscale_pseudo_label, and what it keeps of it in shared memory: how
// rows and columns read the logits, and the logits themselves, less the highest class of their element.
#pragma once

#include "pseudo_label_series.h"

namespace maskmatch::cuda {
namespace {  // each file that includes this has its own

constexpr float kDeep = -100;     // logits further below the highest count as hidden,
constexpr float kHidden = -1e4f;  // which is the log2 of no power
constexpr float kMinusInfinity = -3.4e38f;
constexpr int kLongestSeries = 16;  // steps after which rounding is forgotten

// Blocks that a multiprocessor shall have registers for. With 63 powers a thread three fit barely, and not everywhere.
constexpr int blocks_of(int powers, int lanes) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000
  constexpr bool kBarely = false;
#else
  constexpr bool kBarely = true;
#endif
  return powers <= 57 || (kBarely && lanes == 1) ? 3 : 2;
}

// How threads, pixels and classes lie in a block.
template <int kOwn, int kLanes>
struct SeriesShape {
  static constexpr int kWarpsAcross = kLanes <= 2 ? 2 : 4, kWarpsDown = 4 / kWarpsAcross;
  static constexpr int kThreads = 128;
  static constexpr int kColumns = kWarpsAcross * 32 / kLanes;  // of a tile
  // Floats of a staged element: each lane's classes, and where there are several lanes, their highest.
  static constexpr int kChunk = (kOwn + (kLanes > 1) + 3) / 4 * 4;
  static constexpr int kPitch = kLanes == 1 ? kChunk : kLanes * kChunk + 4;
};

struct SeriesTile {
  int64_t image;
  int32_t top, left, bottom, right;  // pixels, ends excluded

  __device__ SeriesTile(const SeriesArgs& args, int32_t rows, int32_t columns) {
    const int32_t tiles = args.down * args.across, tile = static_cast<int32_t>(blockIdx.x % tiles);
    image = blockIdx.x / tiles;
    top = tile / args.across * rows;
    left = tile % args.across * columns;
    bottom = top + rows < args.labels.height ? top + rows : args.labels.height;
    right = left + columns < args.labels.width ? left + columns : args.labels.width;
  }
};

// The elements of each scale that a tile reads. One more row and column than there are repeats the last.
template <int kScales>
struct Windows {
  int32_t row[kScales], column[kScales], height[kScales], width[kScales], first[kScales + 1];

  __device__ Windows(const SeriesArgs& args, const SeriesTile& tile) {
    first[0] = 0;
#pragma unroll
    for (int s = 0; s < kScales; ++s) {
      first[s + 1] = first[s];
      row[s] = column[s] = height[s] = width[s] = 0;
      if (s >= args.labels.scale_count) continue;
      const bool flipped = args.labels.scales[s].flipped;
      const int32_t left = flipped ? args.labels.width - tile.right : tile.left;
      row[s] = args.rows[s].sample(tile.top).low;
      column[s] = args.columns[s].sample(left).low;
      height[s] = args.rows[s].sample(tile.bottom - 1).low + 2 - row[s];
      width[s] = args.columns[s].sample(left + tile.right - tile.left - 1).low + 2 - column[s];
      first[s + 1] = first[s] + height[s] * width[s];
    }
  }
  __device__ int32_t elements() const { return first[kScales]; }
};

// For each scale and row of the tile: the input row above it in the window, complemented where the series goes on.
template <int kScales>
struct SeriesRows {
  int32_t rows;  // of the tile
  int32_t* code;
  float *fraction, *step;  // [kScales, rows]

  __device__ SeriesRows(float* shared, int32_t rows)
      : rows(rows),
        code(reinterpret_cast<int32_t*>(shared)),
        fraction(shared + kScales * rows),
        step(fraction + kScales * rows) {}

  __device__ void fill(const SeriesArgs& args, const SeriesTile& tile, const Windows<kScales>& windows) {
    const int32_t all = args.labels.scale_count * rows;
    for (int32_t i = threadIdx.x; i < all; i += blockDim.x) {
      int32_t s = 0, r = i, top = windows.row[0];
#pragma unroll
      for (int k = 1; k < kScales; ++k) {
        if (i >= k * rows) s = k, r = i - k * rows, top = windows.row[k];
      }
      const SeriesAxis& axis = args.rows[s];
      const int32_t y = min(tile.top + r, axis.output_size - 1),
                    strip_top = tile.top + r / args.strip_rows * args.strip_rows;
      const Sample sample = axis.sample(y);
      const bool before = axis.before(y);
      const int32_t first = before ? 0 : axis.first_output(sample.low);
      const bool begins = (y - max(first, strip_top)) % kLongestSeries == 0;
      code[i] = begins ? sample.low - top : ~(sample.low - top);
      fraction[i] = sample.fraction;
      step[i] = before ? 0 : static_cast<float>(axis.scale) * axis.inverse;
    }
  }
};

// Of numbers that count a tile's elements: below 2**20, where half a unit hides the rounding.
__device__ inline int32_t quotient_of(int32_t number, int32_t by) {
  return static_cast<int32_t>(__fdividef(static_cast<float>(number) + 0.5f, static_cast<float>(by)));
}

// Bits of a half-precision logit of either kind.
__device__ inline float logit_of(float value, ElementType) { return value; }
__device__ inline float logit_of(uint16_t bits, ElementType type) {
  if (type == ElementType::kBFloat16) return __int_as_float(static_cast<int>(bits) << 16);
  return __half2float(__ushort_as_half(bits));
}

// Reads kOwn classes of an element from `first` on and gives their highest. Those past the last class repeat it.
template <int kOwn, class Bits, int kCount>
__device__ float read_classes(const Bits* logits, ElementType type, int32_t plane, int first, int classes,
                              float (&values)[kCount]) {
  const int last = classes - 1, left = max(last - first, 0);
  const char* bytes = reinterpret_cast<const char*>(logits + static_cast<int64_t>(min(first, last)) * plane);
  const uint32_t stride = plane * static_cast<uint32_t>(sizeof(Bits));
#pragma unroll
  for (int i = 0; i < kOwn; ++i) {  // an address is one instruction
    const uint64_t offset = static_cast<uint64_t>(static_cast<uint32_t>(min(i, left))) * stride;
    values[i] = logit_of(*reinterpret_cast<const Bits*>(bytes + offset), type);
  }
  float highest = kLowest;
#pragma unroll
  for (int i = 0; i < kOwn; ++i) highest = fmaxf(highest, values[i]);
  return highest;
}

// Makes log2 of powers of them and gives the lowest.
template <int kOwn, int kCount>
__device__ float to_powers(float (&values)[kCount], float highest) {
  const float shift = -highest * kLog2E;  // its rounding is the same for all classes
  float lowest = 0;
#pragma unroll
  for (int i = 0; i < kOwn; ++i) {
    values[i] = fmaf(values[i], kLog2E, shift);
    lowest = fminf(lowest, values[i]);
  }
  return lowest;
}

// Hides what is deep of a staged chunk, given its lowest, and what is past the last class; whether any was deep.
template <int kOwn>
__device__ bool hide_classes(float* chunk, float lowest, int first, int classes) {
  const bool any_deep = lowest < kDeep;
  if (any_deep || first + kOwn > classes) {
#pragma unroll 1  // it is rare
    for (int i = 0; i < kOwn; ++i) {
      const bool deep = chunk[i] < kDeep && chunk[i] > kMinusInfinity;
      if (deep || first + i >= classes) chunk[i] = kHidden;
    }
  }
  return any_deep;
}

// The windows' elements in shared memory: of each the classes of every lane, and with several lanes their highest.
template <int kScales, int kOwn, int kLanes>
class Elements {
  using Shape = SeriesShape<kOwn, kLanes>;
  static constexpr int kChunk = Shape::kChunk;

 public:
  __device__ Elements(float* floats, const Windows<kScales>& windows) : floats_(floats), windows_(windows) {}

  // For the whole block; ends with a barrier. Whether a tile has classes that are hidden here and not there.
  __device__ bool fill(const SeriesArgs& args, const SeriesTile& tile) {
    bool any_hidden = args.labels.type == ElementType::kFloat ? stage<float>(args, tile) : stage<uint16_t>(args, tile);
    if (kLanes > 1) {
      __syncthreads();
      any_hidden = finish(args.labels.classes);
    }
    return __syncthreads_or(any_hidden) && __syncthreads_or(hidden_in_places(args.labels.classes));
  }

 private:
  __device__ float* chunk(int32_t element, int32_t lane) const {
    return floats_ + element * Shape::kPitch + lane * kChunk;
  }

  template <class Bits>
  __device__ bool stage(const SeriesArgs& args, const SeriesTile& tile) {
    const PseudoLabelArgs& labels = args.labels;
    bool any_hidden = false;
#pragma unroll 1
    for (int32_t item = threadIdx.x; item < windows_.elements() * kLanes; item += Shape::kThreads) {
      const int32_t lane = kLanes == 1 ? 0 : quotient_of(item, windows_.elements());
      const int32_t element = item - lane * windows_.elements();
      int s = 0;
      int32_t first = 0, row = windows_.row[0], column = windows_.column[0], width = windows_.width[0];
#pragma unroll
      for (int k = 1; k < kScales; ++k) {
        if (k < args.labels.scale_count && element >= windows_.first[k]) {
          s = k, first = windows_.first[k], width = windows_.width[k];
          row = windows_.row[k], column = windows_.column[k];
        }
      }
      const int32_t height = args.rows[s].input_size, row_floats = args.columns[s].input_size;
      const int32_t down = quotient_of(element - first, width);
      const int32_t y = row + down, x = column + element - first - down * width;
      const int32_t plane = height * row_floats;
      const Bits* logits = static_cast<const Bits*>(labels.scales[s].logits) + tile.image * labels.classes * plane;
      logits += (y < height ? y : height - 1) * row_floats + (x < row_floats ? x : row_floats - 1);
      float values[kChunk];
      const float highest = read_classes<kOwn>(logits, labels.type, plane, lane * kOwn, labels.classes, values);
      const float lowest = kLanes == 1 ? to_powers<kOwn>(values, highest) : 0;
#pragma unroll
      for (int i = kOwn; i < kChunk; ++i) values[i] = highest;
      float* own = chunk(element, lane);
#pragma unroll
      for (int i = 0; i < kChunk; i += 4) store4(own + i, values + i);
      if (kLanes == 1) any_hidden |= hide_classes<kOwn>(own, lowest, 0, labels.classes);
    }
    return any_hidden;
  }

  // With several lanes: the second half of the work, when all classes of an element are there.
  __device__ bool finish(int classes) {
    bool any_hidden = false;
#pragma unroll 1
    for (int32_t item = threadIdx.x; item < windows_.elements() * kLanes; item += Shape::kThreads) {
      const int32_t element = item / kLanes, lane = item % kLanes, first = lane * kOwn;
      float highest = chunk(element, 0)[kOwn];
#pragma unroll
      for (int i = 1; i < kLanes; ++i) highest = fmaxf(highest, chunk(element, i)[kOwn]);
      float* own = chunk(element, lane);
      float values[kChunk];
#pragma unroll
      for (int i = 0; i < kOwn; i += 4) load4(own + i, values + i);
      const float lowest = to_powers<kOwn>(values, highest);
#pragma unroll
      for (int i = 0; i + 4 <= kOwn; i += 4) store4(own + i, values + i);
#pragma unroll
      for (int i = kOwn / 4 * 4; i < kOwn; ++i) own[i] = values[i];  // the highest is still read
      any_hidden |= hide_classes<kOwn>(own, lowest, first, classes);
    }
    return any_hidden;
  }

  // Whether one of the thread's classes is hidden in some elements and not in others, or -inf anywhere.
  __device__ bool hidden_in_places(int classes) const {
    bool found = false;
    for (int c = threadIdx.x; c < classes; c += Shape::kThreads) {
      int32_t hidden = 0;
      for (int32_t element = 0; element < windows_.elements(); ++element) {
        const float value = chunk(element, c / kOwn)[c % kOwn];
        hidden += value == kHidden;
        found |= value < kHidden;
      }
      found |= hidden > 0 && hidden < windows_.elements();
    }
    return found;
  }

  float* floats_;
  const Windows<kScales>& windows_;
};

}  // namespace
}  // namespace maskmatch::cuda
