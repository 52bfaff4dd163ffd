// The key-value cache and attention.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "sigma_half.h"

// Of whole blocks of attention, as the kernels want it.
static size_t cache_bytes(int positions, int dim, int type) {
    const size_t blocks = (size_t)(positions + SIGMA_ATTENTION_BLOCK - 1) / SIGMA_ATTENTION_BLOCK;
    return blocks * (SIGMA_ATTENTION_BLOCK / 16) * sigma_kv_tile_bytes(type, dim);
}

// Rows x [positions, dim] in tiles, stored one by one; what is behind them is not a number.
static sigma_kv_rows store_rows(const sigma_kernels *kernels, const float *x, int positions, int dim, int type, int is_value) {
    sigma_kv_rows rows = {allocate(cache_bytes(positions, dim, type)), type};
    for (int p = 0; p < positions; p++) kernels->store_kv(x + (size_t)p * (size_t)dim, dim, is_value, p, &rows);
    return rows;
}

// The scale of what the cache holds at (position, component), where the type has any.
static double scale_of(const sigma_kv_rows *rows, int dim, int is_value, int position, int component) {
    const char *tile = (const char *)rows->tiles + (size_t)(position / 16) * sigma_kv_tile_bytes(rows->type, dim);
    uint16_t bits;
    memcpy(&bits, tile + sigma_kv_scale_offset(rows->type, dim, position % 16, rows->type == SIGMA_F16 && is_value ? 0 : component), 2);
    if (rows->type == SIGMA_Q8_0) return sigma_half_to_float(bits);
    const uint32_t wide = (uint32_t)bits << 16;
    float scale;
    memcpy(&scale, &wide, 4);
    return scale;
}

// What the cache holds at (position, component).
static double stored(const sigma_kv_rows *rows, int dim, int is_value, int position, int component) {
    const int width = SIGMA_PADDED(dim), row = position % 16;
    const char *tile = (const char *)rows->tiles + (size_t)(position / 16) * sigma_kv_tile_bytes(rows->type, dim);
    const int index = rows->type == SIGMA_F32 ? (is_value ? row * width + component : component * 16 + row)
                      : is_value              ? row / 2 * 2 * width + component * 2 + row % 2
                                              : component / 2 * 32 + row * 2 + component % 2;
    float value;
    int16_t word;
    switch (rows->type) {
    case SIGMA_F32: memcpy(&value, tile + 4 * index, 4); return value;
    case SIGMA_F16: memcpy(&word, tile + 2 * index, 2); return word * scale_of(rows, dim, is_value, position, component);
    default: return *(const int8_t *)(tile + index) * scale_of(rows, dim, is_value, position, component);
    }
}

static void check_storing(level_report *level) {
    begin(level, "store_kv", ANY_LANES);
    static const int forms[][2] = {{64, SIGMA_F32}, {24, SIGMA_F32}, {40, SIGMA_F16}, {128, SIGMA_F16}, {64, SIGMA_Q8_0}, {96, SIGMA_Q8_0}};
    enum { POSITIONS = 21 };
    for (size_t f = 0; f < sizeof forms / sizeof forms[0]; f++)
        for (int is_value = 0; is_value < 2; is_value++) {
            const int dim = forms[f][0], type = forms[f][1];
            float *x = uneven((size_t)(POSITIONS * dim), f, 3);
            // Beyond fp16's range, and below the least scale.
            const float odd[] = {1.00048828125f, 1.00146484375f, 65519.99f, 65520, -1e9f, 3e-8f, 2.98e-8f, 1e-10f, 6.1e-5f};
            if (type == SIGMA_F16)
                for (int c = 0; c < dim; c++) x[dim + c] *= 1e-33f;
            if (type == SIGMA_F16) memcpy(x, odd, sizeof odd);
            sigma_kv_rows rows = store_rows(level->kernels, x, POSITIONS, dim, type, is_value);
            for (int p = 0; p < POSITIONS; p++) {
                for (int c = 0; c < SIGMA_PADDED(dim); c++) {
                    const double found = stored(&rows, dim, is_value, p, c), value = c < dim ? x[p * dim + c] : 0;
                    if (type == SIGMA_F32) {
                        expect(level, found == value, "stored", (long)f, p, c);
                        continue;
                    }
                    const int alone = type == SIGMA_F16 && is_value, first = alone ? 0 : c / 32 * 32, end = alone || dim < first + 32 ? dim : first + 32;
                    float most = 0;
                    for (int i = first; i < end; i++) most = fmaxf(most, fabsf(x[p * dim + i]));
                    if (type == SIGMA_F16) {
                        // Half a step, which bf16 (8 bits) makes a little longer; nothing is left of the least numbers.
                        expect_near(level, found, value, most < 1e-30f ? most : most / 16383 * 0.5 * (1 + 0x1p-7), "stored", (long)f, p, c);
                        continue;
                    }
                    // Half a step, and the step's own rounding to fp16 (11 bits) 127 times.
                    const double step = most / 127;
                    expect_near(level, found, value, step * (0.5 * (1 + 256 * UNIT) + 127 * 0x1p-11), "stored", (long)f, p, c);
                }
            }
            record(level, rows.tiles, cache_bytes(POSITIONS, dim, type));
            free(rows.tiles);
            free(x);
        }
}

