// The fast form of multiscale_pseudo_label for up to three scales.
#include <type_traits>

#include "pseudo_label_series.cuh"

namespace maskmatch::cuda {

const SeriesKernel& find_series_of_three(int classes) { return find_series<3>(classes); }

}  // namespace maskmatch::cuda
