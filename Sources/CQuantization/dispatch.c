#include "sigma_quantization.h"

#include <string.h>

extern const sigma_quantizer sigma_quantizer_portable;
#if defined(__x86_64__)
extern const sigma_quantizer sigma_quantizer_avx2, sigma_quantizer_avx512;

static int has_avx512(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl");
}
#endif

const sigma_quantizer *sigma_quantizer_named(const char *name) {
#if defined(__x86_64__)
    if (strcmp(name, "avx512") == 0) return has_avx512() ? &sigma_quantizer_avx512 : NULL;
    if (strcmp(name, "avx2") == 0) return __builtin_cpu_supports("avx2") ? &sigma_quantizer_avx2 : NULL;
#endif
    return strcmp(name, "portable") == 0 ? &sigma_quantizer_portable : NULL;
}

const sigma_quantizer *sigma_quantizer_best(void) {
#if defined(__x86_64__)
    if (has_avx512()) return &sigma_quantizer_avx512;
    if (__builtin_cpu_supports("avx2")) return &sigma_quantizer_avx2;
#endif
    return &sigma_quantizer_portable;
}