// Queries that see `visible` positions; the same queries alone; and all of it in two splits, merged.
static void check_form(level_report *level, int dim, int type, int positions, const int32_t *visible, int queries) {
    const int width = SIGMA_PADDED(dim);
    const sigma_kernels *kernels = level->kernels;
    float *k = uneven((size_t)(positions * dim), 1, 2), *v = uneven((size_t)(positions * dim), 2, 2);
    float *components = uneven((size_t)(queries * dim), 3, 1), *q = allocate((size_t)(queries * width) * sizeof *q);
    for (int i = 0; i < queries; i++)
        for (int c = 0; c < width; c++) q[i * width + c] = c < dim ? components[i * dim + c] : 0;
    sigma_kv_rows keys = store_rows(kernels, k, positions, dim, type, 0), values = store_rows(kernels, v, positions, dim, type, 1);
    float *scratch = allocate(sigma_attention_scratch(dim, queries) * sizeof(float)), *output = allocate((size_t)(queries * width) * sizeof(float));
    float *maximum = allocate((size_t)queries * sizeof(float)), *sum = allocate((size_t)queries * sizeof(float));
    kernels->attend(&keys, &values, dim, q, queries, visible, scratch, maximum, sum, output);
    record(level, maximum, (size_t)queries * sizeof(float));
    record(level, sum, (size_t)queries * sizeof(float));
    record(level, output, (size_t)(queries * width) * sizeof(float));

    double *weights = allocate((size_t)positions * sizeof *weights);
    float *alone = allocate((size_t)width * sizeof *alone);
    for (int i = 0; i < queries; i++) {
        float alone_maximum, alone_sum;
        kernels->attend(&keys, &values, dim, q + i * width, 1, visible + i, scratch, &alone_maximum, &alone_sum, alone);
        expect(level, alone_maximum == maximum[i] && alone_sum == sum[i], "state of a query alone", dim, type, i);
        expect(level, memcmp(alone, output + i * width, (size_t)width * 4) == 0, "a query alone", dim, type, i);
        if (visible[i] == 0) {
            expect(level, sum[i] == 0 && maximum[i] == -INFINITY, "nothing visible", dim, type, i);
            continue;
        }
        double most = -INFINITY, norms = 0, sizes = 0, total = 0, step = 0;
        for (int c = 0; c < dim; c++) step = fmax(step, fabs(q[i * width + c]) / 65534);
        for (int c = 0; type == SIGMA_F16 && c < dim; c += 32) {
            double part = 0;
            for (int d = c; d < c + 32 && d < dim; d++) part += fabs(q[i * width + d]);
            step = fmax(step, part / 131000 / 2);
        }
        for (int j = 0; j < visible[i]; j++) {
            double score = 0, norm = 0, size = 0;
            for (int c = 0; c < dim; c++) {
                const double key = stored(&keys, dim, 0, j, c), product = q[i * width + c] * key;
                score += product;
                norm += fabs(product);
                size += fabs(key);
            }
            weights[j] = score;
            most = fmax(most, score);
            norms = fmax(norms, norm);
            sizes = fmax(sizes, size);
        }
        for (int j = 0; j < visible[i]; j++) total += weights[j] = exp(weights[j] - most);
        // A score's error moves every weight by that much; sums and exponentials add theirs. Elements with scales are multiplied with queries, and
        // with weights times scales, of 16 bits; of f16, weights of a block have a unit by their sum.
        const double rounding = type == SIGMA_F32 ? 0 : step * sizes;
        const double relative = 2.0 * dim * UNIT * norms + rounding + (visible[i] + 8) * UNIT + 0x1p-20;
        for (int c = 0; c < dim; c++) {
            double exact = 0, norm = 0, bytes = 0, scale = 0, words = 0;
            for (int j = 0; j < visible[i]; j++) {
                const double value = stored(&values, dim, 1, j, c), product = weights[j] * value / total;
                exact += product;
                norm += fabs(product);
                if (type == SIGMA_F32) continue;
                const double unit = scale_of(&values, dim, 1, j, c);
                bytes += fabs(value) / unit;
                scale = fmax(scale, unit);
            }
            for (int block = 0; type == SIGMA_F16 && block < visible[i]; block += SIGMA_ATTENTION_BLOCK) {
                double added = 0, largest = 0, elements = 0;
                for (int j = block; j < visible[i] && j < block + SIGMA_ATTENTION_BLOCK; j++) {
                    const double unit = scale_of(&values, dim, 1, j, c);
                    added += weights[j] * unit;
                    largest = fmax(largest, weights[j] * unit);
                    elements += fabs(stored(&values, dim, 1, j, c)) / unit;
                }
                words += elements * fmax(added / 131000, largest / 32767) / 2;
            }
            const double rest = type == SIGMA_Q8_0 ? bytes * scale / 65534 : words;
            const double bound = 2 * relative * (norm + fabs(exact)) + 2 * rest / total;
            expect_near(level, (double)output[i * width + c] / sum[i], exact, bound, "output", dim, type, i);
        }
    }
    free(alone);
    free(weights);
    free(sum);
    free(maximum);
    free(output);
    free(scratch);
    free(keys.tiles);
    free(values.tiles);
    free(q);
    free(components);
    free(v);
    free(k);
}

