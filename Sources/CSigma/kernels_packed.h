// Products with packed matrices: part of kernels_body.h. A level defines
//   vw                      LANES times four unsigned 8-bit weights: four successive columns of LANES rows
//   load_weights            aligned
//   low_nibbles, high_nibbles, two_bits(v, field), join_six(low, pairs, field): low | 2-bit field << 4
//   join_bit(low, bits, column, place): low | bit `column` << place
//   lookup(table, v)        table[v] of values below 16
//   dot_nibbles, dot_nibbles_raw, dot_bytes: vi of LANES rows against 32 activations, exact; the weights' zero point (8, none, 128) is
//                           taken off.
//   dot_six(w, q, sum)      likewise of six bits at most against 16 activations, added to `sum`
// and MATRIX_PRODUCTS if it has what kernels_matrix.h needs.
// An output is one lane: its sum runs over the blocks of 32 columns in order, whatever is computed beside it.

typedef uint8_t vu __attribute__((vector_size(LANES), aligned(1)));

INLINE vf from_int(vi v) { return __builtin_convertvector(v, vf); }

// Unsigned weights of 32 columns, four in each.
INLINE void load_values(int type, const uint8_t *values, vw w[8]) {
    if (type == SIGMA_Q8_0) {
        UNROLLED for (int c = 0; c < 8; c++) w[c] = load_weights(values + 64 * c);
    } else if (sigma_has_pairs(type)) {
        const vw pairs[2] = {load_weights(values), load_weights(values + 64)};
        UNROLLED for (int c = 0; c < 8; c++) w[c] = two_bits(pairs[c / 4], c % 4);
    } else {
        UNROLLED for (int j = 0; j < 4; j++) {
            const vw both = load_weights(values + 64 * j);
            w[j] = low_nibbles(both);
            w[j + 4] = high_nibbles(both);
        }
    }
    if (type == SIGMA_Q6_K) {
        const vw pairs[2] = {load_weights(values + 256), load_weights(values + 320)};
        UNROLLED for (int c = 0; c < 8; c++) w[c] = join_six(w[c], pairs[c / 4], c % 4);
    } else if (sigma_has_fifth_bits(type)) {
        const vw bits = load_weights(values + 256);
        UNROLLED for (int c = 0; c < 8; c++) w[c] = join_bit(w[c], bits, c, 4);
    } else if (type == SIGMA_Q3_K) {
        const vw bits = load_weights(values + 128);
        UNROLLED for (int c = 0; c < 8; c++) w[c] = join_bit(w[c], bits, c, 2);
    } else if (sigma_has_table(type)) {
        UNROLLED for (int c = 0; c < 8; c++) w[c] = lookup(sigma_table(type), w[c]);
    }
}

// Of 32 columns (where scales are of 16: of each half): a weight is d * (value - zero) - m.
typedef struct {
    vf d[2], m[2];
} packed_scales;

// 2^(e - 128), as the halved scale of mxfp4.
INLINE vf power_of_two(vi e) {
    const vi subnormal = (vi){0} + 0x200000 << (e & 1), normal = (e - 1) << 23, is_normal = e > 1;
    const vi bits = (subnormal & ~is_normal) | (normal & is_normal);
    vf v;
    __builtin_memcpy(&v, &bits, sizeof v);
    return v;
}

