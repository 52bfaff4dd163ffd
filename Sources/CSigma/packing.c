#include "sigma_packing.h"

#include <string.h>

#include "sigma_half.h"
#include "packed.h"

typedef uint8_t *bytes;
typedef const uint8_t *const_bytes;

static const uint32_t low_nibbles = 0x0f0f0f0f, high_nibbles = 0xf0f0f0f0, low_pairs = 0x03030303;

// ggml's blocks.
enum { Q8_0_BLOCK = 34, Q4_0_BLOCK = 18, Q4_K_BLOCK = 144, Q6_K_BLOCK = 210 };

size_t sigma_group_bytes(int type, size_t columns) {
    return (sigma_value_region(type, columns) + sigma_scale_region(type, columns) + 63) & ~(size_t)63;
}

static uint32_t load32(const void *p) {
    uint32_t v;
    memcpy(&v, p, 4);
    return v;
}

static void store32(void *p, uint32_t v) { memcpy(p, &v, 4); }

// Four columns of row r in vector `vector` of a value block.
static uint32_t lane(const_bytes values, int vector, int r) { return load32(values + 64 * vector + 4 * r); }
static void set_lane(bytes values, int vector, int r, uint32_t v) { store32(values + 64 * vector + 4 * r, v); }

// Low nibbles q[8] of 32 columns, four columns in each.
static void set_nibbles(bytes values, int r, const uint32_t q[8]) {
    for (int j = 0; j < 4; j++) set_lane(values, j, r, q[j] | q[j + 4] << 4);
}

static void nibbles(const_bytes values, int r, uint32_t q[8]) {
    for (int j = 0; j < 4; j++) {
        const uint32_t v = lane(values, j, r);
        q[j] = v & low_nibbles;
        q[j + 4] = (v & high_nibbles) >> 4;
    }
}

// q8_0

static void pack_q8_0(const_bytes block, int r, size_t columns, bytes values, bytes scales) {
    for (size_t b = 0; b < columns / 32; b++, block += Q8_0_BLOCK, values += 512) {
        memcpy(scales + 32 * b + 2 * r, block, 2);
        for (int c = 0; c < 8; c++) set_lane(values, c, r, load32(block + 2 + 4 * c) ^ 0x80808080);
    }
}

static void unpack_q8_0(const_bytes values, const_bytes scales, int r, size_t columns, bytes block) {
    for (size_t b = 0; b < columns / 32; b++, block += Q8_0_BLOCK, values += 512) {
        memcpy(block, scales + 32 * b + 2 * r, 2);
        for (int c = 0; c < 8; c++) store32(block + 2 + 4 * c, lane(values, c, r) ^ 0x80808080);
    }
}

// q4_0: ggml's byte i has column i below and column 16 + i above, as ours.

static void pack_q4_0(const_bytes block, int r, size_t columns, bytes values, bytes scales) {
    for (size_t b = 0; b < columns / 32; b++, block += Q4_0_BLOCK, values += 256) {
        memcpy(scales + 32 * b + 2 * r, block, 2);
        for (int j = 0; j < 4; j++) set_lane(values, j, r, load32(block + 2 + 4 * j));
    }
}

static void unpack_q4_0(const_bytes values, const_bytes scales, int r, size_t columns, bytes block) {
    for (size_t b = 0; b < columns / 32; b++, block += Q4_0_BLOCK, values += 256) {
        memcpy(block, scales + 32 * b + 2 * r, 2);
        for (int j = 0; j < 4; j++) store32(block + 2 + 4 * j, lane(values, j, r));
    }
}

// q4_k: d, dmin, 12 bytes with 8 scales and 8 minima of 6 bits, then 32 bytes per 64 columns: the first 32 columns below,
// the others above.

