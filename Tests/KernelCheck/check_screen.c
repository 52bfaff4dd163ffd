// The planes that screen an output head: what they hold, read here bit by bit, and products with them.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "sigma_half.h"
#include "sigma_packing.h"
#include "sigma_screening.h"

// Rows [n, hidden], rotated, and their planes.
typedef struct {
    int n, hidden, k;
    size_t group_bytes, row_bytes;
    float *rows;
    uint8_t *groups, *fine;
} planes;

static planes make_planes(int n, int hidden, uint64_t seed) {
    const int k = (int)sigma_screen_columns((size_t)hidden);
    planes p = {n, hidden, k, sigma_screen_group_bytes((size_t)k), sigma_screen_row_bytes((size_t)k), NULL, NULL, NULL};
    p.rows = uneven((size_t)n * (size_t)hidden, seed, 0.1f);
    // Every fifth row is zero, every seventh has an outlier.
    for (int r = 0; r < n; r++) {
        if (r % 5 == 4) memset(p.rows + (size_t)r * (size_t)hidden, 0, (size_t)hidden * 4);
        else if (r % 7 == 3) p.rows[(size_t)r * (size_t)hidden + (size_t)r % (size_t)hidden] = 20;
    }
    const size_t groups = ((size_t)n + 15) / 16;
    p.groups = allocate(groups * p.group_bytes);
    p.fine = allocate((size_t)n * p.row_bytes);
    for (int first = 0; first < n; first += 16)
        sigma_screen_encode(p.rows + (size_t)first * (size_t)hidden, n - first < 16 ? n - first : 16, hidden,
                            p.groups + (size_t)(first / 16) * p.group_bytes, p.fine + (size_t)first * p.row_bytes);
    return p;
}

static void free_planes(planes *p) {
    free(p->rows);
    free(p->groups);
    free(p->fine);
}

static int coarse_code(const planes *p, int row, int c) {
    const uint8_t *vector = p->groups + (size_t)(row / 16) * p->group_bytes + (size_t)(c / 16) * 64;
    return vector[4 * (row % 16) + c % 4] >> 2 * (c % 16 / 4) & 3;
}

static int fine_code(const planes *p, int row, int c) {
    return p->fine[(size_t)row * p->row_bytes + (size_t)(c / 256) * 64 + (size_t)(c % 64)] >> 2 * (c % 256 / 64) & 3;
}

static sigma_screen_numbers numbers_of(const planes *p, int row) {
    return sigma_screen_row_numbers(p->groups + (size_t)(row / 16) * p->group_bytes, (size_t)p->k, row % 16);
}

static void check_rotation(level_report *level) {
    begin(level, "screen rotation", ANY_LANES);
    static const int widths[] = {1536, 512, 96, 640, 32};
    for (size_t w = 0; w < sizeof widths / sizeof widths[0]; w++) {
        const int n = widths[w];
        float *a = uneven((size_t)n, w + 1, 1), *b = uneven((size_t)n, w + 50, 1);
        a[n / 3] = 100;
        double exact = 0, found = 0, norm_a = 0, norm_b = 0;
        for (int i = 0; i < n; i++) {
            exact += (double)a[i] * b[i];
            norm_a += (double)a[i] * a[i];
            norm_b += (double)b[i] * b[i];
        }
        sigma_screen_rotate(a, n);
        sigma_screen_rotate(b, n);
        float most = 0;
        for (int i = 0; i < n; i++) {
            found += (double)a[i] * b[i];
            most = fmaxf(most, fabsf(a[i]));
        }
        // Each butterfly rounds once, at most log2(n) of them, and the scaling and the reflection some times more.
        expect_near(level, found, exact, 32 * UNIT * sqrt(norm_a * norm_b), "inner product", n, 0, 0);
        // An outlier is shared by all.
        if (n > 500) expect(level, most < 0.25f * (float)sqrt(norm_a), "spread", n, 0, 0);
        record(level, a, (size_t)n * 4);
        float *back = allocate((size_t)n * sizeof *back), *original = uneven((size_t)n, w + 50, 1);
        memcpy(back, b, (size_t)n * sizeof *back);
        sigma_screen_rotate_back(back, n);
        for (int i = 0; i < n; i++) expect_near(level, back[i], original[i], 64 * UNIT * sqrt(norm_b), "back", n, i, 0);
        free(back);
        free(original);
        free(a);
        free(b);
    }
}

