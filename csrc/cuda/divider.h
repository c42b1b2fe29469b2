// Division of integers by one that the host knows.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace maskmatch::cuda {

// Divides numbers below 2**31 by a multiplication and a shift (Granlund and Montgomery, 1994).
struct Divider {
  uint32_t divisor, factor, shift;

  Divider() = default;
  explicit Divider(int32_t by) : divisor(static_cast<uint32_t>(by)), shift(0) {
    while (uint64_t{1} << shift < divisor) ++shift;
    factor = static_cast<uint32_t>((((uint64_t{1} << shift) - divisor) << 32) / divisor + 1);
  }
  __device__ uint32_t quotient(uint32_t number) const {
    return (static_cast<uint32_t>(static_cast<uint64_t>(number) * factor >> 32) + number) >> shift;
  }
  // Gives the remainder, and leaves the quotient in `number`, of any size where numbers may be large.
  template <class Number>
  __device__ int32_t split(Number& number) const {
    const Number of = number;
    const bool small = sizeof(Number) == 4 || of <= INT32_MAX;
    number = small ? quotient(static_cast<uint32_t>(of)) : of / divisor;
    return static_cast<int32_t>(of - number * divisor);
  }
};

}  // namespace maskmatch::cuda
