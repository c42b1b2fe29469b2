// multiscale_pseudo_label on CUDA: checks, allocates, launches; the arithmetic is in multiscale_pseudo_label.cu.
#include "multiscale_pseudo_label.cuh"

#include "../common/pseudo_label_checks.h"
#include "../operators.h"
#include "device.h"

namespace maskmatch::cuda {

std::tuple<Tensor, Tensor> multiscale_pseudo_label(std::vector<Tensor> logits, int64_t height, int64_t width,
                                                   std::vector<int64_t> flipped, std::vector<double> weights,
                                                   std::string average, bool align_corners) {
  check_pseudo_label(logits, height, width, flipped, weights, average);
  if (logits.size() > kMaxScales) fail("there may be up to ", kMaxScales, " scales on CUDA, got ", logits.size());
  const DeviceGuard guard(logits[0].get_device_index());
  auto [label, confidence] = new_pseudo_label(logits[0], height, width);

  PseudoLabelArgs args{};
  args.scale_count = static_cast<int>(logits.size());
  args.type = element_type(logits[0]);
  args.count = logits[0].size(0);
  args.classes = static_cast<int>(logits[0].size(1));
  args.height = static_cast<int>(height);
  args.width = static_cast<int>(width);
  args.average_probability = average == "probability";
  args.label = label.mutable_data_ptr<uint8_t>();
  args.confidence = confidence.mutable_data_ptr<float>();
  for (size_t s = 0; s < logits.size(); ++s) {
    check_dtype("logits", logits[s], {logits[0].scalar_type()});
    logits[s] = torch::stable::contiguous(logits[s]);
    args.scales[s] = {logits[s].const_data_ptr(), bilinear(logits[s].size(2), height, align_corners),
                      bilinear(logits[s].size(3), width, align_corners), static_cast<float>(weights[s]),
                      flipped[s] != 0};
  }
  STD_CUDA_CHECK(launch_multiscale_pseudo_label(args, current_stream(label)));
  return {label, confidence};
}

}  // namespace maskmatch::cuda