static void check_planes(level_report *level) {
    begin(level, "screen planes", ANY_LANES);
    static const int shapes[][2] = {{16, 1536}, {21, 256}, {1, 96}, {35, 640}};
    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
        planes p = make_planes(shapes[s][0], shapes[s][1], s + 1);
        for (int r = 0; r < p.n; r++) {
            const sigma_screen_numbers numbers = numbers_of(&p, r);
            double coarse = 0, fine = 0, norm = 0;
            for (int c = 0; c < p.hidden; c++) {
                const double v = p.rows[(size_t)r * (size_t)p.hidden + (size_t)c];
                const double rest = v - (double)numbers.half_step * (2 * coarse_code(&p, r, c) - 3);
                const double last = rest - (double)numbers.half_step / 4 * (2 * fine_code(&p, r, c) - 3);
                norm += v * v;
                coarse += rest * rest;
                fine += last * last;
            }
            for (int c = p.hidden; c < p.k; c++)
                expect(level, coarse_code(&p, r, c) == 0 && fine_code(&p, r, c) == 0, "columns behind the row", (long)s, r, c);
            const double found[3] = {numbers.coarse_error, numbers.fine_error, numbers.norm}, exact[3] = {sqrt(coarse), sqrt(fine), sqrt(norm)};
            for (int i = 0; i < 3; i++) {
                expect(level, found[i] >= exact[i], "an error is never understated", (long)s, r, i);
                // fp16, rounded up; half of its steps below its normal numbers.
                expect_near(level, found[i], exact[i], exact[i] * 0x1p-9 + 0x1p-23, "error", (long)s, r, i);
            }
            if (r % 5 == 4) {
                expect(level, numbers.half_step == 0, "a row of zeros", (long)s, r, 0);
            } else if (p.hidden >= 256) {
                // Of normal numbers the best four levels miss 0.345, sixteen even ones 0.107.
                expect(level, found[0] < 0.40 * found[2] && found[1] < 0.15 * found[2], "errors are small", (long)s, r, 0);
            }
        }
        for (int r = p.n; r < (p.n + 15) / 16 * 16; r++)
            for (int c = 0; c < p.k; c++) expect(level, coarse_code(&p, r, c) == 0, "missing rows are zero", (long)s, r, c);
        record(level, p.groups, ((size_t)p.n + 15) / 16 * p.group_bytes);
        record(level, p.fine, (size_t)p.n * p.row_bytes);
        free_planes(&p);
    }
}

static void check_products(level_report *level) {
    begin(level, "screen_rows, screen_fine", ANY_LANES);
    static const int shapes[][3] = {{16, 256, 1}, {1, 96, 2}, {37, 1536, 3}, {53, 640, 9}, {32, 512, 15}};
    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
        const int m = shapes[s][2];
        planes p = make_planes(shapes[s][0], shapes[s][1], s + 7);
        int8_t *q = allocate((size_t)m * (size_t)p.k);
        sigma_screen_state *states = allocate((size_t)m * sizeof *states);
        for (int i = 0; i < m; i++) {
            float *x = uneven((size_t)p.hidden, 100 + s * 16 + (uint64_t)i, i % 3 == 1 ? 1e-6f : 3);
            // Equal magnitudes, so that no sum is larger.
            for (int c = 0; i % 4 == 2 && c < p.hidden; c++) x[c] = c % 3 ? 2 : -2;
            int8_t *row = q + (size_t)i * (size_t)p.k;
            expect(level, sigma_screen_quantize(x, p.hidden, 6, row, &states[i]), "quantized", (long)s, i, 0);
            states[i].offset = 0.01f * (float)i;
            double squares = 0, rest = 0;
            int sum = 0;
            for (int c = 0; c < p.hidden; c++) {
                const double error = (double)x[c] - (double)states[i].scale * row[c];
                expect(level, fabs(error) <= states[i].scale * 0.5 * (1 + 256 * UNIT), "nearest", (long)s, i, c);
                squares += (double)x[c] * x[c];
                rest += error * error;
                sum += row[c];
            }
            for (int c = p.hidden; c < p.k; c++) expect(level, row[c] == 0, "zeros behind the state", (long)s, i, c);
            expect(level, states[i].sum == sum, "sum", (long)s, i, 0);
            expect_near(level, states[i].error_margin, 6 * sqrt(squares / p.hidden), 4 * UNIT * 6 * sqrt(squares / p.hidden), "margin", (long)s, i, 0);
            expect_near(level, states[i].norm_margin, 6 * sqrt(rest / p.hidden), 4 * UNIT * 6 * sqrt(rest / p.hidden), "margin", (long)s, i, 1);
            free(x);
        }
        const size_t stride = (size_t)p.n + s % 3;
        float *y = allocate(((size_t)(m - 1) * stride + (size_t)p.n) * sizeof *y);
        level->kernels->screen_rows(p.groups, p.n, p.k, states, m, y, stride);
        for (int i = 0; i < m; i++) {
            for (int r = 0; r < p.n; r++) {
                const sigma_screen_numbers numbers = numbers_of(&p, r);
                long dot = 0, fine = 0;
                for (int c = 0; c < p.k; c++) {
                    dot += (2 * coarse_code(&p, r, c) - 3) * states[i].q[c];
                    fine += fine_code(&p, r, c) * states[i].q[c];
                }
                const double estimate = (double)dot * ((double)numbers.half_step * states[i].scale);
                const double margin[3] = {(double)numbers.coarse_error * states[i].error_margin, (double)numbers.norm * states[i].norm_margin,
                                          states[i].offset};
                const double bound = 4 * UNIT * (fabs(estimate) + margin[0] + margin[1] + fabs(margin[2]));
                expect_near(level, y[(size_t)i * stride + (size_t)r], estimate + margin[0] + margin[1] + margin[2], bound, "estimate", (long)s, i, r);
                // Whole numbers: exact.
                expect(level, level->kernels->screen_fine(p.fine + (size_t)r * p.row_bytes, p.k, states[i].q) == fine, "fine", (long)s, i, r);
            }
            record(level, y + (size_t)i * stride, (size_t)p.n * sizeof *y);
            for (size_t r = (size_t)p.n; i + 1 < m && r < stride; r++)
                expect(level, isnan(y[(size_t)i * stride + r]), "written beside the estimates", (long)s, i, (long)r);
            // The same bytes for one state alone, and for one group alone.
            float *alone = allocate((size_t)p.n * sizeof *alone);
            for (int first = 0; first < p.n; first += 16)
                level->kernels->screen_rows(p.groups + (size_t)(first / 16) * p.group_bytes, p.n - first < 16 ? p.n - first : 16, p.k,
                                            states + i, 1, alone + first, 1);
            expect(level, memcmp(alone, y + (size_t)i * stride, (size_t)p.n * 4) == 0, "state alone", (long)s, i, 0);
            free(alone);
        }
        free(y);
        free(states);
        free(q);
        free_planes(&p);
    }
    // States without a scale.
    int8_t q[256];
    sigma_screen_state state;
    float x[64] = {0};
    expect(level, !sigma_screen_quantize(x, 64, 6, q, &state), "zeros", 0, 0, 0);
    static const float hostile[] = {NAN, INFINITY, -INFINITY, 1e30f, 1e-30f};
    for (int i = 0; i < 5; i++) {
        for (int c = 0; c < 64; c++) x[c] = i == 4 ? 1e-30f : (float)c;
        x[i * 7] = hostile[i];
        expect(level, !sigma_screen_quantize(x, 64, 6, q, &state), "hostile state", i, 0, 0);
    }
}

