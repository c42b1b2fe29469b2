// Which form of an operator ran last in this process, for ops.info() and tests.
#pragma once

#include <atomic>

namespace maskmatch::cuda {

inline std::atomic<const char*> pseudo_label_form{"none"};   // series or general
inline std::atomic<const char*> cross_entropy_form{"none"};  // the same

}  // namespace maskmatch::cuda
