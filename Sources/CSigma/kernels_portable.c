// The level that runs everywhere: no instruction beyond the platform's baseline.
#include "sigma_half.h"
#include "packed.h"
#include "sigma_kernels.h"
#include "sigma_packing.h"

#define LANES 4
#define LEVEL_NAME "portable"
#define LEVEL_TABLE sigma_kernels_portable

typedef float half_vf __attribute__((vector_size(LANES * 4), aligned(4)));

static inline half_vf load_half(const uint16_t *p) {
    half_vf v;
    for (int i = 0; i < LANES; i++) v[i] = sigma_half_to_float(p[i]);
    return v;
}


typedef uint8_t vw __attribute__((vector_size(LANES * 4)));
typedef int32_t portable_vi __attribute__((vector_size(LANES * 4)));
typedef int16_t wide_vw __attribute__((vector_size(LANES * 8)));

static inline vw load_weights(const uint8_t *p) { return *(const vw *)p; }
static inline vw low_nibbles(vw v) { return v & 15; }
static inline vw high_nibbles(vw v) { return v >> 4; }
static inline vw join_six(vw low, vw pairs, int field) { return low | (pairs >> 2 * field & 3) << 4; }

static inline vw join_bit(vw low, vw bits, int column, int place) { return low | (bits >> column & 1) << place; }
static inline vw lookup(const uint8_t *table, vw v) {
    for (int i = 0; i < 4 * LANES; i++) v[i] = table[v[i]];
    return v;
}

static inline vw two_bits(vw v, int field) { return v >> 2 * field & 3; }
static inline portable_vi dot_along(vw w, const int8_t *q) {
    portable_vi sum = {};
    for (int i = 0; i < 16; i++) sum[i / 4] += w[i] * q[i];
    return sum;
}

// Four columns of four rows at a time; the sum of a lane's four products is one of 32-bit numbers.
static inline portable_vi dot_columns(const vw *w, int count, const int8_t *q, int32_t offset) {
    portable_vi sum = (portable_vi){} + offset;
    for (int c = 0; c < count; c++, q += 4) {
        const wide_vw activations = {q[0], q[1], q[2], q[3], q[0], q[1], q[2], q[3], q[0], q[1], q[2], q[3], q[0], q[1], q[2], q[3]};
        const wide_vw products = __builtin_convertvector(w[c], wide_vw) * activations;  // at most 255 * 127
        for (int lane = 0; lane < LANES; lane++)
            for (int i = 0; i < 4; i++) sum[lane] += products[4 * lane + i];
    }
    return sum;
}

static inline portable_vi dot_nibbles(const vw w[8], const sigma_activation_block *b) {
    return dot_columns(w, 8, b->q, b->both);
}
static inline portable_vi dot_nibbles_raw(const vw w[8], const sigma_activation_block *b) { return dot_columns(w, 8, b->q, 0); }
static inline portable_vi dot_six(const vw w[4], const int8_t *q, int32_t sum) { return dot_columns(w, 4, q, sum); }
static inline portable_vi dot_bytes(const vw w[8], const sigma_activation_block *b) {
    return dot_columns(w, 8, b->q, 16 * (b->both));
}

typedef int16_t portable_vp __attribute__((vector_size(LANES * 4)));
static inline portable_vi add_pairs(portable_vi sums, portable_vp w, int32_t pair) {
    for (int i = 0; i < LANES; i++) sums[i] += w[2 * i] * (int16_t)pair + w[2 * i + 1] * (pair >> 16);
    return sums;
}

#include "kernels_body.h"
