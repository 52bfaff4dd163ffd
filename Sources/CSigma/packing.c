#include "sigma_packing.h"

#include <string.h>

#include "sigma_half.h"
#include "packed.h"

typedef uint8_t *bytes;
typedef const uint8_t *const_bytes;

static const uint32_t low_nibbles = 0x0f0f0f0f, high_nibbles = 0xf0f0f0f0, low_pairs = 0x03030303;

// ggml's blocks.
enum {
    Q8_0_BLOCK = 34, Q4_0_BLOCK = 18, Q4_1_BLOCK = 20, Q5_0_BLOCK = 22, Q5_1_BLOCK = 24, Q2_K_BLOCK = 84, Q3_K_BLOCK = 110,
    Q4_K_BLOCK = 144, Q5_K_BLOCK = 176, Q6_K_BLOCK = 210, IQ4_XS_BLOCK = 136, MXFP4_BLOCK = 17
};

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

// One more bit of each of 32 columns: bit i of `bits` is column i's.
static void set_bits(bytes vector, int r, uint32_t bits) {
    uint32_t v = 0;
    for (int i = 0; i < 32; i++) v |= (bits >> i & 1) << (8 * (i % 4) + i / 4);
    set_lane(vector, 0, r, v);
}

static uint32_t bits_of(const_bytes vector, int r) {
    const uint32_t v = lane(vector, 0, r);
    uint32_t bits = 0;
    for (int i = 0; i < 32; i++) bits |= (v >> (8 * (i % 4) + i / 4) & 1) << i;
    return bits;
}

// Pairs of bits q[8] of 32 columns, four columns in each, in two vectors.
static void set_pairs(bytes vectors, int r, const uint32_t q[8]) {
    uint32_t pairs[2] = {0, 0};
    for (int c = 0; c < 8; c++) pairs[c / 4] |= q[c] << 2 * (c % 4);
    set_lane(vectors, 0, r, pairs[0]);
    set_lane(vectors, 1, r, pairs[1]);
}

