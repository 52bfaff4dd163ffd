#include "sigma_kernels.h"

#include <string.h>

extern const sigma_kernels sigma_kernels_portable;
#if defined(__x86_64__)
extern const sigma_kernels sigma_kernels_avx2, sigma_kernels_avx512;

static int has_avx2(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}

static int has_avx512(void) {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni");
}
#endif

const sigma_kernels *sigma_kernels_named(const char *name) {
#if defined(__x86_64__)
    if (strcmp(name, "avx512") == 0) return has_avx512() ? &sigma_kernels_avx512 : NULL;
    if (strcmp(name, "avx2") == 0) return has_avx2() ? &sigma_kernels_avx2 : NULL;
#endif
    return strcmp(name, "portable") == 0 ? &sigma_kernels_portable : NULL;
}

const sigma_kernels *sigma_kernels_best(void) {
#if defined(__x86_64__)
    if (has_avx512()) return &sigma_kernels_avx512;
    if (has_avx2()) return &sigma_kernels_avx2;
#endif
    return &sigma_kernels_portable;
}