static void pack_q4_k(const_bytes block, int r, size_t columns, bytes values, bytes scales) {
    for (size_t s = 0; s < columns / 256; s++, block += Q4_K_BLOCK, values += 8 * 256, scales += SIGMA_Q4_K_SUPER) {
        memcpy(scales + 2 * r, block, 2);
        memcpy(scales + 32 + 2 * r, block + 2, 2);
        const_bytes x = block + 4, q = block + 16;
        for (int p = 0; p < 4; p++, q += 32) {
            uint32_t first[8], second[8];
            for (int c = 0; c < 8; c++) {
                const uint32_t v = load32(q + 4 * c);
                first[c] = v & low_nibbles;
                second[c] = (v & high_nibbles) >> 4;
            }
            set_nibbles(values + 512 * p, r, first);
            set_nibbles(values + 512 * p + 256, r, second);

            uint8_t scale[2], minimum[2];
            for (int i = 0; i < 2; i++) {
                const int n = 2 * p + i;
                scale[i] = n < 4 ? x[n] & 63 : (x[n + 4] & 15) | x[n - 4] >> 6 << 4;
                minimum[i] = n < 4 ? x[n + 4] & 63 : x[n + 4] >> 4 | x[n] >> 6 << 4;
            }
            bytes packed = scales + SIGMA_Q4_K_SCALES + SIGMA_Q4_K_PAIR * p + r;
            packed[0] = (uint8_t)((scale[0] & 15) | minimum[0] << 4);
            packed[16] = (uint8_t)((scale[1] & 15) | minimum[1] << 4);
            packed[32] = (uint8_t)(scale[0] >> 4 | minimum[0] >> 4 << 2 | scale[1] >> 4 << 4 | minimum[1] >> 4 << 6);
        }
    }
}

// Scales and minima of the 8 times 32 columns of one row.
static void scales_q4_k(const_bytes scales, int r, uint8_t scale[8], uint8_t minimum[8]) {
    for (int p = 0; p < 4; p++) {
        const_bytes packed = scales + SIGMA_Q4_K_SCALES + SIGMA_Q4_K_PAIR * p + r;
        const uint8_t high = packed[32];
        scale[2 * p] = (uint8_t)((packed[0] & 15) | (high & 3) << 4);
        minimum[2 * p] = (uint8_t)(packed[0] >> 4 | (high >> 2 & 3) << 4);
        scale[2 * p + 1] = (uint8_t)((packed[16] & 15) | (high >> 4 & 3) << 4);
        minimum[2 * p + 1] = (uint8_t)(packed[16] >> 4 | (high >> 6) << 4);
    }
}

static void unpack_q4_k(const_bytes values, const_bytes scales, int r, size_t columns, bytes block) {
    for (size_t s = 0; s < columns / 256; s++, block += Q4_K_BLOCK, values += 8 * 256, scales += SIGMA_Q4_K_SUPER) {
        memcpy(block, scales + 2 * r, 2);
        memcpy(block + 2, scales + 32 + 2 * r, 2);
        uint8_t scale[8], minimum[8];
        scales_q4_k(scales, r, scale, minimum);
        bytes x = block + 4, q = block + 16;
        for (int n = 0; n < 4; n++) {
            x[n] = (uint8_t)(scale[n] | scale[n + 4] >> 4 << 6);
            x[n + 4] = (uint8_t)(minimum[n] | minimum[n + 4] >> 4 << 6);
            x[n + 8] = (uint8_t)((scale[n + 4] & 15) | minimum[n + 4] << 4);
        }
        for (int p = 0; p < 4; p++, q += 32) {
            uint32_t first[8], second[8];
            nibbles(values + 512 * p, r, first);
            nibbles(values + 512 * p + 256, r, second);
            for (int c = 0; c < 8; c++) store32(q + 4 * c, first[c] | second[c] << 4);
        }
    }
}

// q6_k: 128 bytes of low nibbles, 64 of high pairs, 16 scales, d. Half h of the columns, 32 at a time (t): nibbles in ql[64 h + 32 (t % 2)],
// the lower ones for t < 2; pairs in qh[32 h], t-th from below.

