#include "sigma_screening.h"

#include <math.h>
#include <string.h>

#include "sigma_half.h"
#include "sigma_packing.h"

// Numbers of a group: half steps (fp32), then coarse errors, norms and fine errors (fp16), 16 of each.
enum { COARSE_ERRORS = 64, NORMS = 96, FINE_ERRORS = 128 };

sigma_screen_numbers sigma_screen_row_numbers(const void *group, size_t columns, int row) {
    const char *numbers = (const char *)group + 4 * columns;
    uint16_t halves[3];
    sigma_screen_numbers result;
    memcpy(&result.half_step, numbers + 4 * row, 4);
    memcpy(&halves[0], numbers + COARSE_ERRORS + 2 * row, 2);
    memcpy(&halves[1], numbers + FINE_ERRORS + 2 * row, 2);
    memcpy(&halves[2], numbers + NORMS + 2 * row, 2);
    result.coarse_error = sigma_half_to_float(halves[0]);
    result.fine_error = sigma_half_to_float(halves[1]);
    result.norm = sigma_half_to_float(halves[2]);
    return result;
}

// Every level and every compiler must make the same numbers.
#pragma clang fp contract(off)

// Of column c: the top bit of SplitMix64's c-th number from the seed 0.
static uint32_t sign_bit(uint64_t c) {
    uint64_t z = (c + 1) * 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (uint32_t)((z ^ z >> 31) >> 63) << 31;
}

static void flip_signs(float *x, int hidden) {
    for (int c = 0; c < hidden; c++) {
        uint32_t bits;
        memcpy(&bits, x + c, 4);
        bits ^= sign_bit((uint64_t)c);
        memcpy(x + c, &bits, 4);
    }
}

// Hadamard's transform, its own inverse, of each block.
static void transform(float *x, int length, int blocks) {
    const float scale = 1.0f / sqrtf((float)length);
    for (int b = 0; b < blocks; b++) {
        float *block = x + b * length;
        for (int half = 1; half < length; half *= 2)
            for (int i = 0; i < length; i += 2 * half) {
                float *low = block + i, *high = low + half;
                for (int j = 0; j < half; j++) {
                    const float sum = low[j] + high[j], difference = low[j] - high[j];
                    low[j] = sum;
                    high[j] = difference;
                }
            }
        for (int i = 0; i < length; i++) block[i] *= scale;
    }
}

// Householder's reflection at the diagonal, its own inverse, across the blocks: what one of them has is shared by all.
static void reflect(float *x, int length, int blocks) {
    if (blocks == 1) return;
    const float factor = 2.0f / (float)blocks;
    for (int i = 0; i < length; i++) {
        float sum = 0;
        for (int b = 0; b < blocks; b++) sum += x[b * length + i];
        for (int b = 0; b < blocks; b++) x[b * length + i] -= factor * sum;
    }
}

// Columns of a block: the largest power of two that divides them all.
static int block_length(int hidden) { return hidden & -hidden; }

void sigma_screen_rotate(float *x, int hidden) {
    const int length = block_length(hidden), blocks = hidden / length;
    flip_signs(x, hidden);
    transform(x, length, blocks);
    reflect(x, length, blocks);
}

void sigma_screen_rotate_back(float *x, int hidden) {
    const int length = block_length(hidden), blocks = hidden / length;
    reflect(x, length, blocks);
    transform(x, length, blocks);
    flip_signs(x, hidden);
}

// A value in units of the step to one of four levels: -1.5, -0.5, 0.5, 1.5. Not-a-number goes to the first.
static inline int level(float steps) {
    const float clamped = steps > -2 ? (steps < 1.75f ? steps : 1.75f) : -2;
    return (int)(clamped + 2);
}

static inline void codes(float value, float step, float inverse, int *coarse, int *fine, float *rest, float *last_rest) {
    *coarse = level(value * inverse);
    *rest = value - ((float)*coarse - 1.5f) * step;
    *fine = level(*rest * inverse * 4);
    *last_rest = *rest - ((float)*fine - 1.5f) * (step * 0.25f);
}

// Sums of squares of what the planes miss of v [n], n % 8 == 0.
static void missed(const float *v, int n, float step, float *coarse, float *fine) {
    const float inverse = 1 / step;
    float a[8] = {0}, b[8] = {0};
    for (int i = 0; i < n; i += 8)
        for (int j = 0; j < 8; j++) {
            int c, f;
            float rest, last;
            codes(v[i + j], step, inverse, &c, &f, &rest, &last);
            a[j] += rest * rest;
            b[j] += last * last;
        }
    *coarse = *fine = 0;
    for (int j = 0; j < 8; j++) {
        *coarse += a[j];
        *fine += b[j];
    }
}

// To fp16, never below: a margin may be wider than the error, not narrower.
static uint16_t half_above(float x) {
    const uint16_t half = sigma_float_to_half(x);
    return sigma_half_to_float(half) < x ? half + 1 : half;
}

