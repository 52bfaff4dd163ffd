// How quantized matrices lie in memory: docs/model-file.md, "Packed matrices". 16 rows are a group; a 32-bit lane of a vector
// is a row, its four bytes are four successive columns, so that one instruction multiplies 16 rows by 4 broadcast activations.
//
// A type is a way to write values (whole bytes; four bits, with a fifth or a pair of bits elsewhere; pairs, with a third bit elsewhere) and a
// way to write scales.
#ifndef SIGMA_PACKED_H
#define SIGMA_PACKED_H

#include "sigma_kernels.h"

#define SIGMA_ALWAYS static inline __attribute__((always_inline))

// Of the values: two bits of each column, not four.
SIGMA_ALWAYS int sigma_has_pairs(int type) { return type == SIGMA_Q2_K || type == SIGMA_Q3_K; }
// One more bit of each column, after the others.
SIGMA_ALWAYS int sigma_has_fifth_bits(int type) { return type == SIGMA_Q5_0 || type == SIGMA_Q5_1 || type == SIGMA_Q5_K; }
// Four bits choose from a table.
SIGMA_ALWAYS int sigma_has_table(int type) { return type == SIGMA_IQ4_NL || type == SIGMA_IQ4_XS || type == SIGMA_MXFP4; }
// A minimum is taken off (or, in q4_1 and q5_1, added).
SIGMA_ALWAYS int sigma_has_minimum(int type) {
    return type == SIGMA_Q4_1 || type == SIGMA_Q5_1 || type == SIGMA_Q2_K || type == SIGMA_Q4_K || type == SIGMA_Q5_K;
}
// Scales are of 16 columns, not 32.
SIGMA_ALWAYS int sigma_has_halves(int type) { return type == SIGMA_Q6_K || type == SIGMA_Q3_K || type == SIGMA_Q2_K; }
// Four times this is taken off each value.
SIGMA_ALWAYS int sigma_zero_fourths(int type) {
    switch (type) {
    case SIGMA_Q8_0: case SIGMA_IQ4_NL: case SIGMA_IQ4_XS: case SIGMA_MXFP4: return 32;
    case SIGMA_Q6_K: return 8;
    case SIGMA_Q5_0: return 4;
    case SIGMA_Q4_0: return 2;
    case SIGMA_Q3_K: return 1;
    default: return 0;
    }
}

// What four bits mean, with 128 added.
static const uint8_t sigma_nonlinear_table[16] = {1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241};
static const uint8_t sigma_e2m1_table[16] = {128, 129, 130, 131, 132, 134, 136, 140, 128, 127, 126, 125, 124, 122, 120, 116};
SIGMA_ALWAYS const uint8_t *sigma_table(int type) { return type == SIGMA_MXFP4 ? sigma_e2m1_table : sigma_nonlinear_table; }

// Bytes of values of a group per 32 columns.
SIGMA_ALWAYS size_t sigma_value_bytes(int type) {
    switch (type) {
    case SIGMA_Q8_0: return 512;
    case SIGMA_Q6_K: return 384;
    case SIGMA_Q5_0: case SIGMA_Q5_1: case SIGMA_Q5_K: return 320;
    case SIGMA_Q3_K: return 192;
    case SIGMA_Q2_K: return 128;
    default: return 256;
    }
}

// Scales of 256 columns.
//   q6_k, q3_k: 16 fp16 factors d, then per 16 columns 16 signed bytes.
//   iq4_xs:     16 fp16 d, then per 32 columns 16 signed bytes.
//   q4_k, q5_k: 16 fp16 d, 16 fp16 dmin, then per 64 columns three times 16 bytes: low four bits of scale (low half) and minimum (high half) of the
//               first 32 columns; the same of the second; and the upper two bits of first scale, first minimum, second scale, second minimum, from
//               the lowest bits up.
//   q2_k:       16 fp16 d, 16 fp16 dmin, then per 16 columns 16 bytes: scale (low half) and minimum (high half).
enum { SIGMA_Q6_K_SCALES = 32, SIGMA_Q6_K_SUPER = 288 };
enum { SIGMA_IQ4_XS_SCALES = 32, SIGMA_IQ4_XS_SUPER = 160 };
enum { SIGMA_Q4_K_SCALES = 64, SIGMA_Q4_K_PAIR = 48, SIGMA_Q4_K_SUPER = 256 };
enum { SIGMA_Q2_K_SCALES = 64, SIGMA_Q2_K_SUPER = 320 };

// The scales' blocks: how many columns one is for, how many bytes it has, and how many of them, at its begin, are fp16 numbers.
typedef struct {
    size_t columns, bytes, halves;
} sigma_scale_block;

SIGMA_ALWAYS sigma_scale_block sigma_scales(int type) {
    switch (type) {
    case SIGMA_Q6_K: case SIGMA_Q3_K: return (sigma_scale_block){256, SIGMA_Q6_K_SUPER, SIGMA_Q6_K_SCALES};
    case SIGMA_IQ4_XS: return (sigma_scale_block){256, SIGMA_IQ4_XS_SUPER, SIGMA_IQ4_XS_SCALES};
    case SIGMA_Q4_K: case SIGMA_Q5_K: return (sigma_scale_block){256, SIGMA_Q4_K_SUPER, SIGMA_Q4_K_SCALES};
    case SIGMA_Q2_K: return (sigma_scale_block){256, SIGMA_Q2_K_SUPER, SIGMA_Q2_K_SCALES};
    case SIGMA_Q4_1: case SIGMA_Q5_1: return (sigma_scale_block){32, 64, 64};
    case SIGMA_MXFP4: return (sigma_scale_block){32, 16, 0};
    default: return (sigma_scale_block){32, 32, 32};
    }
}

// Bytes of scales of a group, over all its columns.
SIGMA_ALWAYS size_t sigma_scale_region(int type, size_t columns) {
    const sigma_scale_block block = sigma_scales(type);
    return columns / block.columns * block.bytes;
}

SIGMA_ALWAYS size_t sigma_value_region(int type, size_t columns) { return columns / 32 * sigma_value_bytes(type); }

#endif
