// What is done to one row: norm, rotation, gate, sum.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

static void check_norm(level_report *level) {
    begin(level, "rms_norm", BY_LANES);
    static const int lengths[] = {1, 7, 40, 96, 1536};
    for (size_t l = 0; l < sizeof lengths / sizeof lengths[0]; l++) {
        const int n = lengths[l];
        float *x = uneven((size_t)n, 1, 5), *w = uneven((size_t)n, 2, 1), *y = allocate((size_t)n * sizeof *y);
        level->kernels->rms_norm(x, w, 1e-6f, y, n);
        double squares = 0;
        for (int i = 0; i < n; i++) squares += (double)x[i] * x[i];
        for (int i = 0; i < n; i++) {
            const double exact = x[i] / sqrt(squares / n + 1e-6f) * w[i];
            expect_near(level, y[i], exact, (n + 8) * UNIT * fabs(exact), "element", n, i, 0);
        }
        level->kernels->rms_norm(x, w, 1e-6f, x, n);
        expect(level, memcmp(x, y, (size_t)n * sizeof *y) == 0, "in place", n, 0, 0);
        record(level, y, (size_t)n * sizeof *y);
        free(y);
        free(w);
        free(x);
    }
}

static void check_rotation(level_report *level) {
    begin(level, "rope", ANY_LANES);
    enum { HALF = 27 };
    float *x = uneven(2 * HALF, 4, 1), *angles = uneven(HALF, 3, 3), *y = allocate(2 * HALF * sizeof *y);
    float *cosines = allocate(HALF * sizeof *cosines), *sines = allocate(HALF * sizeof *sines);
    for (int i = 0; i < HALF; i++) {
        cosines[i] = (float)cos(angles[i]);
        sines[i] = (float)sin(angles[i]);
    }
    memcpy(y, x, 2 * HALF * sizeof *y);
    level->kernels->rope(y, cosines, sines, HALF);
    for (int i = 0; i < HALF; i++) {
        const double a = x[i], b = x[i + HALF], bound = 2 * UNIT * (fabs(a) + fabs(b));
        expect_near(level, y[i], a * cosines[i] - b * sines[i], bound, "first half", i, 0, 0);
        expect_near(level, y[i + HALF], b * cosines[i] + a * sines[i], bound, "second half", i, 0, 0);
    }
    record(level, y, 2 * HALF * sizeof *y);
    free(sines);
    free(cosines);
    free(y);
    free(angles);
    free(x);
}

static void check_gate(level_report *level) {
    begin(level, "silu_multiply", ANY_LANES);
    static const float special[] = {-200, -88, -87.4f, -20, -1, -1e-6f, 0, 1e-6f, 0.5f, 1, 10, 87, 200, 3, -3};
    enum { SPECIAL = sizeof special / sizeof special[0], COUNT = 1000 + SPECIAL };
    float *gate = uneven(COUNT, 6, 30), *up = uneven(COUNT, 5, 1), *y = allocate(COUNT * sizeof *y);
    memcpy(gate, special, sizeof special);
    level->kernels->silu_multiply(gate, up, y, COUNT);
    for (int i = 0; i < COUNT; i++) {
        const double exact = gate[i] / (1 + exp(-(double)gate[i])) * up[i];
        // Below e^-87 the sigmoid is flushed towards zero.
        expect_near(level, y[i], exact, 0x1p-20 * fabs(exact) + 1e-35, "element", i, 0, 0);
    }
    level->kernels->silu_multiply(gate, up, gate, COUNT);
    expect(level, memcmp(gate, y, COUNT * sizeof *y) == 0, "in place", 0, 0, 0);
    record(level, y, COUNT * sizeof *y);
    free(y);
    free(up);
    free(gate);
}

static void check_sum(level_report *level) {
    begin(level, "add_scaled", ANY_LANES);
    enum { COUNT = 101 };
    float *x = uneven(COUNT, 7, 2), *y = uneven(COUNT, 8, 2), *before = allocate(COUNT * sizeof *y);
    memcpy(before, y, COUNT * sizeof *y);
    level->kernels->add_scaled(y, 0.3f, x, COUNT);
    for (int i = 0; i < COUNT; i++) {
        const double product = (double)x[i] * 0.3f;
        expect_near(level, y[i], product + before[i], 2 * UNIT * (fabs(product) + fabs(before[i])), "element", i, 0, 0);
    }
    record(level, y, COUNT * sizeof *y);
    free(before);
    free(y);
    free(x);
}

static void check_division(level_report *level) {
    begin(level, "divide", ANY_LANES);
    enum { COUNT = 101 };
    float *x = uneven(COUNT, 11, 2), *y = allocate(COUNT * sizeof *y);
    level->kernels->divide(x, 3.7f, y, COUNT);
    for (int i = 0; i < COUNT; i++) expect(level, y[i] == x[i] / 3.7f, "element", i, 0, 0);
    record(level, y, COUNT * sizeof *y);
    free(y);
    free(x);
}

static void check_log_sum(level_report *level) {
    begin(level, "log_sum_exp", ANY_LANES);
    enum { COUNT = 2000 };
    float *x = uneven(COUNT, 12, 30);
    double results[COUNT] = {0};
    for (int n = 1; n <= COUNT; n += n < 40 ? 1 : 487) {
        long double sum = 0;
        float most = x[0];
        for (int i = 0; i < n; i++) most = x[i] > most ? x[i] : most;
        for (int i = 0; i < n; i++) sum += expl((long double)x[i] - most);
        const double exact = (double)(most + logl(sum));
        results[n - 1] = level->kernels->log_sum_exp(x, n);
        expect_near(level, results[n - 1], exact, 1e-14 * (1 + fabs(exact)), "sum", n, 0, 0);
    }
    record(level, results, sizeof results);
    const double before = level->kernels->log_sum_exp(x, 9);
    const float special[] = {-INFINITY, NAN, -1e30f, -800};
    for (size_t i = 0; i < sizeof special / sizeof special[0]; i++) {
        x[9] = special[i];
        expect(level, level->kernels->log_sum_exp(x, 10) == before, "what counts nothing", (int)i, 0, 0);
    }
    const float infinite[] = {1, INFINITY, 2}, none[] = {-INFINITY, NAN, -INFINITY};
    expect(level, level->kernels->log_sum_exp(infinite, 3) == INFINITY, "infinity", 0, 0, 0);
    expect(level, level->kernels->log_sum_exp(none, 3) == -INFINITY, "nothing", 0, 0, 0);
    free(x);
}

void check_rows(level_report *level) {
    check_norm(level);
    check_rotation(level);
    check_gate(level);
    check_sum(level);
    check_division(level);
    check_log_sum(level);
}
