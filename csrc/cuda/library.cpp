// The operators' CUDA registrations; the schemas are in ../library.cpp.
#include <cuda_runtime_api.h>
#include <torch/csrc/stable/library.h>

#include "../operators.h"
#include "forms.h"

namespace maskmatch::cuda {

static std::string cuda_architectures() { return MASKMATCH_CUDA_ARCHS; }

static std::string cuda_version() {
  return std::to_string(CUDART_VERSION / 1000) + "." + std::to_string(CUDART_VERSION % 1000 / 10);
}
static std::string cuda_forms() {
  return std::string("multiscale_pseudo_label:") + pseudo_label_form.load() +
         " upsample_cross_entropy:" + cross_entropy_form.load();
}

}  // namespace maskmatch::cuda

STABLE_TORCH_LIBRARY_FRAGMENT(maskmatch, library) {
  // The compiled CUDA architectures, such as "80 90".
  library.def("cuda_architectures() -> str");
  // The version of CUDA's runtime, which is part of this library, such as "13.0".
  library.def("cuda_version() -> str");
  // Which form of each operator ran last, such as "multiscale_pseudo_label:series"; none where it did not run.
  library.def("cuda_forms() -> str");
}

STABLE_TORCH_LIBRARY_IMPL(maskmatch, CUDA, library) {
  library.impl("patch_mask", TORCH_BOX(&maskmatch::cuda::patch_mask));
  library.impl("multiscale_pseudo_label", TORCH_BOX(&maskmatch::cuda::multiscale_pseudo_label));
  library.impl("upsample_cross_entropy",
               TORCH_BOX(&maskmatch::upsample_cross_entropy<maskmatch::cuda::run_cross_entropy>));
  library.impl("upsample_cross_entropy_backward",
               TORCH_BOX(&maskmatch::upsample_cross_entropy_backward<maskmatch::cuda::run_cross_entropy>));
  library.impl("uniform", TORCH_BOX(&maskmatch::cuda::uniform));
}

STABLE_TORCH_LIBRARY_IMPL(maskmatch, CompositeExplicitAutograd, library) {
  library.impl("cuda_architectures", TORCH_BOX(&maskmatch::cuda::cuda_architectures));
  library.impl("cuda_version", TORCH_BOX(&maskmatch::cuda::cuda_version));
  library.impl("cuda_forms", TORCH_BOX(&maskmatch::cuda::cuda_forms));
}
