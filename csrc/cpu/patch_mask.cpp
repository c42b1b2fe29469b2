// patch_mask on the CPU: the patch grid of every image, then one pass over the pixels.
#include "../common/patch_mask_checks.h"
#include "capability.h"
#include "operators.h"
#include "parallel.h"

#include <algorithm>

namespace maskmatch::cpu {
namespace {

// Marks the patches with the lowest keys.
void hide_patches(const PatchMaskPlan& plan, int64_t seed, bool* grid) {
  const int64_t patches = plan.rows * plan.columns;
  std::fill(grid, grid + patches, false);
  if (plan.hidden == 0) return;
  const PatchKeys keys = patch_keys(plan.strategy, seed, plan.rows, plan.columns);
  std::vector<uint64_t> order(patches);
  for (int64_t patch = 0; patch < patches; ++patch) order[patch] = distinct_key(keys, patch);
  std::nth_element(order.begin(), order.begin() + (plan.hidden - 1), order.end());
  constexpr uint64_t kIndex = (uint64_t{1} << 31) - 1;
  for (int64_t i = 0; i < plan.hidden; ++i) grid[order[i] & kIndex] = true;
}

// The affine map of one row of elements: `channels` numbers a pixel, those of `first_channel` on. All rows of a row of
// patches share it.
void fill_map(const PatchMaskPlan& plan, const bool* grid_row, int64_t first_channel, int64_t channels, float* scale,
              float* bias) {
  for (int64_t column = 0, x = 0; column < plan.columns; ++column) {
    const bool hidden = grid_row[column];
    for (const int64_t end = std::min(x + plan.patch_size, plan.width); x < end; ++x) {
      for (int64_t c = 0; c < channels; ++c) {
        const int64_t channel = first_channel + c;
        *scale++ = hidden ? 0.0f : plan.scale[channel];
        *bias++ = hidden ? plan.fill[channel] : plan.bias[channel];
      }
    }
  }
}

}  // namespace

std::tuple<Tensor, Tensor> patch_mask(Tensor images, int64_t patch_size, double mask_ratio, Tensor seeds,
                                      std::string strategy, std::vector<double> mean, std::vector<double> std,
                                      std::vector<double> fill) {
  const PatchMaskPlan plan = plan_patch_mask(images, patch_size, mask_ratio, seeds, strategy, mean, std, fill);
  const ScalarType dtype = images.scalar_type();
  const bool is_uint8 = dtype == ScalarType::Byte;
  if (!is_uint8) images = torch::stable::to(images, ScalarType::Float);
  auto [pixels, keys, output, grid] = patch_mask_tensors(plan, images, seeds);

  const int64_t* seed = keys.const_data_ptr<int64_t>();
  bool* grids = grid.mutable_data_ptr<bool>();
  for (int64_t n = 0; n < plan.count; ++n) hide_patches(plan, seed[n], grids + n * plan.rows * plan.columns);

  const Kernels& kernels = cpu_kernels();
  const char* input = static_cast<const char*>(pixels.const_data_ptr());
  float* result = output.mutable_data_ptr<float>();
  // A plane is a channel of contiguous images, or a whole channels-last image.
  const int64_t planes = plan.channels_last ? 1 : plan.channels;
  const int64_t channels = plan.channels / std::max<int64_t>(planes, 1);
  const int64_t elements = plan.width * channels;
  parallel_tasks(plan.count * planes * plan.rows, 2 * elements, [&](int64_t task, float* scratch) {
    const int64_t plane = task / plan.rows, patch_row = task % plan.rows;
    const bool* grid_row = grids + (plane / planes * plan.rows + patch_row) * plan.columns;
    fill_map(plan, grid_row, plane % planes, channels, scratch, scratch + elements);
    const int64_t end = std::min((patch_row + 1) * plan.patch_size, plan.height);
    for (int64_t y = patch_row * plan.patch_size; y < end; ++y) {
      const int64_t offset = (plane * plan.height + y) * elements;
      kernels.normalize({input + offset * static_cast<int64_t>(is_uint8 ? 1 : sizeof(float)), is_uint8, scratch,
                         scratch + elements, result + offset, elements});
    }
  });
  if (!is_uint8) output = torch::stable::to(output, dtype);
  return {output, grid};
}

}  // namespace maskmatch::cpu