static void check_merging(level_report *level) {
    begin(level, "merge_attention", ANY_LANES);
    enum { DIM = 40, WIDTH = SIGMA_PADDED(DIM) };
    float *split = uneven(WIDTH, 8, 1), *output = uneven(WIDTH, 9, 1), *before = allocate(WIDTH * sizeof *before);
    memcpy(before, output, WIDTH * sizeof *before);
    float maximum = 0.25f, sum = 2;
    level->kernels->merge_attention(&maximum, &sum, output, -INFINITY, 0, split, DIM);
    expect(level, maximum == 0.25f && sum == 2 && memcmp(output, before, WIDTH * sizeof *before) == 0, "an empty split", 0, 0, 0);
    level->kernels->merge_attention(&maximum, &sum, output, 1.5f, 7.25f, split, DIM);
    const double factor = exp(0.25 - 1.5);
    expect(level, maximum == 1.5f, "maximum", 0, 0, 0);
    expect_near(level, sum, 2 * factor + 7.25, 0x1p-20 * 9, "sum", 0, 0, 0);
    for (int c = 0; c < WIDTH; c++) {
        const double exact = before[c] * factor + split[c];
        expect_near(level, output[c], exact, 0x1p-20 * (fabs(before[c] * factor) + fabs(split[c])), "output", c, 0, 0);
    }
    record(level, output, WIDTH * sizeof *output);
    maximum = -INFINITY;
    sum = 0;
    memset(output, 0, WIDTH * sizeof *output);
    level->kernels->merge_attention(&maximum, &sum, output, 1.5f, 7.25f, split, DIM);
    expect(level, maximum == 1.5f && sum == 7.25f && memcmp(output, split, WIDTH * sizeof *split) == 0, "into nothing", 0, 0, 0);
    free(before);
    free(output);
    free(split);
}

void check_attention(level_report *level) {
    check_storing(level);
    static const struct {
        int dim, type;
        const char *name;
    } forms[] = {{96, SIGMA_F32, "attend f32"}, {96, SIGMA_F16, "attend f16"}, {128, SIGMA_Q8_0, "attend q8_0"},
                 {24, SIGMA_F32, "attend f32, 24"}, {40, SIGMA_F16, "attend f16, 40"}, {128, SIGMA_F16, "attend f16, 128"}, {64, SIGMA_Q8_0, "attend q8_0, 64"}};
    for (size_t f = 0; f < sizeof forms / sizeof forms[0]; f++) {
        begin(level, forms[f].name, BY_LANES);
        // Many queries, of which each sees another number of positions, and few.
        static const int32_t visible[] = {1, 64, 65, 150, 0, 127, 2, 3, 149, 16, 17};
        check_form(level, forms[f].dim, forms[f].type, 150, visible, 11);
        check_form(level, forms[f].dim, forms[f].type, 150, visible, 7);
        static const int32_t short_ones[] = {5, 1, 0};
        check_form(level, forms[f].dim, forms[f].type, 5, short_ones, 3);
    }
    check_merging(level);
}
