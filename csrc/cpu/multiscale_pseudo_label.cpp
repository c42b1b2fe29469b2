// multiscale_pseudo_label on the CPU: checks, sampling tables and tasks; the arithmetic is in simd/.
#include "../common/checks.h"
#include "axis.h"
#include "capability.h"
#include "operators.h"
#include "parallel.h"

#include <deque>

namespace maskmatch::cpu {
namespace {

constexpr int64_t kBand = 16;  // output rows a task

void check_logits(const std::vector<Tensor>& logits, int64_t height, int64_t width, const std::vector<int64_t>& flipped,
                  const std::vector<double>& weights) {
  if (logits.empty()) fail("logits must hold at least one scale");
  if (flipped.size() != logits.size() || weights.size() != logits.size()) {
    fail("flipped and weights must have one entry for each of ", logits.size(), " scales, got ", flipped.size(),
         " and ", weights.size());
  }
  check_shape("logits[0]", logits[0], {-1, -1, -1, -1});
  check_range("classes", static_cast<double>(logits[0].size(1)), 1, 255);
  check_range("height", static_cast<double>(height), 1, 1 << 30);
  check_range("width", static_cast<double>(width), 1, 1 << 30);
  for (const Tensor& scale : logits) {
    check_shape("logits", scale, {logits[0].size(0), logits[0].size(1), -1, -1});
    check_dtype("logits", scale, {ScalarType::Float, ScalarType::Half, ScalarType::BFloat16});
    check_range("logits height", static_cast<double>(scale.size(2)), 1, 1 << 30);
    check_range("logits width", static_cast<double>(scale.size(3)), 1, 1 << 30);
  }
}

}  // namespace

std::tuple<Tensor, Tensor> multiscale_pseudo_label(std::vector<Tensor> logits, int64_t height, int64_t width,
                                                   std::vector<int64_t> flipped, std::vector<double> weights,
                                                   std::string average, bool align_corners) {
  check_logits(logits, height, width, flipped, weights);
  if (average != "probability" && average != "logit") {
    fail("average must be one of probability, logit, got ", average);
  }
  const int64_t count = logits[0].size(0), classes = logits[0].size(1);
  Tensor label = torch::stable::empty({count, height, width}, ScalarType::Byte, std::nullopt, logits[0].device());
  Tensor confidence = torch::stable::empty({count, height, width}, ScalarType::Float, std::nullopt, logits[0].device());

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
