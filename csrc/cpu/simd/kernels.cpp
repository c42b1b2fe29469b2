// Compiled once for each instruction set, with MASKMATCH_ISA as the name of its namespace.
#include "kernels.h"

#include "multiscale_pseudo_label.h"
#include "patch_mask.h"
#include "upsample_cross_entropy.h"

namespace maskmatch {
namespace MASKMATCH_ISA {

const Kernels kernels = {normalize, pseudo_label_scratch, pseudo_label, cross_entropy_scratch, cross_entropy};

}  // namespace MASKMATCH_ISA
}  // namespace maskmatch
