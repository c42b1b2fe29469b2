// The fast form of upsample_cross_entropy for cells of up to 4 x 4 pixels.
#include "cross_entropy_series.cuh"

namespace maskmatch::cuda {

const SeriesLossKernel series_loss_4x4 = series_loss_kernel<4, 4, 2>();

}  // namespace maskmatch::cuda
