// Chooses the instruction set at run time.
#include "capability.h"

#include <cstdlib>
#include <stdexcept>

namespace maskmatch {
namespace {

struct Candidate {
  const char* name;
  bool supported;
  const Kernels* kernels;
};

#ifdef MASKMATCH_X86
const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
const bool has_avx512 = has_avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
#endif

const Candidate candidates[] = {
    {"default", true, &baseline::kernels},
#ifdef MASKMATCH_X86
    {"avx2", has_avx2, &avx2::kernels},
    {"avx512", has_avx512, &avx512::kernels},
#endif
};

const Candidate& chosen() {
  const char* wanted = std::getenv("MASKMATCH_CPU_CAPABILITY");
  const Candidate* best = nullptr;
  for (const Candidate& candidate : candidates) {
    if (wanted && *wanted ? std::string(wanted) == candidate.name : candidate.supported) best = &candidate;
  }
  if (!best || !best->supported) {
    throw std::runtime_error(std::string("MASKMATCH_CPU_CAPABILITY must be one of default, avx2, avx512 that this "
                                         "CPU and this build have, got ") +
                             wanted);
  }
  return *best;
}

}  // namespace

const Kernels& cpu_kernels() { return *chosen().kernels; }

std::string cpu_capability() {
  std::string text;
  for (const Candidate& candidate : candidates) text += std::string(text.empty() ? "" : " ") + candidate.name;
  return text + ":" + chosen().name;
}

}  // namespace maskmatch
