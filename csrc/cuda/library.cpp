// The operators' CUDA registrations: check, allocate, launch on the current stream.
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>

#include <algorithm>

#include "../common/patch_mask_checks.h"
#include "patch_mask.cuh"

namespace maskmatch::cuda {
namespace {

cudaStream_t current_stream(const Tensor& tensor) {
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream));
  return static_cast<cudaStream_t>(stream);
}

std::tuple<Tensor, Tensor> patch_mask(Tensor images, int64_t patch_size, double mask_ratio, Tensor seeds,
                                      std::string strategy, std::vector<double> mean, std::vector<double> std,
                                      std::vector<double> fill) {
  const PatchMaskPlan plan = plan_patch_mask(images, patch_size, mask_ratio, seeds, strategy, mean, std, fill);
  if (plan.channels > kMaxChannels) fail("images may have up to ", kMaxChannels, " channels on CUDA");
  const torch::stable::accelerator::DeviceGuard guard(images.get_device_index());
  const ScalarType dtype = images.scalar_type();
  const bool is_uint8 = dtype == ScalarType::Byte;
  const auto format =
      plan.channels_last ? torch::headeronly::MemoryFormat::ChannelsLast : torch::headeronly::MemoryFormat::Contiguous;
  Tensor output =
      torch::stable::empty(images.sizes(), ScalarType::Float, std::nullopt, images.device(), std::nullopt, format);
  Tensor grid =
      torch::stable::empty({plan.count, plan.rows, plan.columns}, ScalarType::Bool, std::nullopt, images.device());
  Tensor keys =
      torch::stable::empty({plan.count, plan.rows, plan.columns}, ScalarType::Long, std::nullopt, images.device());
  if (!is_uint8) images = torch::stable::to(images, ScalarType::Float);
  images = torch::stable::contiguous(images, format);
  seeds = torch::stable::contiguous(seeds);

  PatchMaskArgs args{};
  args.images = images.const_data_ptr();
  args.is_uint8 = is_uint8;
  args.channels_last = plan.channels_last;
  args.count = plan.count;
  args.channels = plan.channels;
  args.height = plan.height;
  args.width = plan.width;
  args.patch_size = plan.patch_size;
  args.rows = plan.rows;
  args.columns = plan.columns;
  args.hidden = plan.hidden;
  args.strategy = plan.strategy;
  std::copy(plan.scale.begin(), plan.scale.end(), args.scale);
  std::copy(plan.bias.begin(), plan.bias.end(), args.bias);
  std::copy(plan.fill.begin(), plan.fill.end(), args.fill);
  args.seeds = seeds.const_data_ptr<int64_t>();
  args.keys = static_cast<uint64_t*>(keys.mutable_data_ptr());
  args.grid = grid.mutable_data_ptr<bool>();
  args.output = output.mutable_data_ptr<float>();
  STD_CUDA_CHECK(launch_patch_mask(args, current_stream(images)));
  if (!is_uint8) output = torch::stable::to(output, dtype);
  return {output, grid};
}

std::string cuda_architectures() { return MASKMATCH_CUDA_ARCHS; }

}  // namespace
}  // namespace maskmatch::cuda

STABLE_TORCH_LIBRARY_FRAGMENT(maskmatch, library) {
  // The compiled CUDA architectures, such as "80 90".
  library.def("cuda_architectures() -> str");
}

STABLE_TORCH_LIBRARY_IMPL(maskmatch, CUDA, library) {
  library.impl("patch_mask", TORCH_BOX(&maskmatch::cuda::patch_mask));
}

STABLE_TORCH_LIBRARY_IMPL(maskmatch, CompositeExplicitAutograd, library) {
  library.impl("cuda_architectures", TORCH_BOX(&maskmatch::cuda::cuda_architectures));
}
