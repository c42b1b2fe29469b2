// The CUDA operators, in the order of the schemas in library.cpp.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <string>
#include <tuple>
#include <vector>

namespace maskmatch::cuda {

using torch::stable::Tensor;

std::tuple<Tensor, Tensor> patch_mask(Tensor images, int64_t patch_size, double mask_ratio, Tensor seeds,
                                      std::string strategy, std::vector<double> mean, std::vector<double> std,
                                      std::vector<double> fill);

std::tuple<Tensor, Tensor> multiscale_pseudo_label(std::vector<Tensor> logits, int64_t height, int64_t width,
                                                   std::vector<int64_t> flipped, std::vector<double> weights,
                                                   std::string average, bool align_corners);

std::tuple<Tensor, Tensor, Tensor> upsample_cross_entropy(Tensor logits, Tensor target,
                                                          std::optional<Tensor> confidence, double threshold,
                                                          std::optional<Tensor> pixel_weight,
                                                          std::optional<Tensor> class_weight, int64_t ignore_index,
                                                          double label_smoothing, bool align_corners, bool per_pixel,
                                                          bool with_gradient);

Tensor upsample_cross_entropy_backward(Tensor grad_output, Tensor logits, Tensor target, Tensor log_sum,
                                       std::optional<Tensor> confidence, double threshold,
                                       std::optional<Tensor> pixel_weight, std::optional<Tensor> class_weight,
                                       int64_t ignore_index, double label_smoothing, bool align_corners);

}  // namespace maskmatch::cuda
