// Which form of an operator ran last in this process, for ops.info() and tests.
#pragma once

#include <atomic>

namespace maskmatch::cuda {

inline std::atomic<const char*> pseudo_label_form{"none"};  // series or general

}  // namespace maskmatch::cuda
