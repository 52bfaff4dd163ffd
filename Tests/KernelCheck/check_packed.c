// Activations in 8 bits, and products with packed matrices. Rows are made as ggml's blocks, read here number by number, and packed by
// the code that conversion uses.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "sigma_half.h"
#include "sigma_packing.h"

// Rows of ggml blocks, and what stands in them.
typedef struct {
    int type, n, k;
    size_t row_bytes, group_bytes;
    uint8_t *blocks, *groups;
} matrix;

static size_t block_length(int type) {
    switch (type) {
    case SIGMA_Q2_K: case SIGMA_Q3_K: case SIGMA_Q4_K: case SIGMA_Q5_K: case SIGMA_Q6_K: case SIGMA_IQ4_XS: return 256;
    default: return 32;
    }
}
static size_t block_bytes(int type) { return sigma_row_bytes(type, block_length(type)); }
// Where a block has its fp16 factor d, and that of the minima; -1: nowhere.
static int factor_place(int type) {
    return type == SIGMA_MXFP4 ? -1 : type == SIGMA_Q6_K ? 208 : type == SIGMA_Q3_K ? 108 : type == SIGMA_Q2_K ? 80 : 0;
}
static int minimum_place(int type) {
    switch (type) {
    case SIGMA_Q4_1: case SIGMA_Q5_1: case SIGMA_Q4_K: case SIGMA_Q5_K: return 2;
    case SIGMA_Q2_K: return 82;
    default: return -1;
    }
}

static void put_half(uint8_t *p, float value) {
    const uint16_t half = sigma_float_to_half(value);
    memcpy(p, &half, 2);
}

static double half_at(const uint8_t *p) {
    uint16_t half;
    memcpy(&half, p, 2);
    return sigma_half_to_float(half);
}

// 6-bit scale (which = 0) and minimum (1) of 32-column part `part` of a q4_k block.
static int scale_q4_k(const uint8_t *x, int part, int which) {
    const uint8_t *own = x + (which ? 4 : 0);
    if (part < 4) return own[part] & 63;
    return (which ? x[part + 4] >> 4 : x[part + 4] & 15) | own[part - 4] >> 6 << 4;
}

