// upsample_cross_entropy on the CPU: sampling tables and tasks; the arithmetic is in simd/.
#include "../common/loss_divisor.h"
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
    float* gradient =
        static_cast<float*>(args.gradient) + ((image * args.classes + c) * args.input_height + row) * args.input_width;
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

// Adds up what the tasks found, and divides.
void add_totals(const CrossEntropyArgs& args, const std::vector<LossTotals>& totals) {
  double sum = 0;
  int64_t valid = 0, confident = 0;
  for (const LossTotals& total : totals) {
    sum += total.loss;
    valid += total.valid;
    confident += total.confident;
  }
  *args.divisor = divisor_of(args.normalize, args.given_divisor, valid, confident);
  *args.loss = static_cast<float>(sum) / *args.divisor;
}

void set_shapes(CrossEntropyArgs& args, const Tensor& logits, const Tensor& target) {
  args.input_height = logits.size(2);
  args.input_width = logits.size(3);
  args.height = target.size(1);
  args.width = target.size(2);
  args.band = std::max<int64_t>(4, kBandRows * args.input_height / args.height);
  args.bands = (args.input_height + args.band - 1) / args.band;
}

}  // namespace

void run_cross_entropy(LossInputs inputs, LossBuffers& buffers) {
  const ScalarType type = inputs.logits.scalar_type();
  inputs.logits = torch::stable::to(inputs.logits, ScalarType::Float);
  if (buffers.mode == LossMode::kGradient) buffers.gradient = new_floats(inputs.logits, inputs.logits.sizes());
  CrossEntropyArgs args{};
  fill(args, inputs, buffers);
  set_shapes(args, inputs.logits, inputs.target);
  const AxisTable rows(args.input_height, args.height, inputs.align_corners);
  const AxisTable columns(args.input_width, args.width, inputs.align_corners);
  args.rows = rows.axis();
  args.columns = columns.axis();
  args.first_row = rows.first_outputs().data();
  args.class_weight_sum = args.class_weight ? std::accumulate(args.class_weight, args.class_weight + args.classes, 0.0f)
                                            : static_cast<float>(args.classes);

  const int64_t tasks = args.count * args.bands;
  std::vector<LossTotals> totals(tasks);
  args.totals = totals.data();
  Tensor carry = new_floats(inputs.logits, {args.gradient ? tasks : 0, args.classes, args.input_width});
  args.carry = carry.mutable_data_ptr<float>();
  const Kernels& kernels = cpu_kernels();
  parallel_tasks(tasks, kernels.cross_entropy_scratch(args),
                 [&](int64_t task, float* scratch) { kernels.cross_entropy(args, task, scratch); });
  check_labels(totals, inputs.target, args.classes, inputs.ignore_index);
  if (args.gradient) {
    for (int64_t image = 0; image < args.count; ++image) {
      for (int64_t band = 0; band + 1 < args.bands; ++band) add_carry(args, image, band);
    }
  }
  if (args.loss) add_totals(args, totals);
  if (buffers.mode == LossMode::kGradient) buffers.gradient = torch::stable::to(*buffers.gradient, type);
}

}  // namespace maskmatch::cpu