// Of the columns 32 * b on; `lane` is the first of LANES rows. `scales` is where the group's scales begin.
INLINE packed_scales load_scales(int type, const uint8_t *scales, int b, int lane) {
    packed_scales s;
    const sigma_scale_block block = sigma_scales(type);
    const uint8_t *super = scales + (block.columns == 32 ? (size_t)b : (size_t)(b / 8)) * block.bytes;
    if (type == SIGMA_MXFP4) {
        s.d[0] = power_of_two(__builtin_convertvector(*(const vu *)(super + lane), vi));
        return s;
    }
    const vf d = load_half((const uint16_t *)super + lane);
    if (type == SIGMA_Q4_K || type == SIGMA_Q5_K) {
        const uint8_t *pair = super + SIGMA_Q4_K_SCALES + SIGMA_Q4_K_PAIR * (b % 8 / 2) + lane;
        const vi low = __builtin_convertvector(*(const vu *)(pair + 16 * (b % 2)), vi);
        const vi high = __builtin_convertvector(*(const vu *)(pair + 32), vi) >> 4 * (b % 2);
        s.d[0] = from_int((low & 15) | (high & 3) << 4) * d;
        s.m[0] = from_int(low >> 4 | (high >> 2 & 3) << 4) * load_half((const uint16_t *)super + 16 + lane);
    } else if (type == SIGMA_Q6_K || type == SIGMA_Q3_K) {
        const vb *bytes = (const vb *)(super + SIGMA_Q6_K_SCALES + 32 * (b % 8) + lane);
        s.d[0] = d * from_int(__builtin_convertvector(*bytes, vi));
        s.d[1] = d * from_int(__builtin_convertvector(*(const vb *)((const char *)bytes + 16), vi));
    } else if (type == SIGMA_Q2_K) {
        const vf dmin = load_half((const uint16_t *)super + 16 + lane);
        UNROLLED for (int half = 0; half < 2; half++) {
            const vi both = __builtin_convertvector(*(const vu *)(super + SIGMA_Q2_K_SCALES + 32 * (b % 8) + 16 * half + lane), vi);
            s.d[half] = d * from_int(both & 15);
            s.m[half] = dmin * from_int(both >> 4);
        }
    } else if (type == SIGMA_IQ4_XS) {
        s.d[0] = d * from_int(__builtin_convertvector(*(const vb *)(super + SIGMA_IQ4_XS_SCALES + 16 * (b % 8) + lane), vi));
    } else {
        s.d[0] = d;
        if (type == SIGMA_Q4_1 || type == SIGMA_Q5_1) s.m[0] = -load_half((const uint16_t *)super + 16 + lane);
    }
    return s;
}

// What the zero point takes off a sum of products, from -8 times the sum of the activations.
INLINE int32_t zero_part(int type, int32_t sums) { return type == SIGMA_Q3_K ? sums / 2 : sigma_zero_fourths(type) / 2 * sums; }

// 32 columns with one scale.
INLINE vi dot_32_columns(int type, const vw w[8], const sigma_activation_block *block) {
    if (type == SIGMA_Q8_0 || sigma_has_table(type)) return (vi)dot_bytes(w, block);
    if (type == SIGMA_Q4_0) return (vi)dot_nibbles(w, block);
    if (!sigma_has_fifth_bits(type)) return (vi)dot_nibbles_raw(w, block);
    return (vi)dot_six(w, block->q, zero_part(type, block->both)) + (vi)dot_six(w + 4, block->q + 16, 0);
}

// scale * sum of the first or the second 16 of q.
INLINE float scaled_half_sum(const sigma_activation_block *block, int half) {
    return block->scale * (float)((half == 0 ? block->first : block->both - block->first) / -8);
}

// `rows` (a constant where it is called) activation rows against the rows part * LANES ..< (part + 1) * LANES of a group.
INLINE void packed_tile(int type, const uint8_t *group, size_t ahead, int part, int k, const sigma_activations *a, int first,
                        int rows, float *y, size_t y_stride) {
    const size_t step = sigma_value_bytes(type);
    const uint8_t *values = group + 4 * LANES * part;
    const uint8_t *scales = group + sigma_value_region(type, (size_t)k);
    const sigma_activation_block *blocks[8];
    vf sums[8];
    UNROLLED for (int i = 0; i < rows; i++) {
        blocks[i] = a->blocks + activation_row(a, first + i) * a->block_stride;
        sums[i] = splat(0);
    }
    for (int b = 0; b < k / 32; b++, values += step) {
        UNROLLED for (size_t line = 0; line < step; line += 64) __builtin_prefetch(values + ahead + line, 0, 2);
        // Every row keeps an address of its own: with one index for all, an instruction that multiplies what it loads is issued as two.
        UNROLLED for (int i = 0; i < rows; i++) __asm__("" : "+r"(blocks[i]));
        vw w[8];
        load_values(type, values, w);
        const packed_scales s = load_scales(type, scales, b, LANES * part);
        UNROLLED for (int i = 0; i < rows; i++) {
            const sigma_activation_block *block = blocks[i]++;
            if (!sigma_has_halves(type)) {
                sums[i] = from_int(dot_32_columns(type, w, block)) * (s.d[0] * block->scale) + sums[i];
                if (sigma_has_minimum(type)) sums[i] = sums[i] - s.m[0] * block->scaled_sum;
                continue;
            }
            UNROLLED for (int half = 0; half < 2; half++) {
                const int32_t zero = zero_part(type, half == 0 ? block->first : block->both - block->first);
                sums[i] = from_int((vi)dot_six(w + 4 * half, block->q + 16 * half, zero)) * (s.d[half] * block->scale) + sums[i];
                if (sigma_has_minimum(type)) sums[i] = sums[i] - s.m[half] * scaled_half_sum(block, half);
            }
        }
    }
    UNROLLED for (int i = 0; i < rows; i++) store(y + (size_t)(first + i) * y_stride + LANES * part, sums[i]);
}