static void pairs_of(const_bytes vectors, int r, uint32_t q[8]) {
    for (int c = 0; c < 8; c++) q[c] = lane(vectors, c / 4, r) >> 2 * (c % 4) & low_pairs;
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

// q4_0, q4_1, q5_0, q5_1, iq4_nl, mxfp4: scales (d; d and m; an exponent), perhaps 4 bytes with a bit of each column, and 16 bytes: byte i has
// column i below and column 16 + i above, as ours.

typedef struct {
    size_t block, numbers, bits;  // bytes: of a block, of its scales, of its fifth bits
} nibble_layout;

static nibble_layout nibble_layout_of(int type) {
    switch (type) {
    case SIGMA_Q4_1: return (nibble_layout){Q4_1_BLOCK, 4, 0};
    case SIGMA_Q5_0: return (nibble_layout){Q5_0_BLOCK, 2, 4};
    case SIGMA_Q5_1: return (nibble_layout){Q5_1_BLOCK, 4, 4};
    case SIGMA_MXFP4: return (nibble_layout){MXFP4_BLOCK, 1, 0};
    default: return (nibble_layout){Q4_0_BLOCK, 2, 0};
    }
}

static void pack_nibbles(int type, const_bytes block, int r, size_t columns, bytes values, bytes scales) {
    const nibble_layout layout = nibble_layout_of(type);
    const size_t step = sigma_value_bytes(type), scale_step = sigma_scales(type).bytes;
    for (size_t b = 0; b < columns / 32; b++, block += layout.block, values += step, scales += scale_step) {
        if (layout.numbers == 1) scales[r] = block[0];
        for (size_t i = 0; i + 2 <= layout.numbers; i += 2) memcpy(scales + 16 * i + 2 * (size_t)r, block + i, 2);
        const_bytes q = block + layout.numbers + layout.bits;
        for (int j = 0; j < 4; j++) set_lane(values, j, r, load32(q + 4 * j));
        if (layout.bits > 0) set_bits(values + 256, r, load32(block + layout.numbers));
    }
}

static void unpack_nibbles(int type, const_bytes values, const_bytes scales, int r, size_t columns, bytes block) {
    const nibble_layout layout = nibble_layout_of(type);
    const size_t step = sigma_value_bytes(type), scale_step = sigma_scales(type).bytes;
    for (size_t b = 0; b < columns / 32; b++, block += layout.block, values += step, scales += scale_step) {
        if (layout.numbers == 1) block[0] = scales[r];
        for (size_t i = 0; i + 2 <= layout.numbers; i += 2) memcpy(block + i, scales + 16 * i + 2 * (size_t)r, 2);
        bytes q = block + layout.numbers + layout.bits;
        for (int j = 0; j < 4; j++) store32(q + 4 * j, lane(values, j, r));
        if (layout.bits > 0) store32(block + layout.numbers, bits_of(values + 256, r));
    }
}

// q4_k: d, dmin, 12 bytes with 8 scales and 8 minima of 6 bits, then 32 bytes per 64 columns: the first 32 columns below,
// the others above. q5_k has 32 bytes before those: bit t of byte i belongs to column i of the t-th 32.

static void pack_q45_k(int type, const_bytes block, int r, size_t columns, bytes values, bytes scales) {
    const size_t high_bytes = type == SIGMA_Q5_K ? 32 : 0, step = sigma_value_bytes(type);
    for (size_t s = 0; s < columns / 256; s++, block += Q4_K_BLOCK + high_bytes, values += 8 * step, scales += SIGMA_Q4_K_SUPER) {
        memcpy(scales + 2 * r, block, 2);
        memcpy(scales + 32 + 2 * r, block + 2, 2);
        const_bytes x = block + 4, high = block + 16, q = high + high_bytes;
        for (int p = 0; p < 4; p++, q += 32) {
            uint32_t first[8], second[8];
            for (int c = 0; c < 8; c++) {
                const uint32_t v = load32(q + 4 * c);
                first[c] = v & low_nibbles;
                second[c] = (v & high_nibbles) >> 4;
            }
            bytes pair = values + 2 * step * (size_t)p;
            set_nibbles(pair, r, first);
            set_nibbles(pair + step, r, second);
            for (int t = 0; high_bytes > 0 && t < 2; t++) {
                uint32_t bits = 0;
                for (int i = 0; i < 32; i++) bits |= (uint32_t)(high[i] >> (2 * p + t) & 1) << i;
                set_bits(pair + step * (size_t)t + 256, r, bits);
            }

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

static void unpack_q45_k(int type, const_bytes values, const_bytes scales, int r, size_t columns, bytes block) {
    const size_t high_bytes = type == SIGMA_Q5_K ? 32 : 0, step = sigma_value_bytes(type);
    for (size_t s = 0; s < columns / 256; s++, block += Q4_K_BLOCK + high_bytes, values += 8 * step, scales += SIGMA_Q4_K_SUPER) {
        memcpy(block, scales + 2 * r, 2);
        memcpy(block + 2, scales + 32 + 2 * r, 2);
        uint8_t scale[8], minimum[8];
        scales_q4_k(scales, r, scale, minimum);
        bytes x = block + 4, high = block + 16, q = high + high_bytes;
        for (int n = 0; n < 4; n++) {
            x[n] = (uint8_t)(scale[n] | scale[n + 4] >> 4 << 6);
            x[n + 4] = (uint8_t)(minimum[n] | minimum[n + 4] >> 4 << 6);
            x[n + 8] = (uint8_t)((scale[n + 4] & 15) | minimum[n + 4] << 4);
        }
        memset(high, 0, high_bytes);
        for (int p = 0; p < 4; p++, q += 32) {
            const_bytes pair = values + 2 * step * (size_t)p;
            uint32_t first[8], second[8];
            nibbles(pair, r, first);
            nibbles(pair + step, r, second);
            for (int c = 0; c < 8; c++) store32(q + 4 * c, first[c] | second[c] << 4);
            for (int t = 0; high_bytes > 0 && t < 2; t++) {
                const uint32_t bits = bits_of(pair + step * (size_t)t + 256, r);
                for (int i = 0; i < 32; i++) high[i] |= (uint8_t)((bits >> i & 1) << (2 * p + t));
            }
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
            uint32_t q[8], pairs[8];
            for (int c = 0; c < 8; c++) {
                q[c] = load32(low + 4 * c) >> (t % 4 < 2 ? 0 : 4) & low_nibbles;
                pairs[c] = load32(high + 4 * c) >> 2 * (t % 4) & low_pairs;
            }
            set_nibbles(values, r, q);
            set_pairs(values + 256, r, pairs);
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
            uint32_t q[8], pairs[8];
            nibbles(values, r, q);
            pairs_of(values + 256, r, pairs);
            for (int c = 0; c < 8; c++) {
                store32(low + 4 * c, load32(low + 4 * c) | q[c] << (t % 4 < 2 ? 0 : 4));
                store32(high + 4 * c, load32(high + 4 * c) | pairs[c] << 2 * (t % 4));
            }
        }
    }
}

// q2_k: 16 bytes with a scale (below) and a minimum (above), 64 bytes of pairs, d, dmin. q3_k: 32 bytes with the third bits (bit t of byte i belongs
// to column i of the t-th 32), 64 bytes of pairs, 12 bytes with 16 scales of 6 bits, d. Half h of the columns, 32 at a time (t): pairs in
// q[32 h], t-th from below.

static void pack_q23_k(int type, const_bytes block, int r, size_t columns, bytes values, bytes scales) {
    const int is_q2 = type == SIGMA_Q2_K;
    const size_t step = sigma_value_bytes(type), super = sigma_scales(type).bytes;
    for (size_t s = 0; s < columns / 256; s++, block += is_q2 ? Q2_K_BLOCK : Q3_K_BLOCK, scales += super) {
        const_bytes q = block + (is_q2 ? 16 : 32);
        if (is_q2) {
            memcpy(scales + 2 * r, block + 80, 2);
            memcpy(scales + 32 + 2 * r, block + 82, 2);
            for (int i = 0; i < 16; i++) scales[SIGMA_Q2_K_SCALES + 16 * i + r] = block[i];
        } else {
            const_bytes x = block + 96;
            memcpy(scales + 2 * r, block + 108, 2);
            for (int i = 0; i < 16; i++) {
                const int low = i < 8 ? x[i] & 15 : x[i - 8] >> 4, high = x[8 + i % 4] >> 2 * (i / 4) & 3;
                scales[SIGMA_Q6_K_SCALES + 16 * i + r] = (uint8_t)((low | high << 4) - 32);
            }
        }
        for (int t = 0; t < 8; t++, values += step) {
            uint32_t pairs[8], bits = 0;
            for (int c = 0; c < 8; c++) pairs[c] = load32(q + 32 * (t / 4) + 4 * c) >> 2 * (t % 4) & low_pairs;
            set_pairs(values, r, pairs);
            if (is_q2) continue;
            for (int i = 0; i < 32; i++) bits |= (uint32_t)(block[i] >> t & 1) << i;
            set_bits(values + 128, r, bits);
        }
    }
}

static void unpack_q23_k(int type, const_bytes values, const_bytes scales, int r, size_t columns, bytes block) {
    const int is_q2 = type == SIGMA_Q2_K;
    const size_t step = sigma_value_bytes(type), super = sigma_scales(type).bytes, size = is_q2 ? Q2_K_BLOCK : Q3_K_BLOCK;
    for (size_t s = 0; s < columns / 256; s++, block += size, scales += super) {
        memset(block, 0, size);
        bytes q = block + (is_q2 ? 16 : 32);
        if (is_q2) {
            memcpy(block + 80, scales + 2 * r, 2);
            memcpy(block + 82, scales + 32 + 2 * r, 2);
            for (int i = 0; i < 16; i++) block[i] = scales[SIGMA_Q2_K_SCALES + 16 * i + r];
        } else {
            bytes x = block + 96;
            memcpy(block + 108, scales + 2 * r, 2);
            for (int i = 0; i < 16; i++) {
                const uint8_t scale = (uint8_t)(scales[SIGMA_Q6_K_SCALES + 16 * i + r] + 32);
                x[i % 8] |= (uint8_t)(i < 8 ? scale & 15 : (scale & 15) << 4);
                x[8 + i % 4] |= (uint8_t)((scale >> 4 & 3) << 2 * (i / 4));
            }
        }
        for (int t = 0; t < 8; t++, values += step) {
            uint32_t pairs[8];
            pairs_of(values, r, pairs);
            bytes place = q + 32 * (t / 4);
            for (int c = 0; c < 8; c++) store32(place + 4 * c, load32(place + 4 * c) | pairs[c] << 2 * (t % 4));
            if (is_q2) continue;
            const uint32_t bits = bits_of(values + 128, r);
            for (int i = 0; i < 32; i++) block[i] |= (uint8_t)((bits >> i & 1) << t);
        }
    }
}

// iq4_xs: d, 2 bytes with the upper two bits of 8 scales, 4 bytes with their lower four, then 16 bytes per 32 columns as q4_0's.

static void pack_iq4_xs(const_bytes block, int r, size_t columns, bytes values, bytes scales) {
    for (size_t s = 0; s < columns / 256; s++, block += IQ4_XS_BLOCK, scales += SIGMA_IQ4_XS_SUPER) {
        memcpy(scales + 2 * r, block, 2);
        for (int t = 0; t < 8; t++, values += 256) {
            const int low = block[4 + t / 2] >> 4 * (t % 2) & 15, high = block[2 + t / 4] >> 2 * (t % 4) & 3;
            scales[SIGMA_IQ4_XS_SCALES + 16 * t + r] = (uint8_t)((low | high << 4) - 32);
            for (int j = 0; j < 4; j++) set_lane(values, j, r, load32(block + 8 + 16 * t + 4 * j));
        }
    }
}

static void unpack_iq4_xs(const_bytes values, const_bytes scales, int r, size_t columns, bytes block) {
    for (size_t s = 0; s < columns / 256; s++, block += IQ4_XS_BLOCK, scales += SIGMA_IQ4_XS_SUPER) {
        memcpy(block, scales + 2 * r, 2);
        memset(block + 2, 0, 6);
        for (int t = 0; t < 8; t++, values += 256) {
            const uint8_t scale = (uint8_t)(scales[SIGMA_IQ4_XS_SCALES + 16 * t + r] + 32);
            block[4 + t / 2] |= (uint8_t)((scale & 15) << 4 * (t % 2));
            block[2 + t / 4] |= (uint8_t)((scale >> 4 & 3) << 2 * (t % 4));
            for (int j = 0; j < 4; j++) store32(block + 8 + 16 * t + 4 * j, lane(values, j, r));
        }
    }
}

// Any type

size_t sigma_row_bytes(int type, size_t columns) {
    switch (type) {
    case SIGMA_Q8_0: return columns / 32 * Q8_0_BLOCK;
    case SIGMA_Q2_K: return columns / 256 * Q2_K_BLOCK;
    case SIGMA_Q3_K: return columns / 256 * Q3_K_BLOCK;
    case SIGMA_Q4_K: return columns / 256 * Q4_K_BLOCK;
    case SIGMA_Q5_K: return columns / 256 * Q5_K_BLOCK;
    case SIGMA_Q6_K: return columns / 256 * Q6_K_BLOCK;
    case SIGMA_IQ4_XS: return columns / 256 * IQ4_XS_BLOCK;
    default: return columns / 32 * nibble_layout_of(type).block;
    }
}

void sigma_pack_group(int type, const void *blocks, int rows, size_t columns, void *group) {
    const size_t size = sigma_row_bytes(type, columns), region = sigma_value_region(type, columns);
    const size_t used = region + sigma_scale_region(type, columns);
    if (rows < SIGMA_GROUP)
        memset(group, 0, used);
    memset((bytes)group + used, 0, sigma_group_bytes(type, columns) - used);
    bytes values = group, scales = values + region;
    for (int r = 0; r < rows; r++) {
        const_bytes row = (const_bytes)blocks + size * (size_t)r;
        switch (type) {
        case SIGMA_Q8_0: pack_q8_0(row, r, columns, values, scales); break;
        case SIGMA_Q2_K: case SIGMA_Q3_K: pack_q23_k(type, row, r, columns, values, scales); break;
        case SIGMA_Q4_K: case SIGMA_Q5_K: pack_q45_k(type, row, r, columns, values, scales); break;
        case SIGMA_Q6_K: pack_q6_k(row, r, columns, values, scales); break;
        case SIGMA_IQ4_XS: pack_iq4_xs(row, r, columns, values, scales); break;
        default: pack_nibbles(type, row, r, columns, values, scales); break;
        }
    }
}

void sigma_unpack_group(int type, const void *group, int first, int rows, size_t columns, void *blocks) {
    const size_t size = sigma_row_bytes(type, columns);
    const_bytes values = group, scales = values + sigma_value_region(type, columns);
    for (int i = 0; i < rows; i++) {
        bytes row = (bytes)blocks + size * (size_t)i;
        const int r = first + i;
        switch (type) {
        case SIGMA_Q8_0: unpack_q8_0(values, scales, r, columns, row); break;
        case SIGMA_Q2_K: case SIGMA_Q3_K: unpack_q23_k(type, values, scales, r, columns, row); break;
        case SIGMA_Q4_K: case SIGMA_Q5_K: unpack_q45_k(type, values, scales, r, columns, row); break;
        case SIGMA_Q6_K: unpack_q6_k(values, scales, r, columns, row); break;
        case SIGMA_IQ4_XS: unpack_iq4_xs(values, scales, r, columns, row); break;
        default: unpack_nibbles(type, values, scales, r, columns, row); break;
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

// 2^(e - 128).
static float power_of_two(uint8_t e) {
    const uint32_t bits = e < 2 ? (uint32_t)0x200000 << e : (uint32_t)(e - 1) << 23;
    float v;
    memcpy(&v, &bits, 4);
    return v;
}

static int byte_of(const uint32_t *q, int column) { return (int)(q[column / 4] >> 8 * (column % 4) & 255); }

// The unsigned values of 32 columns, four in each.
static void values_of(int type, const_bytes values, int r, uint32_t q[8]) {
    if (type == SIGMA_Q8_0)
        for (int c = 0; c < 8; c++) q[c] = lane(values, c, r);
    else if (sigma_has_pairs(type))
        pairs_of(values, r, q);
    else
        nibbles(values, r, q);
    if (type == SIGMA_Q6_K) {
        uint32_t pairs[8];
        pairs_of(values + 256, r, pairs);
        for (int c = 0; c < 8; c++) q[c] |= pairs[c] << 4;
    }
    if (sigma_has_fifth_bits(type) || type == SIGMA_Q3_K) {
        const int place = type == SIGMA_Q3_K ? 2 : 4;
        const uint32_t bits = bits_of(values + (type == SIGMA_Q3_K ? 128 : 256), r);
        for (int i = 0; i < 32; i++) q[i / 4] |= (bits >> i & 1) << (place + 8 * (i % 4));
    }
    if (sigma_has_table(type))
        for (int c = 0; c < 8; c++) {
            uint32_t v = 0;
            for (int i = 0; i < 4; i++) v |= (uint32_t)sigma_table(type)[q[c] >> 8 * i & 255] << 8 * i;
            q[c] = v;
        }
}

void sigma_dequantize_row(int type, const void *group, int r, size_t columns, float *out) {
    const_bytes values = group, scales = values + sigma_value_region(type, columns);
    const sigma_scale_block block = sigma_scales(type);
    const size_t step = sigma_value_bytes(type);
    const int zero = 4 * sigma_zero_fourths(type);
    for (size_t b = 0; b < columns / 32; b++, values += step, out += 32) {
        const_bytes super = scales + (block.columns == 32 ? b : b / 8) * block.bytes;
        uint32_t q[8];
        values_of(type, values, r, q);
        // Of the first and the second 16 columns.
        float d[2], m[2] = {0, 0};
        switch (type) {
        case SIGMA_Q2_K:
            for (int half = 0; half < 2; half++) {
                const uint8_t both = super[SIGMA_Q2_K_SCALES + 16 * (2 * (b % 8) + (size_t)half) + (size_t)r];
                d[half] = half_at(super + 2 * r) * (float)(both & 15);
                m[half] = half_at(super + 32 + 2 * r) * (float)(both >> 4);
            }
            break;
        case SIGMA_Q4_K: case SIGMA_Q5_K: {
            uint8_t scale[8], minimum[8];
            scales_q4_k(super, r, scale, minimum);
            d[0] = d[1] = half_at(super + 2 * r) * (float)scale[b % 8];
            m[0] = m[1] = half_at(super + 32 + 2 * r) * (float)minimum[b % 8];
            break;
        }
        case SIGMA_Q6_K: case SIGMA_Q3_K:
            for (int half = 0; half < 2; half++) {
                const int8_t s = (int8_t)super[SIGMA_Q6_K_SCALES + 16 * (2 * (b % 8) + (size_t)half) + (size_t)r];
                d[half] = half_at(super + 2 * r) * (float)s;
            }
            break;
        case SIGMA_IQ4_XS:
            d[0] = d[1] = half_at(super + 2 * r) * (float)(int8_t)super[SIGMA_IQ4_XS_SCALES + 16 * (b % 8) + (size_t)r];
            break;
        case SIGMA_MXFP4: d[0] = d[1] = power_of_two(super[r]); break;
        case SIGMA_Q4_1: case SIGMA_Q5_1: m[0] = m[1] = -half_at(super + 32 + 2 * r);  // fall through
        default: d[0] = d[1] = half_at(super + 2 * r); break;
        }
        for (int i = 0; i < 32; i++) {
            const float product = d[i / 16] * (float)(byte_of(q, i) - zero);
            out[i] = sigma_has_minimum(type) ? product - m[i / 16] : product;
        }
    }
}

int sigma_group_is_finite(int type, const void *group, size_t columns) {
    const size_t region = sigma_scale_region(type, columns);
    const sigma_scale_block block = sigma_scales(type);
    const_bytes scales = (const_bytes)group + sigma_value_region(type, columns);
    if (type == SIGMA_MXFP4) {
        // Twelve times a higher power is beyond fp32.
        for (size_t i = 0; i < region; i++)
            if (scales[i] > SIGMA_MXFP4_LARGEST) return 0;
        return 1;
    }
    // One more carries out of an exponent whose bits are all set.
    uint16_t carries = 0;
    for (size_t start = 0; start < region; start += block.bytes)
        for (size_t i = 0; i < block.halves; i += 2) {
            uint16_t v;
            memcpy(&v, scales + start + i, 2);
            carries |= (uint16_t)((v & 0x7c00) + 0x0400);
        }
    return (carries & 0x8000) == 0;
}
