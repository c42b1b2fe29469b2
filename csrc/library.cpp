// Every operator's schema, and its registration for the CPU. The Python functions in maskmatch/ops check and complete
// the arguments; fakes and autograd are registered there.
#include <torch/csrc/stable/library.h>

#include "cpu/capability.h"
#include "operators.h"

STABLE_TORCH_LIBRARY(maskmatch, library) {
  // Normalised images with hidden patches filled, and the patch grid, bool [N, rows, columns].
  library.def(
      "patch_mask(Tensor images, int patch_size, float mask_ratio, Tensor seeds, str strategy, float[] mean, "
      "float[] std, float[] fill) -> (Tensor, Tensor)");
  // Label uint8 [N, H, W] and confidence fp32 [N, H, W] of the mean over scales; the weights sum to one.
  library.def(
      "multiscale_pseudo_label(Tensor[] logits, int height, int width, int[] flipped, float[] weights, str average, "
      "bool align_corners) -> (Tensor, Tensor)");
  // The sum of the loss fp32 [], divided as `normalize` says: by the non-ignored pixels (all), the confident ones or
  // the divisor (given); what it was divided by, fp32 []; and, with_gradient, the gradient of the sum fp32 [N, C, h,
  // w], which is yet to be divided. With none: every pixel's loss fp32 [N, H, W], nothing, and log sum exp fp32 [N, H,
  // W].
  library.def(
      "upsample_cross_entropy(Tensor logits, Tensor target, Tensor? confidence, float threshold, "
      "Tensor? pixel_weight, Tensor? class_weight, int ignore_index, float label_smoothing, bool align_corners, "
      "str normalize, Tensor? divisor, bool with_gradient) -> (Tensor, Tensor, Tensor)");
  // The gradient of the logits, in their dtype, from that of every pixel's loss.
  library.def(
      "upsample_cross_entropy_backward(Tensor grad_output, Tensor logits, Tensor target, Tensor log_sum, "
      "Tensor? confidence, float threshold, Tensor? pixel_weight, Tensor? class_weight, int ignore_index, "
      "float label_smoothing, bool align_corners) -> Tensor");
  // Numbers in [0, 1) from per-sample seeds int64 [N], fp32 [N, count].
  library.def("uniform(Tensor seeds, int count, int stream) -> Tensor");
  // Compiled instruction sets and the one in use, such as "default avx2 avx512:avx2".
  library.def("cpu_capability() -> str");
}

STABLE_TORCH_LIBRARY_IMPL(maskmatch, CPU, library) {
  library.impl("patch_mask", TORCH_BOX(&maskmatch::cpu::patch_mask));
  library.impl("multiscale_pseudo_label", TORCH_BOX(&maskmatch::cpu::multiscale_pseudo_label));
  library.impl("upsample_cross_entropy",
               TORCH_BOX(&maskmatch::upsample_cross_entropy<maskmatch::cpu::run_cross_entropy>));
  library.impl("upsample_cross_entropy_backward",
               TORCH_BOX(&maskmatch::upsample_cross_entropy_backward<maskmatch::cpu::run_cross_entropy>));
  library.impl("uniform", TORCH_BOX(&maskmatch::cpu::uniform));
}

STABLE_TORCH_LIBRARY_IMPL(maskmatch, CompositeExplicitAutograd, library) {
  library.impl("cpu_capability", TORCH_BOX(&maskmatch::cpu_capability));
}