static void pack_q6_k(const_bytes block, int r, size_t columns, bytes values, bytes scales) {
    for (size_t s = 0; s < columns / 256; s++, block += Q6_K_BLOCK, scales += SIGMA_Q6_K_SUPER) {
        memcpy(scales + 2 * r, block + 208, 2);
        for (int i = 0; i < 16; i++) scales[SIGMA_Q6_K_SCALES + 16 * i + r] = block[192 + i];
        for (int t = 0; t < 8; t++, values += 384) {
            const_bytes low = block + 64 * (t / 4) + 32 * (t % 2), high = block + 128 + 32 * (t / 4);
            uint32_t q[8], pairs[2] = {0, 0};
            for (int c = 0; c < 8; c++) {
                q[c] = load32(low + 4 * c) >> (t % 4 < 2 ? 0 : 4) & low_nibbles;
                pairs[c / 4] |= (load32(high + 4 * c) >> 2 * (t % 4) & low_pairs) << 2 * (c % 4);
            }
            set_nibbles(values, r, q);
            set_lane(values, 4, r, pairs[0]);
            set_lane(values, 5, r, pairs[1]);
        }
    }
}

static void unpack_q6_k(const_bytes values, const_bytes scales, int r, size_t columns, bytes block) {
    for (size_t s = 0; s < columns / 256; s++, block += Q6_K_BLOCK, scales += SIGMA_Q6_K_SUPER) {
        memset(block, 0, 192);
        memcpy(block + 208, scales + 2 * r, 2);
        for (int i = 0; i < 16; i++) block[192 + i] = scales[SIGMA_Q6_K_SCALES + 16 * i + r];
        for (int t = 0; t < 8; t++, values += 384) {
            bytes low = block + 64 * (t / 4) + 32 * (t % 2), high = block + 128 + 32 * (t / 4);
            uint32_t q[8];
            nibbles(values, r, q);
            for (int c = 0; c < 8; c++) {
                store32(low + 4 * c, load32(low + 4 * c) | q[c] << (t % 4 < 2 ? 0 : 4));
                const uint32_t pairs = lane(values, 4 + c / 4, r) >> 2 * (c % 4) & low_pairs;
                store32(high + 4 * c, load32(high + 4 * c) | pairs << 2 * (t % 4));
            }
        }
    }
}

// Any type

static size_t row_bytes(int type, size_t columns) {
    switch (type) {
    case SIGMA_Q8_0: return columns / 32 * Q8_0_BLOCK;
    case SIGMA_Q4_0: return columns / 32 * Q4_0_BLOCK;
    case SIGMA_Q4_K: return columns / 256 * Q4_K_BLOCK;
    default: return columns / 256 * Q6_K_BLOCK;
    }
}

void sigma_pack_group(int type, const void *blocks, int rows, size_t columns, void *group) {
    const size_t size = row_bytes(type, columns), region = sigma_value_region(type, columns);
    const size_t used = region + sigma_scale_region(type, columns);
    if (rows < SIGMA_GROUP)
        memset(group, 0, used);
    memset((bytes)group + used, 0, sigma_group_bytes(type, columns) - used);
    bytes values = group, scales = values + region;
    for (int r = 0; r < rows; r++) {
        const_bytes row = (const_bytes)blocks + size * (size_t)r;
        switch (type) {
        case SIGMA_Q8_0: pack_q8_0(row, r, columns, values, scales); break;
        case SIGMA_Q4_0: pack_q4_0(row, r, columns, values, scales); break;
        case SIGMA_Q4_K: pack_q4_k(row, r, columns, values, scales); break;
        default: pack_q6_k(row, r, columns, values, scales); break;
        }
    }
}

