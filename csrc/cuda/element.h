// Element types, for host code and kernels.
#pragma once

namespace maskmatch::cuda {

enum class ElementType { kUint8, kFloat, kHalf, kBFloat16 };

}  // namespace maskmatch::cuda
