/* The least that torch asks of the CUDA runtime and driver before anything runs: one device that is always idle.
   Loaded before torch, under the driver's name; what torch asks beyond this is answered by the real libraries. */

#include <cuda_runtime_api.h>
#include <string.h>

#undef cudaGetDeviceProperties

int cuInit(unsigned flags) { return 0; }
int cuDriverGetVersion(int* version) { return *version = CUDART_VERSION, 0; }
int cuDevicePrimaryCtxGetState(int device, unsigned* flags, int* active) { return *flags = *active = 0; }

cudaError_t cudaGetDeviceCount(int* count) { return *count = 1, cudaSuccess; }
cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
cudaError_t cudaSetDevice(int device) { return cudaSuccess; }
cudaError_t cudaGetLastError(void) { return cudaSuccess; }
cudaError_t cudaPeekAtLastError(void) { return cudaSuccess; }
cudaError_t cudaDeviceSynchronize(void) { return cudaSuccess; }
cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
    *least = 0, *greatest = -5;
    return cudaSuccess;
}
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, enum cudaStreamCaptureStatus* status) {
    *status = cudaStreamCaptureStatusNone;
    return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp* properties, int device) {
    memset(properties, 0, sizeof *properties);
    properties->major = 9, properties->warpSize = 32, properties->multiProcessorCount = 132;
    return cudaSuccess;
}
