// AVX-512 as servers have it since Skylake.
#if defined(__x86_64__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl"))), apply_to = function)

#define LEVEL_NAME "avx512"
#define LEVEL_TABLE sigma_quantizer_avx512

#include "quantizers.h"

#pragma clang attribute pop
#endif
