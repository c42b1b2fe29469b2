// The operators' signatures, in the order of the schemas in library.cpp, and the functions of each device that have
// them.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <string>
#include <tuple>
#include <vector>

namespace maskmatch {

using torch::stable::Tensor;

using PatchMask = std::tuple<Tensor, Tensor>(Tensor images, int64_t patch_size, double mask_ratio, Tensor seeds,
                                             std::string strategy, std::vector<double> mean, std::vector<double> std,
                                             std::vector<double> fill);

using MultiscalePseudoLabel = std::tuple<Tensor, Tensor>(std::vector<Tensor> logits, int64_t height, int64_t width,
                                                         std::vector<int64_t> flipped, std::vector<double> weights,
                                                         std::string average, bool align_corners);

using UpsampleCrossEntropy = std::tuple<Tensor, Tensor, Tensor>(Tensor logits, Tensor target,
                                                                std::optional<Tensor> confidence, double threshold,
                                                                std::optional<Tensor> pixel_weight,
                                                                std::optional<Tensor> class_weight,
                                                                int64_t ignore_index, double label_smoothing,
                                                                bool align_corners, bool per_pixel, bool with_gradient);

using UpsampleCrossEntropyBackward = Tensor(Tensor grad_output, Tensor logits, Tensor target, Tensor log_sum,
                                            std::optional<Tensor> confidence, double threshold,
                                            std::optional<Tensor> pixel_weight, std::optional<Tensor> class_weight,
                                            int64_t ignore_index, double label_smoothing, bool align_corners);

using Uniform = Tensor(Tensor seeds, int64_t count, int64_t stream);

namespace cpu {
PatchMask patch_mask;
MultiscalePseudoLabel multiscale_pseudo_label;
UpsampleCrossEntropy upsample_cross_entropy;
UpsampleCrossEntropyBackward upsample_cross_entropy_backward;
Uniform uniform;
}  // namespace cpu

namespace cuda {
PatchMask patch_mask;
MultiscalePseudoLabel multiscale_pseudo_label;
UpsampleCrossEntropy upsample_cross_entropy;
UpsampleCrossEntropyBackward upsample_cross_entropy_backward;
}  // namespace cuda

}  // namespace maskmatch
