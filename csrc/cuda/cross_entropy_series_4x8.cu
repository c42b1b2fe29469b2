// The fast form of upsample_cross_entropy for larger cells.
#include "cross_entropy_series.cuh"

namespace maskmatch::cuda {

const SeriesLossKernel series_loss_4x8 = series_loss_kernel<4, 8, 2>();

}  // namespace maskmatch::cuda
