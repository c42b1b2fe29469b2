// multiscale_pseudo_label on the CPU: checks, sampling tables and tasks; the arithmetic is in simd/.
#include "../common/pseudo_label_checks.h"
#include "../operators.h"
#include "axis.h"
#include "capability.h"
#include "parallel.h"

#include <deque>

namespace maskmatch::cpu {
namespace {

constexpr int64_t kBand = 32;  // output rows a task

}  // namespace

std::tuple<Tensor, Tensor> multiscale_pseudo_label(std::vector<Tensor> logits, int64_t height, int64_t width,
                                                   std::vector<int64_t> flipped, std::vector<double> weights,
                                                   std::string average, bool align_corners) {
  check_pseudo_label(logits, height, width, flipped, weights, average);
  const int64_t count = logits[0].size(0), classes = logits[0].size(1);
  auto [label, confidence] = new_pseudo_label(logits[0], height, width);

  std::deque<AxisTable> tables;  // keeps addresses
  std::vector<Scale> scales;
  for (size_t s = 0; s < logits.size(); ++s) {
    Tensor& scale = logits[s];
    scale = torch::stable::contiguous(torch::stable::to(scale, ScalarType::Float));
    const AxisTable& rows = tables.emplace_back(scale.size(2), height, align_corners);
    const AxisTable& columns = tables.emplace_back(scale.size(3), width, align_corners, flipped[s] != 0);
    scales.push_back({scale.const_data_ptr<float>(), scale.size(2), scale.size(3), rows.axis(), columns.axis(),
                      static_cast<float>(weights[s])});
  }
  const PseudoLabelArgs args{scales.data(),
                             static_cast<int64_t>(scales.size()),
                             classes,
                             height,
                             width,
                             kBand,
                             average == "probability",
                             label.mutable_data_ptr<uint8_t>(),
                             confidence.mutable_data_ptr<float>()};
  const Kernels& kernels = cpu_kernels();
  parallel_tasks(count * ((height + kBand - 1) / kBand), kernels.pseudo_label_scratch(args),
                 [&](int64_t task, float* scratch) { kernels.pseudo_label(args, task, scratch); });
  return {label, confidence};
}

}  // namespace maskmatch::cpu
