// Products with packed matrices: part of kernels_body.h. A level defines
//   vw                      LANES times four unsigned 8-bit weights: four successive columns of LANES rows
//   load_weights            aligned
//   low_nibbles, high_nibbles, join_six(low, pairs, field): low | 2-bit field << 4
//   dot_nibbles, dot_nibbles_raw, dot_six, dot_bytes: vi of LANES rows against 32 (dot_six: 16) activations, exact; the weights' zero
//                           point (8, none, 32, 128) is taken off.
// and MATRIX_PRODUCTS if it has what kernels_matrix.h needs.
// An output is one lane: its sum runs over the blocks of 32 columns in order, whatever is computed beside it.

typedef uint8_t vu __attribute__((vector_size(LANES), aligned(1)));

INLINE vf from_int(vi v) { return __builtin_convertvector(v, vf); }

// Scale and minimum, in units of d and dmin, of one of the 8 times 32 columns of a q4_k super-block.
INLINE void scales_q4_k(const uint8_t *pairs, int which, vf *scale, vf *minimum) {
    const uint8_t *pair = pairs + SIGMA_Q4_K_PAIR * (which / 2);
    const vi low = __builtin_convertvector(*(const vu *)(pair + 16 * (which % 2)), vi);
    const vi high = __builtin_convertvector(*(const vu *)(pair + 32), vi) >> 4 * (which % 2);
    *scale = from_int((low & 15) | (high & 3) << 4);
    *minimum = from_int(low >> 4 | (high >> 2 & 3) << 4);
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
        if (type == SIGMA_Q8_0) {
            UNROLLED for (int c = 0; c < 8; c++) w[c] = load_weights(values + 64 * c);
        } else {
            UNROLLED for (int j = 0; j < 4; j++) {
                const vw both = load_weights(values + 64 * j);
                w[j] = low_nibbles(both);
                w[j + 4] = high_nibbles(both);
            }
        }
        if (type == SIGMA_Q8_0 || type == SIGMA_Q4_0) {
            const vf d = load_half((const uint16_t *)scales + 16 * b + LANES * part);
            UNROLLED for (int i = 0; i < rows; i++) {
                const sigma_activation_block *block = blocks[i]++;
                const vi dots = type == SIGMA_Q8_0 ? (vi)dot_bytes(w, block) : (vi)dot_nibbles(w, block);
                sums[i] = from_int(dots) * (d * block->scale) + sums[i];
            }
        } else if (type == SIGMA_Q4_K) {
            const uint8_t *super = scales + SIGMA_Q4_K_SUPER * (b / 8);
            vf d, m;
            scales_q4_k(super + SIGMA_Q4_K_SCALES + LANES * part, b % 8, &d, &m);
            d *= load_half((const uint16_t *)super + LANES * part);
            m *= load_half((const uint16_t *)super + 16 + LANES * part);
            UNROLLED for (int i = 0; i < rows; i++) {
                const sigma_activation_block *block = blocks[i]++;
                sums[i] = from_int((vi)dot_nibbles_raw(w, block)) * (d * block->scale) + sums[i];
                sums[i] = sums[i] - m * block->scaled_sum;
            }
        } else {
            const vw pairs[2] = {load_weights(values + 256), load_weights(values + 320)};
            UNROLLED for (int c = 0; c < 8; c++) w[c] = join_six(w[c], pairs[c / 4], c % 4);
            const uint8_t *super = scales + SIGMA_Q6_K_SUPER * (b / 8);
            const vf d = load_half((const uint16_t *)super + LANES * part);
            const vb *bytes = (const vb *)(super + SIGMA_Q6_K_SCALES + 32 * (b % 8) + LANES * part);
            const vf d1 = d * from_int(__builtin_convertvector(*bytes, vi));
            const vf d2 = d * from_int(__builtin_convertvector(*(const vb *)((const char *)bytes + 16), vi));
            UNROLLED for (int i = 0; i < rows; i++) {
                const sigma_activation_block *block = blocks[i]++;
                sums[i] = from_int((vi)dot_six(w, block->q, block->first)) * (d1 * block->scale) + sums[i];
                sums[i] = from_int((vi)dot_six(w + 4, block->q + 16, block->both - block->first)) * (d2 * block->scale) + sums[i];
            }
        }
    }
    UNROLLED for (int i = 0; i < rows; i++) store(y + (size_t)(first + i) * y_stride + LANES * part, sums[i]);
}

// One group against all activation rows, eight at a time.
INLINE void packed_group(int type, const uint8_t *group, size_t ahead, int k, const sigma_activations *a, int m, float *y,
                         size_t y_stride) {
    for (int part = 0; part < SIGMA_GROUP / LANES; part++) {
        int i = 0;
        for (; i + 8 <= m; i += 8) packed_tile(type, group, ahead, part, k, a, i, 8, y, y_stride);
        switch (m - i) {
        case 7: packed_tile(type, group, ahead, part, k, a, i, 7, y, y_stride); break;
        case 6: packed_tile(type, group, ahead, part, k, a, i, 6, y, y_stride); break;
        case 5: packed_tile(type, group, ahead, part, k, a, i, 5, y, y_stride); break;
        case 4: packed_tile(type, group, ahead, part, k, a, i, 4, y, y_stride); break;
        case 3: packed_tile(type, group, ahead, part, k, a, i, 3, y, y_stride); break;
        case 2: packed_tile(type, group, ahead, part, k, a, i, 2, y, y_stride); break;
        case 1: packed_tile(type, group, ahead, part, k, a, i, 1, y, y_stride); break;
        }
    }
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
    switch (type) {
    case SIGMA_Q8_0: matmul_packed_typed(SIGMA_Q8_0, groups, n, k, a, m, y, y_stride); break;
    case SIGMA_Q6_K: matmul_packed_typed(SIGMA_Q6_K, groups, n, k, a, m, y, y_stride); break;
    case SIGMA_Q4_K: matmul_packed_typed(SIGMA_Q4_K, groups, n, k, a, m, y, y_stride); break;
    default: matmul_packed_typed(SIGMA_Q4_0, groups, n, k, a, m, y, y_stride); break;
    }
}
