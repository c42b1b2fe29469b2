// uniform on the CPU: so few numbers in all that one thread draws them.
#include "../common/philox.h"
#include "../common/uniform_checks.h"
#include "../operators.h"

namespace maskmatch::cpu {

Tensor uniform(Tensor seeds, int64_t count, int64_t stream) {
  auto [row_seeds, output] = uniform_tensors(seeds, count, stream);
  const int64_t* seed = row_seeds.const_data_ptr<int64_t>();
  float* numbers = output.mutable_data_ptr<float>();
  for (int64_t n = 0; n < seeds.size(0); ++n) {
    for (int64_t group = 0; 4 * group < count; ++group) {
      draw_uniform(seed[n], group, static_cast<uint32_t>(stream), count, numbers + n * count);
    }
  }
  return output;
}

}  // namespace maskmatch::cpu
