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

#define DOT vusdotq_laneq_s32
#include "primitives_neon.h"

static inline int32x4_t dot_bytes(const vw w[8], const sigma_activation_block *b) { return dot_32(w, b->q, 16 * b->both); }

#include "kernels_body.h"

#pragma clang attribute pop
#endif