// The step that leaves the least error: what the coarse plane misses decides how many rows of the fine one are read, what both miss how
// many rows of the head, and those are longer. Steps are tried in units of the row's root mean square.
static float best_step(const float *v, int n, float deviation) {
    float best = 0, least = INFINITY;
    for (int i = 0; i < 8; i++) {
        const float step = (0.8f + 0.1f * (float)i) * deviation;
        float coarse, fine;
        missed(v, n, step, &coarse, &fine);
        const float cost = sqrtf(coarse) + 1.6f * sqrtf(fine);
        if (cost < least) {
            least = cost;
            best = step;
        }
    }
    return best;
}

static void encode_row(float *v, int row, int hidden, uint8_t *group, uint8_t *fine_row) {
    const size_t columns = sigma_screen_columns((size_t)hidden);
    uint8_t *numbers = group + 4 * columns;
    sigma_screen_rotate(v, hidden);
    double squares = 0;
    for (int c = 0; c < hidden; c++) squares += (double)v[c] * v[c];
    const float norm = (float)sqrt(squares);
    float step = best_step(v, hidden, norm / sqrtf((float)hidden)), coarse = 0, fine = 0;
    if (step > 0x1p-100f && step < 0x1p100f) {
        missed(v, hidden, step, &coarse, &fine);
    } else {  // no weights to speak of
        step = 0;
        coarse = fine = norm * norm;
    }
    for (int c = 0; c < hidden && step > 0; c++) {
        int code, fine_code;
        float rest, last;
        codes(v[c], step, 1 / step, &code, &fine_code, &rest, &last);
        // 16 columns are a vector: byte i of a row's four has the columns i, 4 + i, 8 + i and 12 + i.
        group[c / 16 * 64 + 4 * row + c % 4] |= (uint8_t)(code << 2 * (c / 4 % 4));
        // 256 columns are 64 bytes: byte i has the columns i, 64 + i, 128 + i and 192 + i.
        fine_row[c / 256 * 64 + c % 64] |= (uint8_t)(fine_code << 2 * (c / 64 % 4));
    }
    // Sums of rounded squares: a little more than they may be off.
    const float slack = 1.0001f, half_step = 0.5f * step;
    const uint16_t halves[3] = {half_above(sqrtf(coarse) * slack), half_above(norm * slack), half_above(sqrtf(fine) * slack)};
    memcpy(numbers + 4 * row, &half_step, 4);
    memcpy(numbers + COARSE_ERRORS + 2 * row, &halves[0], 2);
    memcpy(numbers + NORMS + 2 * row, &halves[1], 2);
    memcpy(numbers + FINE_ERRORS + 2 * row, &halves[2], 2);
}

void sigma_screen_encode(float *values, int rows, int hidden, void *group, void *fine) {
    const size_t columns = sigma_screen_columns((size_t)hidden), row_bytes = sigma_screen_row_bytes(columns);
    memset(group, 0, sigma_screen_group_bytes(columns));
    memset(fine, 0, (size_t)rows * row_bytes);
    for (int r = 0; r < rows; r++)
        encode_row(values + (size_t)r * (size_t)hidden, r, hidden, group, (uint8_t *)fine + (size_t)r * row_bytes);
}

int sigma_screen_quantize(const float *x, int hidden, float deviations, int8_t *q, sigma_screen_state *state) {
    float most = 0;
    double squares = 0;
    for (int c = 0; c < hidden; c++) {
        const float magnitude = fabsf(x[c]);
        if (magnitude > most) most = magnitude;
        squares += (double)x[c] * x[c];
    }
    // Not-a-number is in no range.
    if (!(most > 1e-25f && most < 1e25f && squares < 1e60)) return 0;
    const float scale = most / 127.0f, inverse = 127.0f / most;
    int32_t sum = 0;
    double rest = 0;
    for (int c = 0; c < hidden; c++) {
        // Adding 1.5 * 2^23 rounds to the nearest integer.
        const float rounded = (x[c] * inverse + 12582912.0f) - 12582912.0f;
        q[c] = (int8_t)rounded;
        sum += (int32_t)rounded;
        const double error = (double)x[c] - (double)scale * rounded;
        rest += error * error;
    }
    memset(q + hidden, 0, sigma_screen_columns((size_t)hidden) - (size_t)hidden);
    state->q = q;
    state->sum = sum;
    state->scale = scale;
    state->offset = 0;
    state->error_margin = (float)(deviations * sqrt(squares / hidden));
    state->norm_margin = (float)(deviations * sqrt(rest / hidden));
    return 1;
}

int sigma_screen_find(const float *values, int count, float least, int32_t first, int32_t *found) {
    int n = 0, i = 0;
    for (; i + 16 <= count; i += 16) {
        int any = 0;
        for (int j = 0; j < 16; j++) any |= values[i + j] >= least;
        if (!any) continue;
        for (int j = 0; j < 16; j++)
            if (values[i + j] >= least) found[n++] = first + i + j;
    }
    for (; i < count; i++)
        if (values[i] >= least) found[n++] = first + i;
    return n;
}

void sigma_screen_mask(float *values, const uint64_t *words, int count) {
    for (int first = 0; first < count; first += 64) {
        const uint64_t word = words[first / 64];
        if (word == UINT64_MAX) continue;
        const int n = count - first < 64 ? count - first : 64;
        for (int i = 0; i < n; i++) values[first + i] = word >> i & 1 ? values[first + i] : -INFINITY;
    }
}
