// upsample_cross_entropy on CUDA: completes the kernels' arguments and launches; the arithmetic is in
// upsample_cross_entropy.cu.
#include "upsample_cross_entropy.cuh"

#include "../operators.h"
#include "device.h"

namespace maskmatch::cuda {

void run_cross_entropy(LossInputs inputs, LossBuffers& buffers) {
  const DeviceGuard guard(inputs.logits.get_device_index());
  CrossEntropyArgs args{};
  fill(args, inputs, buffers);
  args.rows = bilinear(inputs.logits.size(2), inputs.target.size(1), inputs.align_corners);
  args.columns = bilinear(inputs.logits.size(3), inputs.target.size(2), inputs.align_corners);
  const int64_t blocks = args.mode == LossMode::kGradient ? 0 : loss_blocks(args);
  Tensor totals = torch::stable::empty({blocks * static_cast<int64_t>(sizeof(LossTotals))}, ScalarType::Byte,
                                       std::nullopt, inputs.logits.device());
  args.totals = static_cast<LossTotals*>(totals.mutable_data_ptr());
  STD_CUDA_CHECK(launch_upsample_cross_entropy(args, current_stream(inputs.logits)));
}

}  // namespace maskmatch::cuda
