// Products of several activation rows with packed matrices by 8-bit matrix products: part of kernels_packed.h, for the level i8mm.
//
// One instruction multiplies two rows of weights with two activation rows over eight columns, twice of what a dot product does. Its
// operands hold eight columns of one row, then of the other: weights are brought into that order in registers, for each block; activations
// once for all groups, in a panel. Sums stay in the order of its result, [w0 a0, w0 a1, w1 a0, w1 a1], to the end. Every number is computed
// as in packed_tile.

enum { PANEL_PAIRS = 4, PANEL_BLOCKS = 64 };

// Up to eight activation rows in pairs, over up to PANEL_BLOCKS times 32 columns.
typedef struct {
    int8_t q[PANEL_BLOCKS][PANEL_PAIRS][4][16];  // eight columns of the first row, then of the second
    float scale[PANEL_BLOCKS][PANEL_PAIRS][2], scaled_sum[PANEL_BLOCKS][PANEL_PAIRS][2];
    int32_t both[PANEL_BLOCKS][PANEL_PAIRS][2], first[PANEL_BLOCKS][PANEL_PAIRS][2];
} activation_panel;

static void fill_panel(activation_panel *panel, const sigma_activations *a, int row, int pairs, int block, int blocks) {
    for (int i = 0; i < 2 * pairs; i++) {
        const sigma_activation_block *source = a->blocks + activation_row(a, row + i) * a->block_stride + block;
        for (int b = 0; b < blocks; b++, source++) {
            for (int c = 0; c < 4; c++) __builtin_memcpy(panel->q[b][i / 2][c] + i % 2 * 8, source->q + 8 * c, 8);
            panel->scale[b][i / 2][i % 2] = source->scale;
            panel->scaled_sum[b][i / 2][i % 2] = source->scaled_sum;
            panel->both[b][i / 2][i % 2] = source->both;
            panel->first[b][i / 2][i % 2] = source->first;
        }
    }
}

// [x0, x1, x0, x1]
INLINE vf both_floats(const float *x) { return vreinterpretq_f32_f64(vld1q_dup_f64((const double *)x)); }
INLINE vi both_ints(const int32_t *x) { return vreinterpretq_s32_s64(vld1q_dup_s64((const int64_t *)x)); }

// Of lanes that are rows 0 to 3: [0, 0, 1, 1] and [2, 2, 3, 3].
typedef struct {
    vf low, high;
} row_pairs;

INLINE row_pairs doubled(vf v) { return (row_pairs){vzip1q_f32(v, v), vzip2q_f32(v, v)}; }

// sums += what `columns` times eight columns give, times the scales of rows and activations.
INLINE void add_products(const vw (*w)[2], const int8_t (*q)[16], int columns, vi offset, row_pairs scale, vf activation_scale,
                         vf sums[2]) {
    int32x4_t low = offset, high = offset;
    UNROLLED for (int c = 0; c < columns; c++) {
        const int8x16_t activations = vld1q_s8(q[c]);
        low = vusmmlaq_s32(low, w[c][0], activations);
        high = vusmmlaq_s32(high, w[c][1], activations);
    }
    sums[0] = from_int(low) * (scale.low * activation_scale) + sums[0];
    sums[1] = from_int(high) * (scale.high * activation_scale) + sums[1];
}

// sums -= minima times the scaled sums of the activations.
INLINE void take_minimum(row_pairs m, vf scaled_sum, vf sums[2]) {
    sums[0] = sums[0] - m.low * scaled_sum;
    sums[1] = sums[1] - m.high * scaled_sum;
}

// As zero_part.
INLINE vi zero_parts(int type, vi sums) { return type == SIGMA_Q3_K ? sums >> 1 : sigma_zero_fourths(type) / 2 * sums; }