// Types that models are converted to here: they have a tile for each number of rows. The others, which only files of other tools have, make do
// with two, so that the compiler's work stays bearable.
INLINE int has_all_tiles(int type) {
    return type == SIGMA_Q4_0 || type == SIGMA_Q8_0 || type == SIGMA_Q4_K || type == SIGMA_Q6_K;
}

// One group against all activation rows, up to eight at a time.
INLINE void packed_group(int type, const uint8_t *group, size_t ahead, int k, const sigma_activations *a, int m, float *y,
                         size_t y_stride) {
#define TILE(rows) packed_tile(type, group, ahead, part, k, a, i, rows, y, y_stride)
    for (int part = 0; part < SIGMA_GROUP / LANES; part++) {
        int i = 0;
        if (!has_all_tiles(type)) {
            for (; i + 4 <= m; i += 4) TILE(4);
            for (; i < m; i++) TILE(1);
            continue;
        }
        for (; i + 8 <= m; i += 8) TILE(8);
        switch (m - i) {
        case 7: TILE(7); break;
        case 6: TILE(6); break;
        case 5: TILE(5); break;
        case 4: TILE(4); break;
        case 3: TILE(3); break;
        case 2: TILE(2); break;
        case 1: TILE(1); break;
        }
    }
#undef TILE
}

// The activation rows from `first` on, for quantized weights.
INLINE sigma_activations rows_from(const sigma_activations *a, int first) {
    sigma_activations rows = *a;
    if (a->index)
        rows.index += first;
    else
        rows.blocks += (size_t)first * a->block_stride;
    return rows;
}

#ifdef MATRIX_PRODUCTS
#include "kernels_matrix.h"
#endif

// Activation rows whose blocks stay in the second cache while the groups pass by.
enum { ROW_BLOCK = 128 };

INLINE void matmul_packed_typed(int type, const uint8_t *groups, int n, int k, const sigma_activations *a, int m, float *y,
                                size_t y_stride) {
    const size_t bytes = sigma_group_bytes(type, (size_t)k);
    // What is asked for in advance: the next group; of a lone one some of its own.
    const size_t ahead = n > SIGMA_GROUP ? bytes : 1024;
#ifdef MATRIX_PRODUCTS
    const int done = matmul_pairs(type, groups, n, k, a, m, y, y_stride);
    const sigma_activations others = rows_from(a, done);
    a = &others;
    m -= done;
    y += (size_t)done * y_stride;
#endif
    for (int i = 0; i < m; i += ROW_BLOCK) {
        const int rows = m - i < ROW_BLOCK ? m - i : ROW_BLOCK;
        const sigma_activations piece = rows_from(a, i);
        const uint8_t *group = groups;
        for (int j = 0; j < n; j += SIGMA_GROUP, group += bytes) {
            float *out = y + (size_t)i * y_stride + j;
            if (j + SIGMA_GROUP <= n) {
                packed_group(type, group, ahead, k, &piece, rows, out, y_stride);
                continue;
            }
            // The last group's missing rows must not be written to y.
            float whole[ROW_BLOCK * SIGMA_GROUP];
            packed_group(type, group, 0, k, &piece, rows, whole, SIGMA_GROUP);
            for (int row = 0; row < rows; row++)
                __builtin_memcpy(out + (size_t)row * y_stride, whole + row * SIGMA_GROUP, (size_t)(n - j) * sizeof(float));
        }
    }
}

static void matmul_packed(int type, const void *groups, int n, int k, const sigma_activations *a, int m, float *y,
                          size_t y_stride) {
#define TYPED(TYPE) case TYPE: matmul_packed_typed(TYPE, groups, n, k, a, m, y, y_stride); break
    switch (type) {
        TYPED(SIGMA_Q4_0);
        TYPED(SIGMA_Q4_1);
        TYPED(SIGMA_Q5_0);
        TYPED(SIGMA_Q5_1);
        TYPED(SIGMA_Q8_0);
        TYPED(SIGMA_Q2_K);
        TYPED(SIGMA_Q3_K);
        TYPED(SIGMA_Q4_K);
        TYPED(SIGMA_Q5_K);
        TYPED(SIGMA_Q6_K);
        TYPED(SIGMA_IQ4_NL);
        TYPED(SIGMA_IQ4_XS);
        TYPED(SIGMA_MXFP4);
    }
#undef TYPED
}
