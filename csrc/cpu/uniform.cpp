// uniform on the CPU: four numbers a counter, so few in all that one thread draws them.
#include "../common/checks.h"
#include "../common/philox.h"
#include "../operators.h"

#include <limits>

namespace maskmatch::cpu {

Tensor uniform(Tensor seeds, int64_t count, int64_t stream) {
  check_shape("seeds", seeds, {-1});
  check_dtype("seeds", seeds, {ScalarType::Long});
  check_range("count", static_cast<double>(count), 0, std::numeric_limits<int32_t>::max());
  check_range("stream", static_cast<double>(stream), 0, std::numeric_limits<uint32_t>::max());
  const Tensor keys = torch::stable::contiguous(seeds);
  Tensor output = torch::stable::empty({seeds.size(0), count}, ScalarType::Float, std::nullopt, seeds.device());
  const int64_t* key = keys.const_data_ptr<int64_t>();
  float* row = output.mutable_data_ptr<float>();
  for (int64_t n = 0; n < seeds.size(0); ++n, row += count) {
    PhiloxWords words{};
    for (int64_t i = 0; i < count; ++i) {
      if (i % 4 == 0) {
        words = philox4x32(static_cast<uint64_t>(key[n]), i / 4, static_cast<uint32_t>(stream), kUniformDomain);
      }
      row[i] = static_cast<float>(words.word[i % 4] >> 8) * 0x1p-24f;
    }
  }
  return output;
}

}  // namespace maskmatch::cpu
