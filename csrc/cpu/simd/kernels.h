// The vector code of every CPU operator, on raw pointers: compiled once for each instruction set (see CMakeLists.txt)
// and chosen at run time by cpu/capability.cpp. These files include no C++ library headers: an inline function of one
// compiled with AVX-512 could be the copy that the linker keeps for everybody.
#pragma once

#include <stdint.h>

#include "../../common/loss_args.h"

namespace maskmatch {

// One axis of a bilinear resize: output i reads low[i] and high[i] with weights 1 - fraction[i] and fraction[i].
// `count` entries, and copies of the last one up to a multiple of kAxisPadding.
struct Axis {
  const int32_t* low;
  const int32_t* high;
  const float* fraction;
};
constexpr int64_t kAxisPadding = 16;

struct NormalizeArgs {
  const void* input;  // uint8 or float [rows, count]
  bool is_uint8;
  const float* scale;  // [count], 0 where hidden
  const float* bias;   // [count]
  float* output;       // [rows, count]
  int64_t rows, count;
};

struct Scale {
  const float* logits;  // [N, C, height, width]
  int64_t height, width;
  Axis rows, columns;
  float weight;
};

struct PseudoLabelArgs {
  const Scale* scales;  // [count_scales]
  int64_t count_scales;
  int64_t classes, height, width;  // of the result
  int64_t band;                    // output rows a task
  bool average_probability;
  uint8_t* label;     // [N, height, width]
  float* confidence;  // [N, height, width]
};

// What a task of the loss found.
struct LossTotals {
  double loss;
  int64_t valid, confident;
  int64_t invalid_pixel;  // an index into target that holds neither a class nor ignore_index, or -1
};

struct CrossEntropyArgs : LossArgs<Axis, LossTotals> {  // totals: [N * bands]
  int64_t input_height, input_width, height, width;
  const int32_t* first_row;  // [input_height + 1], the first output row that reads input row i as its low one
  int64_t band;              // input rows a task
  int64_t bands;             // tasks an image
  float class_weight_sum;    // C without weights
  float* carry;              // [N * bands, C, input_width], a band's share of the next band's first row
};

struct Kernels {
  void (*normalize)(const NormalizeArgs&);
  int64_t (*pseudo_label_scratch)(const PseudoLabelArgs&);  // floats a thread
  void (*pseudo_label)(const PseudoLabelArgs&, int64_t task, float* scratch);
  int64_t (*cross_entropy_scratch)(const CrossEntropyArgs&);  // floats a thread
  void (*cross_entropy)(const CrossEntropyArgs&, int64_t task, float* scratch);
};

namespace baseline {
extern const Kernels kernels;
}
namespace avx2 {
extern const Kernels kernels;
}
namespace avx512 {
extern const Kernels kernels;
}

}  // namespace maskmatch