void sigma_unpack_group(int type, const void *group, int first, int rows, size_t columns, void *blocks) {
    const size_t size = row_bytes(type, columns);
    const_bytes values = group, scales = values + sigma_value_region(type, columns);
    for (int i = 0; i < rows; i++) {
        bytes row = (bytes)blocks + size * (size_t)i;
        switch (type) {
        case SIGMA_Q8_0: unpack_q8_0(values, scales, first + i, columns, row); break;
        case SIGMA_Q4_0: unpack_q4_0(values, scales, first + i, columns, row); break;
        case SIGMA_Q4_K: unpack_q4_k(values, scales, first + i, columns, row); break;
        default: unpack_q6_k(values, scales, first + i, columns, row); break;
        }
    }
}

// Products and differences are rounded one by one, as ggml's are.
#pragma clang fp contract(off)

static float half_at(const_bytes p) {
    uint16_t bits;
    memcpy(&bits, p, 2);
    return sigma_half_to_float(bits);
}

static int byte_of(const uint32_t *q, int column) { return (int)(q[column / 4] >> 8 * (column % 4) & 255); }

void sigma_dequantize_row(int type, const void *group, int r, size_t columns, float *out) {
    const_bytes values = group, scales = values + sigma_value_region(type, columns);
    const size_t step = sigma_value_bytes(type);
    uint8_t scale[8], minimum[8];
    for (size_t b = 0; b < columns / 32; b++, values += step, out += 32) {
        const_bytes super = scales + b / 8 * (type == SIGMA_Q6_K ? SIGMA_Q6_K_SUPER : SIGMA_Q4_K_SUPER);
        uint32_t q[8];
        if (type == SIGMA_Q8_0)
            for (int c = 0; c < 8; c++) q[c] = lane(values, c, r);
        else
            nibbles(values, r, q);
        switch (type) {
        case SIGMA_Q8_0:
        case SIGMA_Q4_0: {
            const float d = half_at(scales + 32 * b + 2 * r);
            const int zero = type == SIGMA_Q8_0 ? 128 : 8;
            for (int i = 0; i < 32; i++) out[i] = d * (float)(byte_of(q, i) - zero);
            break;
        }
        case SIGMA_Q4_K: {
            if (b % 8 == 0) scales_q4_k(super, r, scale, minimum);
            const float d = half_at(super + 2 * r) * (float)scale[b % 8], m = half_at(super + 32 + 2 * r) * (float)minimum[b % 8];
            for (int i = 0; i < 32; i++) out[i] = d * (float)byte_of(q, i) - m;
            break;
        }
        default: {
            for (int c = 0; c < 8; c++) q[c] |= (lane(values, 4 + c / 4, r) >> 2 * (c % 4) & low_pairs) << 4;
            for (int i = 0; i < 32; i++) {
                const int8_t s = (int8_t)super[SIGMA_Q6_K_SCALES + 16 * (2 * (b % 8) + (size_t)(i / 16)) + (size_t)r];
                out[i] = half_at(super + 2 * r) * (float)s * (float)(byte_of(q, i) - 32);
            }
            break;
        }
        }
    }
}

int sigma_group_is_finite(int type, const void *group, size_t columns) {
    const size_t region = sigma_scale_region(type, columns);
    // Bytes from one run of fp16 numbers to the next, and of the run itself.
    size_t step = 32, run = 32;
    if (type == SIGMA_Q4_K) {
        step = SIGMA_Q4_K_SUPER;
        run = SIGMA_Q4_K_SCALES;
    } else if (type == SIGMA_Q6_K) {
        step = SIGMA_Q6_K_SUPER;
        run = SIGMA_Q6_K_SCALES;
    }
    const_bytes scales = (const_bytes)group + sigma_value_region(type, columns);
    // One more carries out of an exponent whose bits are all set.
    uint16_t carries = 0;
    for (size_t start = 0; start < region; start += step)
        for (size_t i = 0; i < run; i += 2) {
            uint16_t v;
            memcpy(&v, scales + start + i, 2);
            carries |= (uint16_t)((v & 0x7c00) + 0x0400);
        }
    return (carries & 0x8000) == 0;
}
