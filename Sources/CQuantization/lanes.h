// 16 lanes of fp32 in Clang's vector extensions: one register with AVX-512, two with AVX2, four elsewhere; the same results everywhere.
// A lane is a block (or a part of one) of its own, so that a search over scales needs no sums across lanes.
#ifndef SIGMA_LANES_H
#define SIGMA_LANES_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "sigma_half.h"

// Vectors wider than the level's registers are passed between functions below, all of which are inlined.
#pragma clang diagnostic ignored "-Wpsabi"

enum { LANES = 16 };

typedef float vf __attribute__((vector_size(4 * LANES)));
typedef int32_t vi __attribute__((vector_size(4 * LANES)));
typedef uint16_t lane_halves __attribute__((vector_size(2 * LANES)));
typedef int8_t signed_bytes __attribute__((vector_size(LANES)));
typedef uint8_t unsigned_bytes __attribute__((vector_size(LANES)));
typedef float unaligned_vf __attribute__((vector_size(4 * LANES), aligned(4)));

#define INLINE static inline __attribute__((always_inline))

INLINE vf load(const float *p) { return *(const unaligned_vf *)p; }
INLINE vf splat(float x) { return (vf){} + x; }
INLINE vf least(vf a, vf b) { return __builtin_elementwise_min(a, b); }
INLINE vf most(vf a, vf b) { return __builtin_elementwise_max(a, b); }
INLINE vf clamp(vf x, float low, float high) { return least(most(x, splat(low)), splat(high)); }
INLINE vf magnitude(vf x) { return __builtin_elementwise_abs(x); }
// a where the mask is set, else b.
INLINE vf choose(vi mask, vf a, vf b) { return (vf)(((vi)a & mask) | ((vi)b & ~mask)); }
INLINE void keep(vi mask, vf *target, vf value) { *target = choose(mask, value, *target); }
// a / b, and 0 where b is 0.
INLINE vf quotient(vf a, vf b) {
    const vi zero = b == splat(0);
    return (vf)((vi)(a / choose(zero, splat(1), b)) & ~zero);
}

// To the nearest integer, ties to even, for magnitudes below 2^22; larger ones stay about what they are.
INLINE vf nearest(vf x) { return (x + 0x1.8p23f) - 0x1.8p23f; }

// To the nearest number that fp16 has; 65504 at most.
INLINE vf half_precision(vf x) {
    const vi bits = (vi)x, sign = bits & INT32_MIN, size = bits & INT32_MAX;
    const vi normal = (size + 0xfff + (size >> 13 & 1)) & ~0x1fff;
    // Below 2^-14 fp16 counts units of 2^-24, and so does fp32 just above 0.5.
    const vf subnormal = ((vf)size + 0.5f) - 0.5f;
    const vf rounded = least(choose(size < 0x38800000, subnormal, (vf)normal), splat(65504));
    return (vf)((vi)rounded | sign);
}

// The bits of numbers that fp16 has.
INLINE lane_halves halves_of(vf x) {
    const vi bits = (vi)x, size = bits & INT32_MAX;
    const vi normal = (size - 0x38000000) >> 13, subnormal = (vi)((vf)size + 0.5f) - 0x3f000000;
    const vi is_subnormal = size < 0x38800000;
    const vi halves = (subnormal & is_subnormal) | (normal & ~is_subnormal) | (bits >> 16 & 0x8000);
    return __builtin_convertvector(halves, lane_halves);
}

// Sums and maxima over groups of 8 or 16 lanes, in all lanes of the group. A tree whose two halves are added the same way everywhere.
#define PERMUTED(v, ...) __builtin_shufflevector(v, v, __VA_ARGS__)
#define SWAP1(v) PERMUTED(v, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14)
#define SWAP2(v) PERMUTED(v, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13)
#define SWAP4(v) PERMUTED(v, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11)
#define SWAP8(v) PERMUTED(v, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7)

INLINE vf sum_of_8(vf v) {
    v = v + SWAP1(v);
    v = v + SWAP2(v);
    return v + SWAP4(v);
}
INLINE vf sum_of_16(vf v) {
    v = sum_of_8(v);
    return v + SWAP8(v);
}
INLINE vf most_of_8(vf v) {
    v = most(v, SWAP1(v));
    v = most(v, SWAP2(v));
    return most(v, SWAP4(v));
}
INLINE vf most_of_16(vf v) {
    v = most_of_8(v);
    return most(v, SWAP8(v));
}

// 16 runs of 16 numbers, `stride` apart, so that lane b of out[i] is number i of run b: four rounds of perfect shuffles.
INLINE void transpose_runs(const float *runs, size_t stride, vf out[16]) {
    vf a[16], b[16];
    for (int i = 0; i < 16; i++) a[i] = load(runs + stride * (size_t)i);
#define ROUND(from, to)                                                                                                       \
    for (int i = 0; i < 8; i++) {                                                                                             \
        to[2 * i] = __builtin_shufflevector(from[i], from[i + 8], 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);     \
        to[2 * i + 1] =                                                                                                       \
            __builtin_shufflevector(from[i], from[i + 8], 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);       \
    }
    ROUND(a, b)
    ROUND(b, a)
    ROUND(a, b)
    ROUND(b, out)
#undef ROUND
}

INLINE void store_half(uint8_t *p, float x) {
    const uint16_t bits = sigma_float_to_half(x);
    memcpy(p, &bits, 2);
}

#endif
