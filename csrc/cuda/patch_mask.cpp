// patch_mask on CUDA: checks, allocates, launches; the arithmetic is in patch_mask.cu.
#include <algorithm>

#include "../common/patch_mask_checks.h"
#include "../operators.h"
#include "device.h"
#include "patch_mask.cuh"

namespace maskmatch::cuda {

std::tuple<Tensor, Tensor> patch_mask(Tensor images, int64_t patch_size, double mask_ratio, Tensor seeds,
                                      std::string strategy, std::vector<double> mean, std::vector<double> std,
                                      std::vector<double> fill) {
  const PatchMaskPlan plan = plan_patch_mask(images, patch_size, mask_ratio, seeds, strategy, mean, std, fill);
  if (plan.channels > kMaxChannels) fail("images may have up to ", kMaxChannels, " channels on CUDA");
  const DeviceGuard guard(images.get_device_index());
  auto [pixels, image_seeds, output, grid] = patch_mask_tensors(plan, images, seeds);

  PatchMaskArgs args{};
  args.images = pixels.const_data_ptr();
  args.type = element_type(pixels);
  args.channels_last = plan.channels_last;
  args.count = plan.count;
  args.channels = static_cast<int32_t>(plan.channels);
  args.height = static_cast<int32_t>(plan.height);
  args.width = static_cast<int32_t>(plan.width);
  args.patch_size = static_cast<int32_t>(plan.patch_size);
  args.rows = static_cast<int32_t>(plan.rows);
  args.columns = static_cast<int32_t>(plan.columns);
  args.hidden = plan.hidden;
  args.strategy = plan.strategy;
  args.seeds = image_seeds.const_data_ptr<int64_t>();
  args.grid = grid.mutable_data_ptr<bool>();
  args.output = output.mutable_data_ptr();
  std::copy(plan.scale.begin(), plan.scale.end(), args.scale);
  std::copy(plan.bias.begin(), plan.bias.end(), args.bias);
  std::copy(plan.fill.begin(), plan.fill.end(), args.fill);
  STD_CUDA_CHECK(launch_patch_mask(args, current_stream(images)));
  return {output, grid};
}

}  // namespace maskmatch::cuda
