// NEON with unsigned by signed dot products and 8-bit matrix products (ARMv8.6, FEAT_I8MM: Apple since A15 and M2, Neoverse V1 and N2).
#if defined(__aarch64__)
#include "sigma_half.h"
#include "packed.h"
#include "sigma_kernels.h"
#include "sigma_packing.h"

#include <arm_neon.h>

#pragma clang attribute push(__attribute__((target("dotprod,i8mm"))), apply_to = function)

#define LANES 4
#define MATRIX_PRODUCTS
#define LEVEL_NAME "i8mm"
#define LEVEL_TABLE sigma_kernels_i8mm

#include "primitives_neon.h"

static inline int32x4_t dot_32(const vw w[8], const int8_t *q, int32_t offset) {
    const int8x16_t first = vld1q_s8(q), second = vld1q_s8(q + 16);
    const int32x4_t half = DOT_16(vdupq_n_s32(offset), vusdotq_laneq_s32, w, first);
    return DOT_16(half, vusdotq_laneq_s32, w + 4, second);
}

static inline int32x4_t dot_nibbles(const vw w[8], const sigma_activation_block *b) { return dot_32(w, b->q, b->both); }
static inline int32x4_t dot_nibbles_raw(const vw w[8], const sigma_activation_block *b) { return dot_32(w, b->q, 0); }
static inline int32x4_t dot_six(const vw w[4], const int8_t *q, int32_t offset) {
    const int8x16_t activations = vld1q_s8(q);
    return DOT_16(vdupq_n_s32(4 * offset), vusdotq_laneq_s32, w, activations);
}
static inline int32x4_t dot_bytes(const vw w[8], const sigma_activation_block *b) { return dot_32(w, b->q, 16 * b->both); }

#include "kernels_body.h"

#pragma clang attribute pop
#endif
