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

// Weights of up to six bits are the same number signed and unsigned.
#define DOT(sum, w, q, lane) vdotq_laneq_s32(sum, vreinterpretq_s8_u8(w), q, lane)
#include "primitives_neon.h"

// A byte less its zero point of 128 is the byte with the other sign bit.
static inline int32x4_t dot_bytes(const vw w[8], const sigma_activation_block *b) {
    vw weights[8];
    for (int c = 0; c < 8; c++) weights[c] = veorq_u8(w[c], vdupq_n_u8(128));
    return dot_32(weights, b->q, 0);
}

#include "kernels_body.h"

#pragma clang attribute pop
#endif
