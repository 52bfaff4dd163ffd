// The level that runs everywhere: no instruction beyond the platform's baseline.
#include "half.h"
#include "sigma_kernels.h"

#define LANES 4
#define LEVEL_NAME "portable"
#define LEVEL_TABLE sigma_kernels_portable

typedef float half_vf __attribute__((vector_size(LANES * 4), aligned(4)));

static inline half_vf load_half(const uint16_t *p) {
    half_vf v;
    for (int i = 0; i < LANES; i++) v[i] = sigma_half_to_float(p[i]);
    return v;
}

static inline void store_half(uint16_t *p, half_vf v) {
    for (int i = 0; i < LANES; i++) p[i] = sigma_float_to_half(v[i]);
}

typedef float q8_sums;
typedef struct {
    const int8_t *values;
    float scale;
} q8_weights;

static inline q8_sums q8_zero(void) { return 0; }

static inline q8_weights q8_load(const uint8_t *block) {
    uint16_t bits;
    memcpy(&bits, block, 2);
    return (q8_weights){(const int8_t *)block + 2, sigma_half_to_float(bits)};
}

static inline q8_sums q8_accumulate(q8_sums sum, q8_weights w, const int8_t *q, float scale) {
    int32_t total = 0;
    for (int i = 0; i < 32; i++) total += (int32_t)w.values[i] * q[i];
    return (float)total * (w.scale * scale) + sum;
}

static inline float q8_total(q8_sums sum) { return sum; }

#include "kernels_body.h"
