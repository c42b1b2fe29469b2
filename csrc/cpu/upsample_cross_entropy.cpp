// upsample_cross_entropy on the CPU: checks, sampling tables and tasks; the arithmetic is in simd/.
#include "../common/cross_entropy_checks.h"
#include "../operators.h"
#include "axis.h"
#include "capability.h"
#include "parallel.h"

#include <algorithm>
#include <numeric>

namespace maskmatch::cpu {
namespace {

constexpr int64_t kBandRows = 32;  // output rows a task, about

// A band's last interval of rows reaches the next band's first input row; that share waits in `carry`.
void add_carry(const CrossEntropyArgs& args, int64_t image, int64_t band) {
  const float* carry = args.carry + (image * args.bands + band) * args.classes * args.input_width;
  const int64_t row = (band + 1) * args.band;
  for (int64_t c = 0; c < args.classes; ++c) {
    float* gradient = args.gradient + ((image * args.classes + c) * args.input_height + row) * args.input_width;
    for (int64_t x = 0; x < args.input_width; ++x) gradient[x] += carry[c * args.input_width + x];
  }
}

void check_labels(const std::vector<LossTotals>& totals, const Tensor& target, int64_t classes, int64_t ignore_index) {
  for (const LossTotals& total : totals) {
    if (total.invalid_pixel < 0) continue;
    const int64_t value = target.scalar_type() == ScalarType::Byte
                              ? target.const_data_ptr<uint8_t>()[total.invalid_pixel]
                              : target.const_data_ptr<int64_t>()[total.invalid_pixel];
    fail("target must hold classes 0 to ", classes - 1, " or ignore_index ", ignore_index, ", got ", value);
  }
}

// Runs all bands of all images; `args` comes with mode, outputs, grad_output and log_sum set.
std::vector<LossTotals> run(CrossEntropyArgs args, Tensor logits, Tensor target, OptionalTensor confidence,
                            double threshold, OptionalTensor pixel_weight, OptionalTensor class_weight,
                            int64_t ignore_index, double label_smoothing, bool align_corners) {
  logits = torch::stable::contiguous(torch::stable::to(logits, ScalarType::Float));
  target = torch::stable::contiguous(target);
  const int64_t count = logits.size(0);
  args.classes = logits.size(1);
  args.input_height = logits.size(2);
  args.input_width = logits.size(3);
  args.height = target.size(1);
  args.width = target.size(2);
  const AxisTable rows(args.input_height, args.height, align_corners);
  const AxisTable columns(args.input_width, args.width, align_corners);
  args.logits = logits.const_data_ptr<float>();
  args.rows = rows.axis();
  args.columns = columns.axis();
  args.first_row = rows.first_outputs().data();
  args.band = std::max<int64_t>(4, kBandRows * args.input_height / args.height);
  args.bands = (args.input_height + args.band - 1) / args.band;
  args.target = target.const_data_ptr();
  args.target_is_uint8 = target.scalar_type() == ScalarType::Byte;
  args.ignore_index = ignore_index;
  args.confidence = data_or_null(confidence);
  args.threshold = static_cast<float>(threshold);
  args.pixel_weight = data_or_null(pixel_weight);
  args.class_weight = data_or_null(class_weight);
  args.class_weight_sum = args.class_weight ? std::accumulate(args.class_weight, args.class_weight + args.classes, 0.0f)
                                            : static_cast<float>(args.classes);
  args.label_smoothing = static_cast<float>(label_smoothing);

  const int64_t tasks = count * args.bands;
  std::vector<LossTotals> totals(tasks);
  args.totals = totals.data();
  Tensor carry = new_floats(logits, {args.gradient ? tasks : 0, args.classes, args.input_width});
  args.carry = carry.mutable_data_ptr<float>();
  const Kernels& kernels = cpu_kernels();
  parallel_tasks(tasks, kernels.cross_entropy_scratch(args),
                 [&](int64_t task, float* scratch) { kernels.cross_entropy(args, task, scratch); });
  check_labels(totals, target, args.classes, ignore_index);
  if (args.gradient) {
    for (int64_t image = 0; image < count; ++image) {
      for (int64_t band = 0; band + 1 < args.bands; ++band) add_carry(args, image, band);
    }
  }
  return totals;
}

}  // namespace

std::tuple<Tensor, Tensor, Tensor> upsample_cross_entropy(Tensor logits, Tensor target, OptionalTensor confidence,
                                                          double threshold, OptionalTensor pixel_weight,
                                                          OptionalTensor class_weight, int64_t ignore_index,
                                                          double label_smoothing, bool align_corners, bool per_pixel,
                                                          bool with_gradient) {
  check_cross_entropy(logits, target, confidence, pixel_weight, class_weight, label_smoothing);
  auto [loss, counts, saved] = new_cross_entropy(logits, target, per_pixel, with_gradient);
  CrossEntropyArgs args{};
  args.mode = with_gradient && !per_pixel ? LossMode::kLossAndGradient : LossMode::kLoss;
  float* saved_data = saved.mutable_data_ptr<float>();
  if (per_pixel) args.pixel_loss = loss.mutable_data_ptr<float>();
  if (with_gradient) (per_pixel ? args.log_sum : args.gradient) = saved_data;
  const std::vector<LossTotals> totals = run(args, logits, target, confidence, threshold, pixel_weight, class_weight,
                                             ignore_index, label_smoothing, align_corners);
  double sum = 0;
  int64_t* count = counts.mutable_data_ptr<int64_t>();
  count[0] = count[1] = 0;
  for (const LossTotals& total : totals) {
    sum += total.loss;
    count[0] += total.valid;
    count[1] += total.confident;
  }
  if (!per_pixel) *loss.mutable_data_ptr<float>() = static_cast<float>(sum);
  return {loss, counts, saved};
}

Tensor upsample_cross_entropy_backward(Tensor grad_output, Tensor logits, Tensor target, Tensor log_sum,
                                       OptionalTensor confidence, double threshold, OptionalTensor pixel_weight,
                                       OptionalTensor class_weight, int64_t ignore_index, double label_smoothing,
                                       bool align_corners) {
  check_cross_entropy(logits, target, confidence, pixel_weight, class_weight, label_smoothing);
  check_map("grad_output", grad_output, target);
  check_map("log_sum", log_sum, target);
  grad_output = torch::stable::contiguous(grad_output);
  log_sum = torch::stable::contiguous(log_sum);
  Tensor gradient = new_floats(logits, logits.sizes());
  CrossEntropyArgs args{};
  args.mode = LossMode::kGradient;
  args.grad_output = grad_output.const_data_ptr<float>();
  args.log_sum = const_cast<float*>(log_sum.const_data_ptr<float>());
  args.gradient = gradient.mutable_data_ptr<float>();
  run(args, logits, target, confidence, threshold, pixel_weight, class_weight, ignore_index, label_smoothing,
      align_corners);
  return torch::stable::to(gradient, logits.scalar_type());
}

}  // namespace maskmatch::cpu