static void check_search(level_report *level) {
    begin(level, "screen search", ANY_LANES);
    enum { COUNT = 83 };
    float *values = uneven(COUNT, 3, 1);
    values[20] = NAN;
    values[40] = INFINITY;
    for (int count = 0; count <= COUNT; count++)
        for (int step = -2; step < 3; step++) {
            const float least = step == 2 ? INFINITY : 0.4f * (float)step;
            int32_t *found = allocate((size_t)(count > 0 ? count : 1) * 4);
            const int n = sigma_screen_find(values, count, least, 1000, found);
            int expected = 0;
            for (int i = 0; i < count; i++)
                if (values[i] >= least) expect(level, expected < n && found[expected] == 1000 + i, "found", count, step, i), expected++;
            expect(level, n == expected, "number", count, step, n);
            free(found);
        }
    free(values);
}

// Words of which all bits are set, some are, or none is; and ends within a word, behind which nothing is written.
static void check_mask(level_report *level) {
    begin(level, "screen mask", ANY_LANES);
    enum { COUNT = 64 * 3 + 19 };
    float *values = uneven(COUNT, 3, 1);
    values[3] = NAN;
    values[70] = INFINITY;
    for (int kind = 0; kind < 3; kind++)
        for (int count = 0; count <= COUNT; count++) {
            uint64_t *words = allocate((size_t)(count > 0 ? (count + 63) / 64 : 1) * sizeof *words);
            memset(words, 0, (size_t)(count > 0 ? (count + 63) / 64 : 1) * sizeof *words);
            for (int i = 0; i < count; i++)
                if (kind == 0 || (kind == 1 && (i < 64 || i % 3 != 1))) words[i / 64] |= (uint64_t)1 << (i % 64);
            float *masked = allocate((size_t)COUNT * sizeof *masked);
            memcpy(masked, values, COUNT * sizeof *masked);
            sigma_screen_mask(masked, words, count);
            for (int i = 0; i < COUNT; i++) {
                const int kept = i >= count || words[i / 64] >> (i % 64) & 1;
                expect(level, kept ? memcmp(&masked[i], &values[i], 4) == 0 : masked[i] == -INFINITY, "masked", kind, count, i);
            }
            free(masked);
            free(words);
        }
    free(values);
}

void check_screen(level_report *level) {
    check_rotation(level);
    check_planes(level);
    check_products(level);
    check_search(level);
    check_mask(level);
}
