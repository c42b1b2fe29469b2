// Element types, for host code and kernels.
#pragma once

namespace maskmatch {

enum class ElementType { kUint8, kFloat, kHalf, kBFloat16 };

}  // namespace maskmatch
