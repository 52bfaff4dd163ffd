// How quantized matrices lie in memory: docs/model-file.md, "Packed matrices". 16 rows are a group; a 32-bit lane of a vector
// is a row, its four bytes are four successive columns, so that one instruction multiplies 16 rows by 4 broadcast activations.
#ifndef SIGMA_PACKED_H
#define SIGMA_PACKED_H

#include "sigma_kernels.h"

// Bytes of values of a group per 32 columns.
static inline size_t sigma_value_bytes(int type) {
    switch (type) {
    case SIGMA_Q8_0: return 512;
    case SIGMA_Q6_K: return 384;
    default: return 256;
    }
}

// Bytes of scales of a group, over all its columns.
static inline size_t sigma_scale_region(int type, size_t columns) {
    switch (type) {
    case SIGMA_Q6_K: return columns / 256 * 288;
    case SIGMA_Q4_K: return columns / 256 * 256;
    default: return columns / 32 * 32;
    }
}

static inline size_t sigma_value_region(int type, size_t columns) { return columns / 32 * sigma_value_bytes(type); }

// Scales of q6_k: per 256 columns 16 fp16 factors d, then per 16 columns 16 signed bytes.
enum { SIGMA_Q6_K_SCALES = 32, SIGMA_Q6_K_SUPER = 288 };
// Scales of q4_k: per 256 columns 16 fp16 d, 16 fp16 dmin, then per 64 columns three times 16 bytes: low four bits of scale (low
// half) and minimum (high half) of the first 32 columns; the same of the second; and the upper two bits of first scale, first
// minimum, second scale, second minimum, from the lowest bits up.
enum { SIGMA_Q4_K_SCALES = 64, SIGMA_Q4_K_PAIR = 48, SIGMA_Q4_K_SUPER = 256 };

#endif
