// What the CPU and CUDA forms of patch_mask check and work out alike.
#pragma once

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "checks.h"
#include "patch_key.h"

namespace maskmatch {

struct PatchMaskPlan {
  int64_t count, channels, height, width, patch_size, rows, columns, hidden;
  Strategy strategy;
  bool channels_last;
  // value * scale + bias normalises, `fill` is a hidden pixel's normalised value: one number a channel
  std::vector<float> scale, bias, fill;
};

inline Strategy parse_strategy(const std::string& name) {
  if (name == "random") return Strategy::kRandom;
  if (name == "block") return Strategy::kBlock;
  if (name == "grid") return Strategy::kGrid;
  fail("strategy must be one of random, block, grid, got ", name);
}

// Channels-last memory, where that differs from contiguous memory.
inline bool is_channels_last(const Tensor& images) {
  int64_t expected = 1;
  for (const int axis : {1, 3, 2, 0}) {
    if (images.size(axis) != 1 && images.stride(axis) != expected) return false;
    expected *= images.size(axis);
  }
  return !images.is_contiguous();
}

inline PatchMaskPlan plan_patch_mask(const Tensor& images, int64_t patch_size, double mask_ratio, const Tensor& seeds,
                                     const std::string& strategy, const std::vector<double>& mean,
                                     const std::vector<double>& std, const std::vector<double>& fill) {
  check_shape("images", images, {-1, -1, -1, -1});
  check_dtype("images", images, {ScalarType::Byte, ScalarType::Float, ScalarType::Half, ScalarType::BFloat16});
  check_shape("seeds", seeds, {images.size(0)});
  check_dtype("seeds", seeds, {ScalarType::Long});
  check_same_device("seeds", seeds, images);
  check_range("patch_size", static_cast<double>(patch_size), 1, std::numeric_limits<int32_t>::max());
  check_range("mask_ratio", mask_ratio, 0, 1);

  PatchMaskPlan plan;
  check_range("images height", static_cast<double>(images.size(2)), 1, 1 << 30);
  check_range("images width", static_cast<double>(images.size(3)), 1, 1 << 30);
  plan.count = images.size(0);
  plan.channels = images.size(1);
  plan.height = images.size(2);
  plan.width = images.size(3);
  plan.patch_size = patch_size;
  plan.rows = (plan.height + patch_size - 1) / patch_size;
  plan.columns = (plan.width + patch_size - 1) / patch_size;
  plan.hidden = static_cast<int64_t>(std::floor(mask_ratio * (plan.rows * plan.columns) + 0.5));
  plan.strategy = parse_strategy(strategy);
  plan.channels_last = is_channels_last(images);
  const size_t channels = static_cast<size_t>(plan.channels);
  if (mean.size() != channels || std.size() != channels || fill.size() != channels) {
    fail("mean, std and fill must have one number for each of ", channels, " channels, got ", mean.size(), ", ",
         std.size(), " and ", fill.size());
  }
  const double unit = images.scalar_type() == ScalarType::Byte ? 255 : 1;
  for (size_t c = 0; c < channels; ++c) {
    plan.scale.push_back(static_cast<float>(1 / (unit * std[c])));
    plan.bias.push_back(static_cast<float>(-mean[c] / std[c]));
    plan.fill.push_back(static_cast<float>((fill[c] - mean[c]) / std[c]));
  }
  return plan;
}

// What the kernels read and write.
struct PatchMaskTensors {
  Tensor images, seeds;  // in the plan's layout, contiguous
  Tensor output, grid;
};

// The output is float for uint8 images, else of their dtype.
inline PatchMaskTensors patch_mask_tensors(const PatchMaskPlan& plan, const Tensor& images, const Tensor& seeds) {
  using torch::headeronly::MemoryFormat;
  const MemoryFormat format = plan.channels_last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous;
  const ScalarType dtype = images.scalar_type() == ScalarType::Byte ? ScalarType::Float : images.scalar_type();
  return {torch::stable::contiguous(images, format), torch::stable::contiguous(seeds),
          torch::stable::empty(images.sizes(), dtype, std::nullopt, images.device(), std::nullopt, format),
          torch::stable::empty({plan.count, plan.rows, plan.columns}, ScalarType::Bool, std::nullopt, images.device())};
}

}  // namespace maskmatch
