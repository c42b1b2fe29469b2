// upsample_cross_entropy on CUDA: checks, allocates, launches; the arithmetic is in upsample_cross_entropy.cu.
#include "upsample_cross_entropy.cuh"

#include "../common/cross_entropy_checks.h"
#include "../operators.h"
#include "device.h"

namespace maskmatch::cuda {
namespace {

// `args` comes with mode and outputs set, and with grad_output and log_sum where the mode reads them.
void run(CrossEntropyArgs args, Tensor logits, Tensor target, OptionalTensor confidence, double threshold,
         OptionalTensor pixel_weight, OptionalTensor class_weight, int64_t ignore_index, double label_smoothing,
         bool align_corners) {
  logits = torch::stable::contiguous(logits);
  target = torch::stable::contiguous(target);
  args.type = element_type(logits);
  args.logits = logits.const_data_ptr();
  args.count = logits.size(0);
  args.classes = static_cast<int>(logits.size(1));
  args.rows = bilinear(logits.size(2), target.size(1), align_corners);
  args.columns = bilinear(logits.size(3), target.size(2), align_corners);
  args.target = target.const_data_ptr();
  args.target_is_uint8 = target.scalar_type() == ScalarType::Byte;
  args.ignore_index = ignore_index;
  args.confidence = data_or_null(confidence);
  args.threshold = static_cast<float>(threshold);
  args.pixel_weight = data_or_null(pixel_weight);
  args.class_weight = data_or_null(class_weight);
  args.label_smoothing = static_cast<float>(label_smoothing);
  const int64_t blocks = args.mode == LossMode::kGradient ? 0 : loss_blocks(args);
  Tensor totals = torch::stable::empty({blocks * static_cast<int64_t>(sizeof(LossTotals))}, ScalarType::Byte,
                                       std::nullopt, logits.device());
  args.block_totals = static_cast<LossTotals*>(totals.mutable_data_ptr());
  STD_CUDA_CHECK(launch_upsample_cross_entropy(args, current_stream(logits)));
}

}  // namespace

std::tuple<Tensor, Tensor, Tensor> upsample_cross_entropy(Tensor logits, Tensor target, OptionalTensor confidence,
                                                          double threshold, OptionalTensor pixel_weight,
                                                          OptionalTensor class_weight, int64_t ignore_index,
                                                          double label_smoothing, bool align_corners, bool per_pixel,
                                                          bool with_gradient) {
  check_cross_entropy(logits, target, confidence, pixel_weight, class_weight, label_smoothing);
  const DeviceGuard guard(logits.get_device_index());
  auto [loss, counts, saved] = new_cross_entropy(logits, target, per_pixel, with_gradient);
  CrossEntropyArgs args{};
  args.mode = with_gradient && !per_pixel ? LossMode::kLossAndGradient : LossMode::kLoss;
  (per_pixel ? args.pixel_loss : args.loss) = loss.mutable_data_ptr<float>();
  args.counts = counts.mutable_data_ptr<int64_t>();
  if (with_gradient && per_pixel) args.log_sum = saved.mutable_data_ptr<float>();
  if (with_gradient && !per_pixel) args.gradient = saved.mutable_data_ptr();
  run(args, logits, target, confidence, threshold, pixel_weight, class_weight, ignore_index, label_smoothing,
      align_corners);
  return {loss, counts, saved};
}

Tensor upsample_cross_entropy_backward(Tensor grad_output, Tensor logits, Tensor target, Tensor log_sum,
                                       OptionalTensor confidence, double threshold, OptionalTensor pixel_weight,
                                       OptionalTensor class_weight, int64_t ignore_index, double label_smoothing,
                                       bool align_corners) {
  check_cross_entropy(logits, target, confidence, pixel_weight, class_weight, label_smoothing);
  check_map("grad_output", grad_output, target);
  check_map("log_sum", log_sum, target);
  const DeviceGuard guard(logits.get_device_index());
  grad_output = torch::stable::contiguous(grad_output);
  log_sum = torch::stable::contiguous(log_sum);
  Tensor gradient = torch::stable::empty(logits.sizes(), logits.scalar_type(), std::nullopt, logits.device());
  CrossEntropyArgs args{};
  args.mode = LossMode::kGradient;
  args.grad_output = grad_output.const_data_ptr<float>();
  args.log_sum = const_cast<float*>(log_sum.const_data_ptr<float>());
  args.gradient = gradient.mutable_data_ptr();
  run(args, logits, target, confidence, threshold, pixel_weight, class_weight, ignore_index, label_smoothing,
      align_corners);
  return gradient;
}

}  // namespace maskmatch::cuda
