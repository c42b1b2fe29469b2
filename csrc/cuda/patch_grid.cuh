// Which patches of an image patch_mask hides: those with the `hidden` lowest keys. A thread block that needs some of
// them finds these by itself, so that it waits for no other; of images with more patches than it can keep the keys of,
// a kernel finds all before.
#pragma once

#include "kernel.cuh"
#include "patch_mask.cuh"

namespace maskmatch::cuda {
namespace {

constexpr int kKept = 4096;  // patches whose keys a block keeps
constexpr int kBlockThreads = 1024;
constexpr int kBlockWarps = kBlockThreads / 32;

__device__ inline int warp_sum(int value) {
  for (int lanes = 16; lanes > 0; lanes /= 2) value += __shfl_xor_sync(~0u, value, lanes);
  return value;
}

// What a block needs to find hidden patches; in shared memory.
struct PatchRanks {
  static constexpr int kGroups = 64;  // of keys, by their highest bits: there are no more in Bayer's matrix
  uint32_t keys[kKept];
  int group_sizes[kGroups];
  int hidden[kKept];
};

// Ranks the patches first, ..., first + count - 1, of which those past the last one are the first ones again, and
// leaves in `ranks.hidden` which of them are hidden. A warp has a patch at a time: it sums up the keys in lower groups,
// and compares key by key where the last hidden one is in the patch's own group.
__device__ inline void rank_patches(const PatchMaskArgs& args, int64_t image, int first, int count, PatchRanks& ranks) {
  const int patches = args.rows * args.columns, hidden = static_cast<int>(args.hidden);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const PatchKeys keys = patch_keys(args.strategy, args.seeds[image], args.rows, args.columns);
  const int shift = args.strategy == Strategy::kGrid ? 0 : 26;
  if (threadIdx.x < PatchRanks::kGroups) ranks.group_sizes[threadIdx.x] = 0;
  __syncthreads();
  for (int patch = threadIdx.x; patch < patches; patch += kBlockThreads) {
    const uint32_t key = patch_key(keys, patch);
    ranks.keys[patch] = key;
    atomicAdd(ranks.group_sizes + (key >> shift), 1);
  }
  __syncthreads();
  for (int i = warp; i < count; i += kBlockWarps) {
    const int patch = first + i < patches ? first + i : first + i - patches;
    const uint32_t key = ranks.keys[patch];
    const int group = key >> shift;
    int lower = 0;
    for (int other = lane; other < group; other += 32) lower += ranks.group_sizes[other];
    lower = warp_sum(lower);
    if (lower < hidden && hidden < lower + ranks.group_sizes[group]) {
      lower = 0;
      for (int other = lane; other < patches; other += 32) {
        lower += distinct_key(ranks.keys[other], other) < distinct_key(key, patch);
      }
      lower = warp_sum(lower);
    }
    if (lane == 0) ranks.hidden[patch] = lower < hidden;
  }
  __syncthreads();
}

// The kernel has a block an image. It finds the lowest key that is not hidden, a digit at a time from the highest on:
// it counts the keys that agree so far by their next digit, and takes the digit at which enough of them are lower.
constexpr int kDigitBits = 8, kDigits = 1 << kDigitBits;
__global__ void __launch_bounds__(kBlockThreads) hide_patches(const __grid_constant__ PatchMaskArgs args) {
  __shared__ uint32_t kept[kKept];
  __shared__ int agreeing[kDigits];
  __shared__ int shared_digit, shared_wanted;
  const int64_t image = blockIdx.x, patches = static_cast<int64_t>(args.rows) * args.columns;
  const PatchKeys keys = patch_keys(args.strategy, args.seeds[image], args.rows, args.columns);
  const auto key_of = [&](int64_t patch) {
    return distinct_key(patch < kKept ? kept[patch] : patch_key(keys, patch), patch);
  };
  for (int64_t patch = threadIdx.x; patch < patches && patch < kKept; patch += kBlockThreads) {
    kept[patch] = patch_key(keys, patch);  // which the same thread reads
  }

  uint64_t first_visible = 0;  // its digits so far
  int shift = 64;
  int wanted = static_cast<int>(args.hidden);  // of those that agree with them: how many are hidden
  while (wanted > 0 && wanted < patches) {
    shift -= kDigitBits;
    if (threadIdx.x < kDigits) agreeing[threadIdx.x] = 0;
    __syncthreads();
    for (int64_t patch = threadIdx.x; patch < patches; patch += kBlockThreads) {
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
  for (int64_t patch = threadIdx.x; patch < patches; patch += kBlockThreads) {
    args.grid[image * patches + patch] = wanted > 0 || (shift < 64 && key_of(patch) >> shift < first_visible);
  }
}

}  // namespace
}  // namespace maskmatch::cuda
