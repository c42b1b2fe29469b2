// upsample_cross_entropy and its backward up to the kernels, for every device: what the dispatcher hands over is taken,
// checked and turned into the kernels' arguments here alone.
#pragma once

#include <optional>
#include <string>
#include <tuple>

#include "checks.h"
#include "loss_args.h"

namespace maskmatch {

using OptionalTensor = std::optional<Tensor>;

// What both operators take, in the order of the schemas.
struct LossInputs {
  Tensor logits, target;
  OptionalTensor confidence;
  double threshold;
  OptionalTensor pixel_weight, class_weight;
  int64_t ignore_index;
  double label_smoothing;
  bool align_corners;
};

// What the kernels read and write beside that, each only in some modes; see LossArgs.
struct LossBuffers {
  LossMode mode;
  Normalize normalize;
  OptionalTensor given_divisor;
  OptionalTensor grad_output, log_sum, pixel_loss, gradient, loss, divisor;
};

// A device's part: it completes the kernels' arguments and runs them.
using RunCrossEntropy = void(LossInputs inputs, LossBuffers& buffers);

inline void check_map(const char* name, const OptionalTensor& map, const Tensor& target) {
  if (!map) return;
  check_shape(name, *map, {target.size(0), target.size(1), target.size(2)});
  check_dtype(name, *map, {ScalarType::Float});
  check_same_device(name, *map, target);
}

inline void check_inputs(const LossInputs& inputs) {
  const Tensor &logits = inputs.logits, &target = inputs.target;
  check_shape("logits", logits, {-1, -1, -1, -1});
  check_dtype("logits", logits, {ScalarType::Float, ScalarType::Half, ScalarType::BFloat16});
  check_range("classes", static_cast<double>(logits.size(1)), 1, 255);
  check_shape("target", target, {logits.size(0), -1, -1});
  check_dtype("target", target, {ScalarType::Byte, ScalarType::Long});
  check_same_device("target", target, logits);
  for (const int axis : {1, 2}) {
    check_range("a side of target", static_cast<double>(target.size(axis)), 1, 1 << 30);
    check_range("a side of logits", static_cast<double>(logits.size(axis + 1)), 1, 1 << 30);
  }
  check_map("confidence", inputs.confidence, target);
  check_map("pixel_weight", inputs.pixel_weight, target);
  if (inputs.class_weight) {
    check_shape("class_weight", *inputs.class_weight, {logits.size(1)});
    check_dtype("class_weight", *inputs.class_weight, {ScalarType::Float});
    check_same_device("class_weight", *inputs.class_weight, logits);
  }
  check_range("label_smoothing", inputs.label_smoothing, 0, 1);
}

inline Normalize parse_normalize(const std::string& name) {
  if (name == "all") return Normalize::kAll;
  if (name == "confident") return Normalize::kConfident;
  if (name == "given") return Normalize::kGiven;
  if (name == "none") return Normalize::kNone;
  fail("normalize must be one of all, confident, given, none, got ", name);
}

inline void check_divisor(Normalize normalize, const OptionalTensor& divisor, const Tensor& logits) {
  if (divisor.has_value() != (normalize == Normalize::kGiven)) fail("a divisor belongs to normalize=given alone");
  if (!divisor) return;
  check_shape("divisor", *divisor, {});
  check_dtype("divisor", *divisor, {ScalarType::Float});
  check_same_device("divisor", *divisor, logits);
}

inline const float* data_or_null(OptionalTensor& tensor) {
  if (!tensor) return nullptr;
  tensor = torch::stable::contiguous(*tensor);
  return tensor->const_data_ptr<float>();
}

inline float* result_or_null(OptionalTensor& tensor) { return tensor ? tensor->mutable_data_ptr<float>() : nullptr; }

// Makes what is read contiguous, in place, and points `args` at everything.
template <class Axis, class Totals>
void fill(LossArgs<Axis, Totals>& args, LossInputs& inputs, LossBuffers& buffers) {
  inputs.logits = torch::stable::contiguous(inputs.logits);
  inputs.target = torch::stable::contiguous(inputs.target);
  args.mode = buffers.mode;
  args.type = element_type(inputs.logits);
  args.logits = inputs.logits.const_data_ptr();
  args.count = inputs.logits.size(0);
  args.classes = static_cast<int>(inputs.logits.size(1));
  args.target = inputs.target.const_data_ptr();
  args.target_is_uint8 = inputs.target.scalar_type() == ScalarType::Byte;
  args.ignore_index = inputs.ignore_index;
  args.confidence = data_or_null(inputs.confidence);
  args.threshold = static_cast<float>(inputs.threshold);
  args.pixel_weight = data_or_null(inputs.pixel_weight);
  args.class_weight = data_or_null(inputs.class_weight);
  args.label_smoothing = static_cast<float>(inputs.label_smoothing);
  args.grad_output = data_or_null(buffers.grad_output);
  args.log_sum = const_cast<float*>(data_or_null(buffers.log_sum));  // read or written
  args.pixel_loss = result_or_null(buffers.pixel_loss);
  args.gradient = buffers.gradient ? buffers.gradient->mutable_data_ptr() : nullptr;
  args.loss = result_or_null(buffers.loss);
  args.normalize = buffers.normalize;
  args.given_divisor = data_or_null(buffers.given_divisor);
  args.divisor = result_or_null(buffers.divisor);
}

inline Tensor new_floats(const Tensor& like, torch::headeronly::IntHeaderOnlyArrayRef sizes) {
  return torch::stable::empty(sizes, ScalarType::Float, std::nullopt, like.device());
}

template <RunCrossEntropy& run>
std::tuple<Tensor, Tensor, Tensor> upsample_cross_entropy(Tensor logits, Tensor target, OptionalTensor confidence,
                                                          double threshold, OptionalTensor pixel_weight,
                                                          OptionalTensor class_weight, int64_t ignore_index,
                                                          double label_smoothing, bool align_corners,
                                                          std::string normalize, OptionalTensor divisor,
                                                          bool with_gradient) {
  const LossInputs inputs{logits,       target,       confidence,      threshold,    pixel_weight,
                          class_weight, ignore_index, label_smoothing, align_corners};
  check_inputs(inputs);
  LossBuffers buffers{};
  buffers.normalize = parse_normalize(normalize);
  check_divisor(buffers.normalize, divisor, logits);
  buffers.given_divisor = divisor;
  const bool per_pixel = buffers.normalize == Normalize::kNone;
  buffers.mode = with_gradient && !per_pixel ? LossMode::kLossAndGradient : LossMode::kLoss;
  const Tensor loss = per_pixel ? new_floats(logits, target.sizes()) : new_floats(logits, {});
  (per_pixel ? buffers.pixel_loss : buffers.loss) = loss;
  if (!per_pixel) buffers.divisor = new_floats(logits, {});
  OptionalTensor& saved = per_pixel ? buffers.log_sum : buffers.gradient;
  if (with_gradient) saved = new_floats(logits, per_pixel ? target.sizes() : logits.sizes());
  run(inputs, buffers);
  const auto or_empty = [&](const OptionalTensor& result) { return result ? *result : new_floats(logits, {0}); };
  return {loss, or_empty(buffers.divisor), or_empty(saved)};
}

template <RunCrossEntropy& run>
Tensor upsample_cross_entropy_backward(Tensor grad_output, Tensor logits, Tensor target, Tensor log_sum,
                                       OptionalTensor confidence, double threshold, OptionalTensor pixel_weight,
                                       OptionalTensor class_weight, int64_t ignore_index, double label_smoothing,
                                       bool align_corners) {
  const LossInputs inputs{logits,       target,       confidence,      threshold,    pixel_weight,
                          class_weight, ignore_index, label_smoothing, align_corners};
  check_inputs(inputs);
  check_map("grad_output", grad_output, target);
  check_map("log_sum", log_sum, target);
  LossBuffers buffers{};
  buffers.mode = LossMode::kGradient;
  buffers.normalize = Normalize::kNone;
  buffers.grad_output = grad_output;
  buffers.log_sum = log_sum;
  buffers.gradient = torch::stable::empty(logits.sizes(), logits.scalar_type(), std::nullopt, logits.device());
  run(inputs, buffers);
  return *buffers.gradient;
}

}  // namespace maskmatch
