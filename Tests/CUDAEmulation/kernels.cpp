// The kernels' own sources, compiled for the host.
#define SIGMA_EMULATION
#include "sigma_cuda.h"

#include "sigma.cu"
