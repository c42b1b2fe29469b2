// The operators' signatures, in the order of the schemas in library.cpp, and the functions of each device that have
// them. upsample_cross_entropy and its backward are templates in common/cross_entropy.h: of a device they take its
// part.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "common/cross_entropy.h"

namespace maskmatch {

using torch::stable::Tensor;

using PatchMask = std::tuple<Tensor, Tensor>(Tensor images, int64_t patch_size, double mask_ratio, Tensor seeds,
                                             std::string strategy, std::vector<double> mean, std::vector<double> std,
                                             std::vector<double> fill);

using MultiscalePseudoLabel = std::tuple<Tensor, Tensor>(std::vector<Tensor> logits, int64_t height, int64_t width,
                                                         std::vector<int64_t> flipped, std::vector<double> weights,
                                                         std::string average, bool align_corners);

using Uniform = Tensor(Tensor seeds, int64_t count, int64_t stream);

namespace cpu {
PatchMask patch_mask;
MultiscalePseudoLabel multiscale_pseudo_label;
RunCrossEntropy run_cross_entropy;
Uniform uniform;
}  // namespace cpu

namespace cuda {
PatchMask patch_mask;
MultiscalePseudoLabel multiscale_pseudo_label;
RunCrossEntropy run_cross_entropy;
Uniform uniform;
}  // namespace cuda

}  // namespace maskmatch
