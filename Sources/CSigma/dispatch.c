#include "sigma_kernels.h"

#include <string.h>

// A level of this architecture, and whether this processor has it. Listed from the plainest to the best.
typedef struct {
    const sigma_kernels *table;
    int (*can_run)(void);
} level;

extern const sigma_kernels sigma_kernels_portable;

static int always(void) { return 1; }

#if defined(__x86_64__)
#include <cpuid.h>

extern const sigma_kernels sigma_kernels_avx2, sigma_kernels_avx2vnni, sigma_kernels_avx512;

// Also whether the system saves the wider registers.
static int has_avx2(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}

// Not every compiler's run-time library knows this one.
static int has_avx2vnni(void) {
    unsigned a = 0, b = 0, c = 0, d = 0;
    return has_avx2() && __get_cpuid_count(7, 1, &a, &b, &c, &d) && a >> 4 & 1;
}

static int has_avx512(void) {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni");
}

static const level levels[] = {
    {&sigma_kernels_portable, always},
    {&sigma_kernels_avx2, has_avx2},
    {&sigma_kernels_avx2vnni, has_avx2vnni},
    {&sigma_kernels_avx512, has_avx512},
};
#elif defined(__aarch64__)
extern const sigma_kernels sigma_kernels_neon, sigma_kernels_i8mm;

#if defined(__APPLE__)
#include <sys/sysctl.h>

static int has(const char *feature) {
    int value = 0;
    size_t size = sizeof value;
    return sysctlbyname(feature, &value, &size, NULL, 0) == 0 && value != 0;
}

static int has_neon(void) { return has("hw.optional.arm.FEAT_DotProd"); }
static int has_i8mm(void) { return has_neon() && has("hw.optional.arm.FEAT_I8MM"); }
#elif defined(__linux__)
#include <sys/auxv.h>

// The kernel's numbers (asm/hwcap.h), which older headers lack.
enum { DOT_PRODUCTS = 1 << 20, MATRIX_PRODUCTS = 1 << 13 };

static int has_neon(void) { return (getauxval(AT_HWCAP) & DOT_PRODUCTS) != 0; }
static int has_i8mm(void) { return has_neon() && (getauxval(AT_HWCAP2) & MATRIX_PRODUCTS) != 0; }
#else
static int has_neon(void) { return 0; }
static int has_i8mm(void) { return 0; }
#endif

static const level levels[] = {
    {&sigma_kernels_portable, always},
    {&sigma_kernels_neon, has_neon},
    {&sigma_kernels_i8mm, has_i8mm},
};
#else
static const level levels[] = {{&sigma_kernels_portable, always}};
#endif

enum { LEVELS = sizeof levels / sizeof levels[0] };

const sigma_kernels *sigma_kernels_level(int number) {
    for (int i = 0; i < LEVELS; i++)
        if (levels[i].can_run() && number-- == 0) return levels[i].table;
    return NULL;
}

const sigma_kernels *sigma_kernels_named(const char *name) {
    for (int i = 0; i < LEVELS; i++)
        if (strcmp(levels[i].table->name, name) == 0) return levels[i].can_run() ? levels[i].table : NULL;
    return NULL;
}

const sigma_kernels *sigma_kernels_best(void) {
    for (int i = LEVELS - 1; i > 0; i--)
        if (levels[i].can_run()) return levels[i].table;
    return &sigma_kernels_portable;
}
