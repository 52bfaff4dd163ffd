// A real device in place of the emulated one: the driver and NVRTC, opened at run time.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "sigma_cuda.h"

namespace device {

// Whether the checks run on the device that `open` has found.
extern bool is_open;

// Compiles the kernels for the first device. NULL, or why there is none. SIGMA_CUDA_DRIVER and SIGMA_NVRTC name the libraries.
const char *open();
// Memory of the device, for `count` bytes at `host`: every launch takes them there and back.
uint64_t add(void *host, size_t count);
void remove(uint64_t address);
// NULL, or what went wrong.
const char *launch(const char *kernel, sigma_cuda_launch shape, const void *parameters);

}  // namespace device
