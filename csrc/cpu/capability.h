// Which instruction sets were compiled, and which one is used.
#pragma once

#include <string>

#include "simd/kernels.h"

namespace maskmatch {

// The best instruction set that this CPU has, or the one that the environment variable MASKMATCH_CPU_CAPABILITY
// (default, avx2, avx512) asks for; throws std::runtime_error where this CPU or this build does not have that.
const Kernels& cpu_kernels();

// "compiled:in use", such as "default avx2 avx512:avx2".
std::string cpu_capability();

}  // namespace maskmatch
