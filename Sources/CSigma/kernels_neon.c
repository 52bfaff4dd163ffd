// NEON with signed dot products (ARMv8.2 with FEAT_DotProd: Apple since A13, Cortex since A55 and A75, Neoverse).
#if defined(__aarch64__)
#include "sigma_half.h"
#include "packed.h"
#include "sigma_kernels.h"
#include "sigma_packing.h"

#include <arm_neon.h>

#pragma clang attribute push(__attribute__((target("dotprod"))), apply_to = function)

#define LANES 4
#define LEVEL_NAME "neon"
#define LEVEL_TABLE sigma_kernels_neon

#include "primitives_neon.h"

// Weights of up to six bits are the same number signed and unsigned.
#define SIGNED_DOT(sum, w, q, lane) vdotq_laneq_s32(sum, vreinterpretq_s8_u8(w), q, lane)

static inline int32x4_t dot_32(const vw w[8], const int8_t *q, int32_t offset) {
    const int8x16_t first = vld1q_s8(q), second = vld1q_s8(q + 16);
    const int32x4_t half = DOT_16(vdupq_n_s32(offset), SIGNED_DOT, w, first);
    return DOT_16(half, SIGNED_DOT, w + 4, second);
}

static inline int32x4_t dot_nibbles(const vw w[8], const sigma_activation_block *b) { return dot_32(w, b->q, b->both); }
static inline int32x4_t dot_nibbles_raw(const vw w[8], const sigma_activation_block *b) { return dot_32(w, b->q, 0); }
static inline int32x4_t dot_six(const vw w[4], const int8_t *q, int32_t offset) {
    const int8x16_t activations = vld1q_s8(q);
    return DOT_16(vdupq_n_s32(4 * offset), SIGNED_DOT, w, activations);
}
// A byte less its zero point of 128 is the byte with the other sign bit.
static inline int32x4_t dot_bytes(const vw w[8], const sigma_activation_block *b) {
    vw weights[8];
    for (int c = 0; c < 8; c++) weights[c] = veorq_u8(w[c], vdupq_n_u8(128));
    return dot_32(weights, b->q, 0);
}

#include "kernels_body.h"

#pragma clang attribute pop
#endif
