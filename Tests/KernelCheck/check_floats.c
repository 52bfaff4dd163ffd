// Float matrices and conversions.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "sigma_half.h"

static size_t element_bytes(int type) { return type == SIGMA_F32 ? 4 : 2; }

// `source` in a float type (bf16 cut off), and in fp64 what that is.
static void *convert(const float *source, size_t count, int type, double *exact) {
    uint8_t *elements = allocate(count * element_bytes(type));
    for (size_t i = 0; i < count; i++) {
        float value = source[i];
        uint32_t bits;
        memcpy(&bits, &value, 4);
        uint16_t half = sigma_float_to_half(value);
        if (type == SIGMA_F16) value = sigma_half_to_float(half);
        if (type == SIGMA_BF16) {
            half = (uint16_t)(bits >> 16);
            bits &= 0xffff0000;
            memcpy(&value, &bits, 4);
        }
        memcpy(elements + i * element_bytes(type), type == SIGMA_F32 ? (const void *)&bits : (const void *)&half, element_bytes(type));
        exact[i] = value;
    }
    return elements;
}

static void check_products(level_report *level, int type, const char *name) {
    begin(level, name, BY_LANES);
    static const int shapes[][3] = {{1, 1, 1}, {5, 40, 2}, {7, 1536, 1}, {4, 97, 3}, {9, 256, 5}, {3, 31, 2}, {6, 33, 9}, {16, 7, 4}};
    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
        const int n = shapes[s][0], k = shapes[s][1], m = shapes[s][2];
        float *source = uneven((size_t)(n * k), s, 1), *x = uneven((size_t)(m * k), s + 50, 3);
        double *exact = allocate((size_t)(n * k) * sizeof(double));
        void *w = convert(source, (size_t)(n * k), type, exact);
        float *y = allocate((size_t)(n * m) * sizeof(float)), *alone = allocate(sizeof(float));
        sigma_activations a = {x, (size_t)k, NULL, 0, NULL};
        level->kernels->matmul_float(w, type, n, k, &a, m, y, (size_t)n);
        for (int i = 0; i < m; i++)
            for (int j = 0; j < n; j++) {
                double sum = 0, norm = 0;
                for (int c = 0; c < k; c++) {
                    const double product = exact[j * k + c] * x[i * k + c];
                    sum += product;
                    norm += fabs(product);
                }
                expect_near(level, y[i * n + j], sum, (k + 1) * UNIT * norm, "product", (long)s, i, j);
                const int32_t row = i;
                sigma_activations one = {x, (size_t)k, NULL, 0, &row};
                const char *own = (const char *)w + (size_t)(j * k) * element_bytes(type);
                level->kernels->matmul_float(own, type, 1, k, &one, 1, alone, 1);
                expect(level, *alone == y[i * n + j], "one output alone", (long)s, i, j);
            }
        record(level, y, (size_t)(n * m) * sizeof(float));
        free(alone);
        free(y);
        free(w);
        free(exact);
        free(x);
        free(source);
    }
}

static void check_widening(level_report *level) {
    begin(level, "widen", ANY_LANES);
    enum { HALVES = 0xffff, BRAINS = 45 };
    uint16_t *halves = allocate(HALVES * sizeof *halves);
    float *wide = allocate(HALVES * sizeof *wide);
    for (int i = 0; i < HALVES; i++) halves[i] = (uint16_t)i;
    level->kernels->widen(halves, SIGMA_F16, wide, HALVES);
    for (int i = 0; i < HALVES; i++) {
        const float exact = sigma_half_to_float((uint16_t)i);
        expect(level, memcmp(&wide[i], &exact, 4) == 0 || (isnan(wide[i]) && isnan(exact)), "fp16", i, 0, 0);
    }
    record(level, wide, 0x7c01 * sizeof *wide);
    float *source = uneven(BRAINS, 9, 1);
    double *exact = allocate(BRAINS * sizeof *exact);
    for (int form = 0; form < 2; form++) {
        const int type = form ? SIGMA_BF16 : SIGMA_F32;
        void *elements = convert(source, BRAINS, type, exact);
        level->kernels->widen(elements, type, wide, BRAINS);
        for (int i = 0; i < BRAINS; i++) expect(level, wide[i] == exact[i], "bf16 or fp32", type, i, 0);
        free(elements);
    }
    free(exact);
    free(source);
    free(wide);
    free(halves);
}

void check_floats(level_report *level) {
    check_products(level, SIGMA_F32, "matmul_float f32");
    check_products(level, SIGMA_F16, "matmul_float f16");
    check_products(level, SIGMA_BF16, "matmul_float bf16");
    check_widening(level);
}
