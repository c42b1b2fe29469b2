// Which patches patch_mask hides: those with the lowest keys. maskmatch/ops/reference.py defines the strategies.
#pragma once

#include "philox.h"

namespace maskmatch {

enum class Strategy { kRandom, kBlock, kGrid };

constexpr uint32_t kKeyStream = 0;
constexpr uint32_t kOffsetStream = 1;

// What an image's keys share.
struct PatchKeys {
  Strategy strategy;
  uint64_t seed;
  int64_t columns;
  int64_t side;           // of a block, in patches
  int64_t blocks_across;  // more than fit, so that block numbers are distinct
  int64_t row_offset, column_offset;
};

MASKMATCH_HOST_DEVICE inline PatchKeys patch_keys(Strategy strategy, int64_t seed, int64_t rows, int64_t columns) {
  PatchKeys keys{strategy, static_cast<uint64_t>(seed), columns, 1, 0, 0, 0};
  if (strategy == Strategy::kRandom) return keys;
  const PhiloxWords offsets = philox4x32(keys.seed, 0, kOffsetStream, kPatchMaskDomain);
  if (strategy == Strategy::kBlock) {
    const int64_t quarter = ((rows < columns ? rows : columns) + 3) / 4;
    keys.side = quarter < 2 ? 2 : quarter;
    keys.blocks_across = (columns + keys.side - 1) / keys.side + 1;
    keys.row_offset = offsets.word[0] % keys.side;
    keys.column_offset = offsets.word[1] % keys.side;
  } else {
    keys.row_offset = offsets.word[0] & 7;
    keys.column_offset = offsets.word[1] & 7;
  }
  return keys;
}

// The key of one patch; `patch` is its row-major index.
MASKMATCH_HOST_DEVICE inline uint32_t patch_key(const PatchKeys& keys, int64_t patch) {
  if (keys.strategy == Strategy::kRandom) {
    return philox4x32(keys.seed, static_cast<uint64_t>(patch), kKeyStream, kPatchMaskDomain).word[0];
  }
  const int64_t row = patch / keys.columns + keys.row_offset;
  const int64_t column = patch % keys.columns + keys.column_offset;
  if (keys.strategy == Strategy::kBlock) {
    const int64_t block = row / keys.side * keys.blocks_across + column / keys.side;
    return philox4x32(keys.seed, static_cast<uint64_t>(block), kKeyStream, kPatchMaskDomain).word[0];
  }
  uint32_t key = 0;  // Bayer's 8 x 8 matrix
  for (int bit = 0; bit < 3; ++bit) {
    const uint32_t low_row = (row >> bit) & 1, low_column = (column >> bit) & 1;
    key = key * 4 + (low_row ^ low_column) * 2 + low_row;
  }
  return key;
}

// Keys made distinct by the index, which also settles ties in favour of the lower one. Patches are fewer than 2**31.
MASKMATCH_HOST_DEVICE inline uint64_t distinct_key(uint32_t key, int64_t patch) {
  return static_cast<uint64_t>(key) << 31 | static_cast<uint64_t>(patch);
}

}  // namespace maskmatch
