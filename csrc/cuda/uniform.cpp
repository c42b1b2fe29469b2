// uniform on CUDA: checks, allocates, launches; the arithmetic is in uniform.cu.
#include "uniform.cuh"

#include "../common/uniform_checks.h"
#include "../operators.h"
#include "device.h"

namespace maskmatch::cuda {

Tensor uniform(Tensor seeds, int64_t count, int64_t stream) {
  const DeviceGuard guard(seeds.get_device_index());
  auto [row_seeds, output] = uniform_tensors(seeds, count, stream);
  const UniformArgs args{row_seeds.const_data_ptr<int64_t>(), seeds.size(0), count, static_cast<uint32_t>(stream),
                         output.mutable_data_ptr<float>()};
  STD_CUDA_CHECK(launch_uniform(args, current_stream(seeds)));
  return output;
}

}  // namespace maskmatch::cuda