// Rows part * 4 ..< part * 4 + 4 of a group with `pairs` (a constant where it is called) pairs of a panel. y holds the sums of the
// columns before the panel's, if there are any.
INLINE void matrix_tile(int type, const uint8_t *group, size_t ahead, int part, int k, const activation_panel *panel, int block, int blocks,
                        int pairs, float *y, size_t y_stride) {
    const size_t step = sigma_value_bytes(type);
    const uint8_t *values = group + 16 * part + (size_t)block * step;
    const uint8_t *scales = group + sigma_value_region(type, (size_t)k);
    vf sums[PANEL_PAIRS][2];
    UNROLLED for (int p = 0; p < pairs; p++) {
        sums[p][0] = sums[p][1] = splat(0);
        if (block == 0) continue;
        const vf a0 = load(y + (size_t)(2 * p) * y_stride + 4 * part), a1 = load(y + (size_t)(2 * p + 1) * y_stride + 4 * part);
        sums[p][0] = vzip1q_f32(a0, a1);
        sums[p][1] = vzip2q_f32(a0, a1);
    }
    for (int b = 0; b < blocks; b++, values += step) {
        if (part == 0) UNROLLED for (size_t line = 0; line < step; line += 64) __builtin_prefetch(values + ahead + line);
        vw columns[8], w[4][2];
        load_values(type, values, columns);
        UNROLLED for (int c = 0; c < 4; c++) {
            const uint32x4_t even = vreinterpretq_u32_u8(columns[2 * c]), odd = vreinterpretq_u32_u8(columns[2 * c + 1]);
            w[c][0] = vreinterpretq_u8_u32(vzip1q_u32(even, odd));
            w[c][1] = vreinterpretq_u8_u32(vzip2q_u32(even, odd));
        }
        const packed_scales s = load_scales(type, scales, block + b, 4 * part);
        const int halves = sigma_has_halves(type) ? 2 : 1;
        row_pairs d[2], m[2];
        UNROLLED for (int half = 0; half < halves; half++) {
            d[half] = doubled(s.d[half]);
            if (sigma_has_minimum(type)) m[half] = doubled(s.m[half]);
        }
        UNROLLED for (int p = 0; p < pairs; p++) {
            const vf scale = both_floats(panel->scale[b][p]);
            const vi both = both_ints(panel->both[b][p]);
            if (halves == 1) {
                add_products(w, panel->q[b][p], 4, zero_parts(type, both), d[0], scale, sums[p]);
                if (sigma_has_minimum(type)) take_minimum(m[0], both_floats(panel->scaled_sum[b][p]), sums[p]);
                continue;
            }
            const vi first = both_ints(panel->first[b][p]);
            UNROLLED for (int half = 0; half < 2; half++) {
                const vi sum = half == 0 ? first : both - first;
                add_products(w + 2 * half, panel->q[b][p] + 2 * half, 2, zero_parts(type, sum), d[half], scale, sums[p]);
                if (sigma_has_minimum(type)) take_minimum(m[half], scale * from_int(-(sum >> 3)), sums[p]);
            }
        }
    }
    UNROLLED for (int p = 0; p < pairs; p++) {
        store(y + (size_t)(2 * p) * y_stride + 4 * part, vuzp1q_f32(sums[p][0], sums[p][1]));
        store(y + (size_t)(2 * p + 1) * y_stride + 4 * part, vuzp2q_f32(sums[p][0], sums[p][1]));
    }
}

INLINE void matrix_group(int type, const uint8_t *group, size_t ahead, int k, const activation_panel *panel, int block, int blocks,
                         int pairs, float *y, size_t y_stride) {
    for (int part = 0; part < SIGMA_GROUP / 4; part++) switch (pairs) {
        case 4: matrix_tile(type, group, ahead, part, k, panel, block, blocks, 4, y, y_stride); break;
        case 3: matrix_tile(type, group, ahead, part, k, panel, block, blocks, 3, y, y_stride); break;
        default: matrix_tile(type, group, ahead, part, k, panel, block, blocks, 2, y, y_stride); break;
        }
}

// The first rows of `a`, in eights, sixes or fours; returns how many. The others are packed_tile's.
INLINE int matmul_pairs(int type, const uint8_t *groups, int n, int k, const sigma_activations *a, int m, float *y, size_t y_stride) {
    const size_t bytes = sigma_group_bytes(type, (size_t)k);
    activation_panel panel;
    int row = 0;
    while (m - row >= 4) {
        const int pairs = m - row >= 8 ? 4 : has_all_tiles(type) ? (m - row) / 2 : 2;
        float *out = y + (size_t)row * y_stride;
        // Of the last group, whose missing rows must not be written to y.
        float last[2 * PANEL_PAIRS * SIGMA_GROUP];
        for (int block = 0; block < k / 32; block += PANEL_BLOCKS) {
            const int blocks = k / 32 - block < PANEL_BLOCKS ? k / 32 - block : PANEL_BLOCKS;
            fill_panel(&panel, a, row, pairs, block, blocks);
            const uint8_t *group = groups;
            int j = 0;
            for (; j + SIGMA_GROUP <= n; j += SIGMA_GROUP, group += bytes)
                matrix_group(type, group, bytes, k, &panel, block, blocks, pairs, out + j, y_stride);
            if (j < n) matrix_group(type, group, 0, k, &panel, block, blocks, pairs, last, SIGMA_GROUP);
        }
        const int rest = n % SIGMA_GROUP;
        for (int i = 0; rest > 0 && i < 2 * pairs; i++)
            __builtin_memcpy(out + (size_t)i * y_stride + n - rest, last + i * SIGMA_GROUP, (size_t)rest * sizeof(float));
        row += 2 * pairs;
    }
    return row;
}
