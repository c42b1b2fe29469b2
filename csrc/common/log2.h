// Powers and logarithms are taken of two, as that is what machines have.
#pragma once

namespace maskmatch {

constexpr float kLog2E = 1.44269504f;  // exp(x) = 2 ** (kLog2E * x)
constexpr float kLn2 = 0.693147181f;   // log(x) = kLn2 * log2(x)
constexpr float kLowest = -3e38f;      // the maximum of nothing

}  // namespace maskmatch
