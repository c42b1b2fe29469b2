// Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011): the same bits as
// maskmatch/ops/philox.py.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define MASKMATCH_HOST_DEVICE __host__ __device__
#else
#define MASKMATCH_HOST_DEVICE
#endif

namespace maskmatch {

// The fourth counter word of each use, so that no two uses of one seed meet.
constexpr uint32_t kUniformDomain = 0;
constexpr uint32_t kPatchMaskDomain = 1;

struct PhiloxWords {
  uint32_t word[4];
};

MASKMATCH_HOST_DEVICE inline PhiloxWords philox4x32(uint64_t seed, uint64_t counter, uint32_t stream, uint32_t domain) {
  uint32_t key0 = static_cast<uint32_t>(seed), key1 = static_cast<uint32_t>(seed >> 32);
  uint32_t word0 = static_cast<uint32_t>(counter), word1 = static_cast<uint32_t>(counter >> 32);
  uint32_t word2 = stream, word3 = domain;
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = uint64_t{0xD2511F53} * word0;
    const uint64_t product1 = uint64_t{0xCD9E8D57} * word2;
    word0 = static_cast<uint32_t>(product1 >> 32) ^ word1 ^ key0;
    word1 = static_cast<uint32_t>(product1);
    word2 = static_cast<uint32_t>(product0 >> 32) ^ word3 ^ key1;
    word3 = static_cast<uint32_t>(product0);
    key0 += 0x9E3779B9;
    key1 += 0xBB67AE85;
  }
  return {{word0, word1, word2, word3}};
}

// The numbers 4 group to 4 group + 3 of a row of `uniform`, as far as the row has them.
MASKMATCH_HOST_DEVICE inline void draw_uniform(int64_t seed, int64_t group, uint32_t stream, int64_t count,
                                               float* row) {
  const PhiloxWords words = philox4x32(static_cast<uint64_t>(seed), group, stream, kUniformDomain);
  for (int64_t i = 0; i < 4 && 4 * group + i < count; ++i) {
    row[4 * group + i] = static_cast<float>(words.word[i] >> 8) * 0x1p-24f;
  }
}

}  // namespace maskmatch