static const int8_t nonlinear[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
static const int8_t e2m1[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

// The integer weight of column `c` of a block; of its term: what multiplies it, and what is taken off.
static int weight(int type, const uint8_t *block, int c, double *factor, double *minus) {
    *minus = 0;
    if (factor_place(type) >= 0) *factor = half_at(block + factor_place(type));
    const uint8_t *q = block + 2;
    switch (type) {
    case SIGMA_Q8_0: return (int8_t)q[c];
    case SIGMA_Q4_0: return (c < 16 ? q[c] & 15 : q[c - 16] >> 4) - 8;
    case SIGMA_IQ4_NL: return nonlinear[c < 16 ? q[c] & 15 : q[c - 16] >> 4];
    case SIGMA_MXFP4:
        *factor = ldexp(1, block[0] - 128);
        return e2m1[c < 16 ? block[1 + c] & 15 : block[1 + c - 16] >> 4];
    case SIGMA_Q4_1:
        *minus = -half_at(block + 2);
        return c < 16 ? block[4 + c] & 15 : block[4 + c - 16] >> 4;
    case SIGMA_Q5_0: return ((c < 16 ? block[6 + c] & 15 : block[6 + c - 16] >> 4) | (q[c / 8] >> c % 8 & 1) << 4) - 16;
    case SIGMA_Q5_1:
        *minus = -half_at(block + 2);
        return (c < 16 ? block[8 + c] & 15 : block[8 + c - 16] >> 4) | (block[4 + c / 8] >> c % 8 & 1) << 4;
    case SIGMA_Q2_K: {
        const uint8_t scale = block[c / 16];
        *factor *= scale & 15;
        *minus = half_at(block + 82) * (scale >> 4);
        return block[16 + c / 128 * 32 + c % 32] >> 2 * (c % 128 / 32) & 3;
    }
    case SIGMA_Q3_K: {
        const int n = c / 16, low = n < 8 ? block[96 + n] & 15 : block[96 + n - 8] >> 4, high = block[104 + n % 4] >> 2 * (n / 4) & 3;
        *factor *= (low | high << 4) - 32;
        return (block[32 + c / 128 * 32 + c % 32] >> 2 * (c % 128 / 32) & 3) - (block[c % 32] >> c / 32 & 1 ? 0 : 4);
    }
    case SIGMA_Q4_K: case SIGMA_Q5_K: {
        const int part = c / 32, is_five = type == SIGMA_Q5_K;
        *factor *= scale_q4_k(block + 4, part, 0);
        *minus = half_at(block + 2) * scale_q4_k(block + 4, part, 1);
        const uint8_t both = block[(is_five ? 48 : 16) + c / 64 * 32 + c % 32];
        return (c % 64 < 32 ? both & 15 : both >> 4) | (is_five ? block[16 + c % 32] >> part & 1 : 0) << 4;
    }
    case SIGMA_IQ4_XS: {
        const int part = c / 32, i = c % 32;
        const int high = (block[2] | block[3] << 8) >> 2 * part & 3, low = block[4 + part / 2] >> 4 * (part % 2) & 15;
        *factor *= (low | high << 4) - 32;
        const uint8_t both = block[8 + 16 * part + i % 16];
        return nonlinear[i < 16 ? both & 15 : both >> 4];
    }
    default: {
        const int half = c / 128, quarter = c % 128 / 32, i = c % 32;
        const uint8_t low = block[64 * half + quarter % 2 * 32 + i], high = block[128 + 32 * half + i];
        *factor *= (int8_t)block[192 + c / 16];
        return ((quarter < 2 ? low & 15 : low >> 4) | (high >> 2 * quarter & 3) << 4) - 32;
    }
    }
}

// Scales of a block such that every one is a small whole number.
static void make_whole(int type, uint8_t *block, size_t row) {
    switch (type) {
    case SIGMA_Q2_K: memset(block, row % 2 ? 0x21 : 0x13, 16); break;
    case SIGMA_Q3_K: memset(block + 96, row % 2 ? 0x33 : 0xee, 8), memset(block + 104, row % 2 ? 0xaa : 0x55, 4); break;
    case SIGMA_Q4_K: case SIGMA_Q5_K: memset(block + 4, 0x03, 12); break;
    case SIGMA_Q6_K: memset(block + 192, row % 2 ? 1 : -3, 16); break;
    case SIGMA_IQ4_XS: memset(block + 2, row % 2 ? 0xaa : 0x55, 2), memset(block + 4, row % 2 ? 0x11 : 0xff, 4); break;
    case SIGMA_MXFP4: block[0] = (uint8_t)(128 + row % 3); break;
    }
}

// Random bits; `whole`: scales of one and small whole numbers, so that every product and sum is an exact fp32 number.
static matrix make_matrix(int type, int n, int k, uint64_t seed, int whole) {
    const size_t per_row = (size_t)k / block_length(type), groups = ((size_t)n + 15) / 16;
    matrix m = {type, n, k, per_row * block_bytes(type), sigma_group_bytes(type, (size_t)k), NULL, NULL};
    m.blocks = allocate((size_t)n * m.row_bytes);
    m.groups = allocate(groups * m.group_bytes);
    for (size_t b = 0; b < (size_t)n * per_row; b++) {
        uint8_t *block = m.blocks + b * block_bytes(type);
        for (size_t i = 0; i < block_bytes(type); i++) block[i] = (uint8_t)(next_random(&seed) >> 32);
        // Every third row has its largest or its smallest weights only.
        const size_t row = b / per_row;
        if (row % 3 == 2) memset(block, row % 6 == 5 ? 0xff : row % 2 ? 0x7f : 0x80, block_bytes(type));
        if (row % 6 == 5 && type == SIGMA_Q8_0) memset(block, 0x7f, block_bytes(type));
        const float d = whole ? 1 : ((float)(next_random(&seed) >> 40) * 0x1p-24f + 0.01f) * (b % 5 == 4 ? -0.1f : 0.1f);
        if (factor_place(type) >= 0) put_half(block + factor_place(type), d);
        if (minimum_place(type) >= 0) put_half(block + minimum_place(type), whole ? 1 : d * 0.7f);
        if (type == SIGMA_MXFP4) block[0] = (uint8_t)(120 + b % 7);
        if (whole) make_whole(type, block, row);
    }
    for (size_t g = 0; g < groups; g++) {
        const int rows = n - (int)g * 16 < 16 ? n - (int)g * 16 : 16;
        sigma_pack_group(type, m.blocks + g * 16 * m.row_bytes, rows, (size_t)k, m.groups + g * m.group_bytes);
    }
    return m;
}

static void free_matrix(matrix *m) {
    free(m->blocks);
    free(m->groups);
}

// Exact sum, its number of terms, and the sum of their magnitudes. A term is that of the columns that share a scale.
static double exact_product(const matrix *m, int row, const sigma_activation_block *activations, double *norm) {
    const int step = m->type == SIGMA_Q6_K || m->type == SIGMA_Q3_K || m->type == SIGMA_Q2_K ? 16 : 32;
    double total = 0;
    *norm = 0;
    for (int start = 0; start < m->k; start += step) {
        const uint8_t *block = m->blocks + (size_t)row * m->row_bytes + (size_t)start / block_length(m->type) * block_bytes(m->type);
        const sigma_activation_block *a = &activations[start / 32];
        double factor = 0, minus = 0;
        long products = 0, sum = 0;
        for (int c = start; c < start + step; c++) {
            const int q = a->q[c % 32];
            products += (long)weight(m->type, block, c % (int)block_length(m->type), &factor, &minus) * q;
            sum += q;
        }
        total += ((double)products * factor - (double)sum * minus) * a->scale;
        *norm += (fabs((double)products * factor) + fabs((double)sum * minus)) * fabs(a->scale);
    }
    return total;
}

static sigma_activation_block *quantized(const sigma_kernels *kernels, const float *x, int m, int k) {
    sigma_activation_block *blocks = allocate((size_t)m * (size_t)(k / 32) * sizeof *blocks);
    for (int i = 0; i < m; i++) kernels->quantize_activations(x + (size_t)i * (size_t)k, blocks + (size_t)i * (size_t)(k / 32), k);
    return blocks;
}

static void check_quantization(level_report *level) {
    begin(level, "quantize_activations", ANY_LANES);
    enum { COLUMNS = 4096 };
    float *x = uneven(COLUMNS, 1, 3);
    for (int i = 64; i < 96; i++) x[i] = 0;
    sigma_activation_block *blocks = quantized(level->kernels, x, 1, COLUMNS);
    for (int b = 0; b < COLUMNS / 32; b++) {
        float most = 0;
        int sums[2] = {0, 0};
        for (int i = 0; i < 32; i++) {
            const float scale = blocks[b].scale, value = x[32 * b + i];
            most = fmaxf(most, fabsf(value));
            sums[i / 16] += blocks[b].q[i];
            expect(level, blocks[b].q[i] >= -127, "smallest value", b, i, blocks[b].q[i]);
            expect_near(level, (double)blocks[b].q[i] * scale, value, scale * 0.5 * (1 + 256 * UNIT), "nearest", b, i, 0);
        }
        expect(level, blocks[b].scale == most / 127.0f, "scale", b, 0, 0);
        expect(level, blocks[b].both == -8 * (sums[0] + sums[1]) && blocks[b].first == -8 * sums[0], "sums", b, sums[0], sums[1]);
        expect(level, blocks[b].scaled_sum == blocks[b].scale * (float)(sums[0] + sums[1]), "scaled sum", b, 0, 0);
    }
    record(level, blocks, COLUMNS / 32 * sizeof *blocks);
    for (int place = 0; place < 32; place++) {
        const float before = x[place];
        x[place] = place % 2 ? NAN : -NAN;
        sigma_activation_block block;
        level->kernels->quantize_activations(x, &block, 32);
        expect(level, isnan(block.scale), "not a number becomes none", place, 0, 0);
        x[place] = before;
    }
    free(x);
    free(blocks);
}

static void check_type(level_report *level, int type, const char *name) {
    begin(level, name, ANY_LANES);
    // Rows of weights, columns (times 256, or the block's length), activation rows. The last but one has more columns than a panel of
    // activations (kernels_matrix.h), the last more activation rows than stay in the second cache (kernels_packed.h).
    static const int shapes[][3] = {{1, 1, 1}, {15, 1, 2}, {16, 2, 1}, {17, 1, 3}, {33, 2, 9}, {48, 3, 8}, {31, 1, 13}, {16, 1, 16},
                                    {40, 2, 4}, {16, 1, 5}, {16, 2, 6}, {18, 1, 7}, {64, 6, 17}, {5, 3, 4}, {20, 9, 11}, {17, 1, 131}};
    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
        const int n = shapes[s][0], m = shapes[s][2], k = shapes[s][1] * (int)(s % 2 ? block_length(type) : 256);
        for (int whole = 0; whole < 2; whole++) {
            if (whole && k > 256) continue;
            matrix w = make_matrix(type, n, k, s + 10, whole);
            float *x = uneven((size_t)m * (size_t)k, s + 100, 3);
            if (whole)  // a scale of one
                for (int i = 0; i < m * k; i++) x[i] = i % 32 == 7 ? 127 : i / 32 % 3 == 2 ? (i % 2 ? 127 : -127) : rintf(x[i] * 42);
            sigma_activation_block *blocks = quantized(level->kernels, x, m, k);
            const size_t stride = (size_t)n + s % 3;
            float *y = allocate(((size_t)(m - 1) * stride + (size_t)n) * sizeof(float));
            sigma_activations a = {x, (size_t)k, blocks, (size_t)(k / 32), NULL};
            level->kernels->matmul_packed(type, w.groups, n, k, &a, m, y, stride);

            for (int i = 0; i < m; i++) {
                for (int j = 0; j < n; j++) {
                    double norm;
                    const double exact = exact_product(&w, j, blocks + (size_t)i * (size_t)(k / 32), &norm);
                    // Of each term: two products of scales and one with it, rounded; one or two sums for 32 columns.
                    const double bound = whole ? 0 : (2.0 * k / 32 + 4) * UNIT * norm;
                    expect_near(level, y[(size_t)i * stride + (size_t)j], exact, bound, whole ? "exact product" : "product", (long)s, i, j);
                }
                record(level, y + (size_t)i * stride, (size_t)n * sizeof(float));
                for (size_t j = (size_t)n; i + 1 < m && j < stride; j++)
                    expect(level, isnan(y[(size_t)i * stride + j]), "written beside the product", (long)s, i, (long)j);
            }
            // The same bytes for one row alone, from an index, and for one group alone.
            int32_t *index = allocate((size_t)m * sizeof *index);
            for (int i = 0; i < m; i++) index[i] = (i * 7 + 3) % m;
            float *other = allocate((size_t)m * (size_t)n * sizeof(float));
            a.index = index;
            level->kernels->matmul_packed(type, w.groups, n, k, &a, m, other, (size_t)n);
            float *alone = allocate((size_t)n * sizeof(float));
            for (int i = 0; i < m; i++) {
                const float *whole_row = y + (size_t)index[i] * stride;
                expect(level, memcmp(other + (size_t)(i * n), whole_row, (size_t)n * 4) == 0, "indexed row", (long)s, i, index[i]);
                sigma_activations one = {x, (size_t)k, blocks, (size_t)(k / 32), index + i};
                for (int first = 0; first < n; first += 16)
                    level->kernels->matmul_packed(type, w.groups + (size_t)(first / 16) * w.group_bytes, n - first < 16 ? n - first : 16, k,
                                                  &one, 1, alone + first, 1);
                expect(level, memcmp(alone, whole_row, (size_t)n * 4) == 0, "row alone", (long)s, i, index[i]);
            }
            free(alone);
            free(other);
            free(index);
            free(y);
            free(blocks);
            free(x);
            free_matrix(&w);
        }
    }
}

void check_packed(level_report *level) {
    check_quantization(level);
    check_type(level, SIGMA_Q8_0, "matmul_packed q8_0");
    check_type(level, SIGMA_Q4_0, "matmul_packed q4_0");
    check_type(level, SIGMA_Q4_1, "matmul_packed q4_1");
    check_type(level, SIGMA_Q5_0, "matmul_packed q5_0");
    check_type(level, SIGMA_Q5_1, "matmul_packed q5_1");
    check_type(level, SIGMA_Q2_K, "matmul_packed q2_k");
    check_type(level, SIGMA_Q3_K, "matmul_packed q3_k");
    check_type(level, SIGMA_Q4_K, "matmul_packed q4_k");
    check_type(level, SIGMA_Q5_K, "matmul_packed q5_k");
    check_type(level, SIGMA_Q6_K, "matmul_packed q6_k");
    check_type(level, SIGMA_IQ4_NL, "matmul_packed iq4_nl");
    check_type(level, SIGMA_IQ4_XS, "matmul_packed iq4_xs");
    check_type(level, SIGMA_MXFP4, "matmul_packed mxfp4");
}
