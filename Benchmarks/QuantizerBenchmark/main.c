// Speed of the quantizers on one thread, beside ggml's in turns: quantizer-benchmark [--rows N] [--level NAME] [--ggml LIBRARY]
//
// LIBRARY is libggml-base.so (.dylib) of llama.cpp, as the Python package llama-cpp-python brings it. Rows are Gaussian, 1536 columns.
// Time is the thread's processor time, best and median of the turns: what else runs on the machine counts little.
#include <dlfcn.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "sigma_kernels.h"
#include "sigma_quantization.h"

enum { COLUMNS = 1536, TURNS = 7 };

typedef size_t (*ggml_quantizer)(
    int type, const float *source, void *target, int64_t start, int64_t rows, int64_t columns, const float *importance);

static double thread_time(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double unit(void) {
    static uint64_t state = 1;
    state += 0x9e3779b97f4a7c15;
    uint64_t z = state;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return ((double)((z ^ z >> 31) >> 11) + 0.5) * 0x1p-53;
}

static double gaussian(void) { return sqrt(-2 * log(unit())) * cos(2 * 3.14159265358979 * unit()); }

static int by_size(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(int count, char **arguments) {
    size_t rows = 512;
    const char *library = NULL;
    const sigma_quantizer *quantizer = sigma_quantizer_best();
    for (int i = 1; i < count; i += 2) {
        const char *value = i + 1 < count ? arguments[i + 1] : NULL;
        if (value && strcmp(arguments[i], "--rows") == 0 && atol(value) > 0)
            rows = (size_t)atol(value);
        else if (value && strcmp(arguments[i], "--ggml") == 0)
            library = value;
        else if (value && strcmp(arguments[i], "--level") == 0 && sigma_quantizer_named(value))
            quantizer = sigma_quantizer_named(value);
        else {
            fprintf(stderr, "usage: quantizer-benchmark [--rows N] [--level portable|avx2|avx512] [--ggml LIBRARY]\n");
            return 64;
        }
    }
    ggml_quantizer ggml = NULL;
    if (library) {
        void *handle = dlopen(library, RTLD_NOW);
        if (!handle || !(ggml = (ggml_quantizer)dlsym(handle, "ggml_quantize_chunk"))) {
            fprintf(stderr, "%s\n", dlerror());
            return 66;
        }
    }
    const size_t weights = rows * COLUMNS;
    float *source = malloc(4 * weights), *importance = malloc(4 * COLUMNS);
    void *blocks = malloc(2 * weights);
    if (!source || !importance || !blocks) return 69;
    for (size_t i = 0; i < weights; i++) source[i] = (float)(0.02 * gaussian());
    for (size_t i = 0; i < COLUMNS; i++) importance[i] = (float)exp(gaussian() - 0.5);

    static const struct {
        int type;
        const char *name;
    } types[] = {{SIGMA_Q8_0, "q8_0"}, {SIGMA_Q6_K, "q6_k"}, {SIGMA_Q5_K, "q5_k"}, {SIGMA_Q4_K, "q4_k"}, {SIGMA_Q4_0, "q4_0"}, {SIGMA_Q3_K, "q3_k"}};
    printf("%zu rows of %d, level %s; nanoseconds per weight, best and median of %d turns\n", rows, COLUMNS, quantizer->name, TURNS);
    printf("%-6s %-8s %10s %8s%s\n", "type", "imatrix", "ours", "", ggml ? "        ggml            ggml / ours" : "");
    for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
        for (int weighted = 0; weighted < 2; weighted++) {
            const float *given = weighted ? importance : NULL;
            double ours[TURNS], theirs[TURNS];
            for (int turn = 0; turn < TURNS; turn++) {
                double begin = thread_time();
                if (quantizer->quantize(types[t].type, source, rows, COLUMNS, given, blocks) >= 0) return 70;
                ours[turn] = (thread_time() - begin) * 1e9 / (double)weights;
                if (!ggml) continue;
                begin = thread_time();
                ggml(types[t].type, source, blocks, 0, (int64_t)rows, COLUMNS, given);
                theirs[turn] = (thread_time() - begin) * 1e9 / (double)weights;
            }
            qsort(ours, TURNS, sizeof *ours, by_size);
            printf("%-6s %-8s %10.2f %8.2f", types[t].name, weighted ? "yes" : "no", ours[0], ours[TURNS / 2]);
            if (ggml) {
                qsort(theirs, TURNS, sizeof *theirs, by_size);
                printf(" %10.2f %8.2f %10.2f", theirs[0], theirs[TURNS / 2], theirs[TURNS / 2] / ours[TURNS / 2]);
            }
            printf("\n");
        }
    }
    free(source);
    free(importance);
    free(blocks);
    return 0;
}
