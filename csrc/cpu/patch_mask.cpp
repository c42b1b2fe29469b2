// patch_mask on the CPU: the patch grid of every image, then one pass over the pixels.
#include "../common/patch_mask_checks.h"
#include "../operators.h"
#include "capability.h"
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
  for (int64_t patch = 0; patch < patches; ++patch) order[patch] = distinct_key(patch_key(keys, patch), patch);
  std::nth_element(order.begin(), order.begin() + (plan.hidden - 1), order.end());
  constexpr uint64_t kIndex = (uint64_t{1} << 31) - 1;
  for (int64_t i = 0; i < plan.hidden; ++i) grid[order[i] & kIndex] = true;
}

// The affine map of a row of one patch, `channels` numbers a pixel: scale and bias where it is visible, and what it
// holds where it is hidden.
struct PatchMap {
  std::vector<float> scale, bias, fill;
};

PatchMap patch_map(const PatchMaskPlan& plan, int64_t first_channel, int64_t channels) {
  PatchMap map;
  for (int64_t x = 0; x < std::min(plan.patch_size, plan.width); ++x) {
    for (int64_t c = first_channel; c < first_channel + channels; ++c) {
      map.scale.push_back(plan.scale[c]);
      map.bias.push_back(plan.bias[c]);
      map.fill.push_back(plan.fill[c]);
    }
  }
  return map;
}

// Repeats a patch's map over a row of them; hidden elements have a scale of 0.
void fill_row(const PatchMap& map, const bool* hidden, int64_t elements, float* scale, float* bias) {
  const int64_t patch = static_cast<int64_t>(map.scale.size());
  for (int64_t begin = 0; begin < elements; begin += patch, ++hidden) {
    const int64_t count = std::min(patch, elements - begin);
    if (*hidden) {
      std::fill_n(scale + begin, count, 0.0f);
      std::copy_n(map.fill.data(), count, bias + begin);
    } else {
      std::copy_n(map.scale.data(), count, scale + begin);
      std::copy_n(map.bias.data(), count, bias + begin);
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
  parallel_tasks(plan.count, 0,
                 [&](int64_t n, float*) { hide_patches(plan, seed[n], grids + n * plan.rows * plan.columns); });

  const Kernels& kernels = cpu_kernels();
  const char* input = static_cast<const char*>(pixels.const_data_ptr());
  float* result = output.mutable_data_ptr<float>();
  // A plane is a channel of contiguous images, or a whole channels-last image.
  const int64_t planes = plan.channels_last ? 1 : plan.channels;
  const int64_t channels = plan.channels / std::max<int64_t>(planes, 1);
  const int64_t elements = plan.width * channels;
  const int64_t padded = (elements + 15) / 16 * 16;  // both start a cache line
  std::vector<PatchMap> maps;
  for (int64_t c = 0; c < planes; ++c) maps.push_back(patch_map(plan, c, channels));
  parallel_tasks(plan.count * planes * plan.rows, 2 * padded, [&](int64_t task, float* scratch) {
    const int64_t plane = task / plan.rows, patch_row = task % plan.rows;
    const bool* grid_row = grids + (plane / planes * plan.rows + patch_row) * plan.columns;
    fill_row(maps[plane % planes], grid_row, elements, scratch, scratch + padded);
    const int64_t y = patch_row * plan.patch_size, offset = (plane * plan.height + y) * elements;
    kernels.normalize({input + offset * static_cast<int64_t>(is_uint8 ? 1 : sizeof(float)), is_uint8, scratch,
                       scratch + padded, result + offset, std::min(plan.patch_size, plan.height - y), elements});
  });
  if (!is_uint8) output = torch::stable::to(output, dtype);
  return {output, grid};
}

}  // namespace maskmatch::cpu
