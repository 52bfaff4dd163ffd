// AVX2 (Intel since Haswell, AMD since Zen).
#if defined(__x86_64__)
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)

#define LEVEL_NAME "avx2"
#define LEVEL_TABLE sigma_quantizer_avx2

#include "quantizers.h"

#pragma clang attribute pop
#endif
