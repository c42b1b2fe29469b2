// Nanoseconds that one core takes for one exponential of a stream in the first-level cache, with the vector code of the
// operators: the floor that they are compared with.
#include <chrono>
#include <cstdio>

#include "../../csrc/cpu/simd/vector.h"

using namespace maskmatch::MASKMATCH_ISA;

int main() {
  constexpr int kCount = 4096, kRepeats = 200, kRounds = 200;
  alignas(64) static float values[kCount];
  for (int i = 0; i < kCount; ++i) values[i] = -20.0f * i / kCount;
  double best = 1e9;
  volatile float sink = 0;
  for (int round = 0; round < kRounds; ++round) {
    const auto start = std::chrono::steady_clock::now();
    Floats sums[4] = {splat(0.0f), splat(0.0f), splat(0.0f), splat(0.0f)};
    for (int repeat = 0; repeat < kRepeats; ++repeat) {
      for (int i = 0; i < kCount; i += 4 * kLanes) {
        for (int j = 0; j < 4; ++j) sums[j] += exp2_of_negative(load(values + i + j * kLanes));
      }
    }
    const std::chrono::duration<double, std::nano> taken = std::chrono::steady_clock::now() - start;
    sink = sink + sum_lanes(sums[0] + sums[1] + sums[2] + sums[3]);
    const double each = taken.count() / (double(kCount) * kRepeats);
    best = each < best ? each : best;
  }
  std::printf("%.6f\n", best);
}
