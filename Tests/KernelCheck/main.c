// Checks every kernel of every instruction-set level that this processor (or emulator) has against plain scalar arithmetic.
//
//   check-kernels          all levels, and that those which promise it wrote the same bytes
//   check-kernels --list   their names
//
// Lines of the report: level, kernel, number of comparisons, largest error in units of its bound, which levels promise the same results
// (all with fused products, those of the same length of vectors, or none but its own), and the results' checksum. Exit code 1 if
// anything failed.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "sigma_files.h"

void begin(level_report *level, const char *kernel, lane_order order) {
    if (level->count == MOST_KERNELS) abort();
    level->reports[level->count++] = (report){.kernel = kernel, .order = order};
}

static void failed(level_report *level, report *now, const char *what, long a, long b, long c) {
    if (now->failures++ < 5) fprintf(stderr, "%s %s: %s (%ld, %ld, %ld)", level->kernels->name, now->kernel, what, a, b, c);
}

void expect_near(level_report *level, double found, double exact, double bound, const char *what, long a, long b, long c) {
    report *now = &level->reports[level->count - 1];
    now->comparisons++;
    const double error = fabs(found - exact);
    if (error <= bound) {
        if (bound > 0 && error / bound > now->worst) now->worst = error / bound;
        return;
    }
    failed(level, now, what, a, b, c);
    if (now->failures <= 5) fprintf(stderr, ": found %.9g, expected %.9g within %.3g\n", found, exact, bound);
}

void expect(level_report *level, int holds, const char *what, long a, long b, long c) {
    report *now = &level->reports[level->count - 1];
    now->comparisons++;
    if (holds) return;
    failed(level, now, what, a, b, c);
    if (now->failures <= 5) fprintf(stderr, "\n");
}

void record(level_report *level, const void *results, size_t bytes) {
    report *now = &level->reports[level->count - 1];
    now->results = sigma_crc32c(now->results, results, bytes);
}

void *allocate(size_t bytes) {
    void *p = NULL;
    if (posix_memalign(&p, 64, bytes) != 0) abort();
    return memset(p, 0xff, bytes);
}

uint64_t next_random(uint64_t *state) {
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

float *uneven(size_t count, uint64_t seed, float scale) {
    float *values = allocate(count * sizeof(float));
    for (size_t i = 0; i < count; i++) {
        const float value = ((float)(next_random(&seed) >> 40) * 0x1p-23f - 1) * scale;
        values[i] = i % 37 == 5 ? 0 : i % 11 == 3 ? value * 0.01f : value;
    }
    return values;
}

// Levels with fused products (all but the baseline of x86-64) write the same bytes wherever the length of vectors makes no difference,
// and everywhere if that is the same too.
static int is_fused(const char *level) {
#if defined(__aarch64__)
    (void)level;
    return 1;
#else
    return strcmp(level, "portable") != 0;
#endif
}

static int lanes(const char *level) {
    return strncmp(level, "avx512", 6) == 0 ? 16 : strncmp(level, "avx2", 4) == 0 ? 8 : 4;
}

static long compare(const level_report *a, const level_report *b) {
    if (!is_fused(a->kernels->name) || !is_fused(b->kernels->name)) return 0;
    long differing = 0;
    for (int i = 0; i < a->count; i++) {
        if (a->reports[i].order == BY_LANES && lanes(a->kernels->name) != lanes(b->kernels->name)) continue;
        if (a->reports[i].results == b->reports[i].results) continue;
        fprintf(stderr, "%s and %s differ in %s\n", a->kernels->name, b->kernels->name, a->reports[i].kernel);
        differing++;
    }
    return differing;
}

int main(int count, char **arguments) {
    enum { MOST_LEVELS = 8 };
    static level_report levels[MOST_LEVELS];
    if (count > 2 || (count == 2 && strcmp(arguments[1], "--list") != 0)) {
        fprintf(stderr, "usage: check-kernels [--list]\n");
        return 64;
    }
    int found = 0;
    long failures = 0;
    for (const sigma_kernels *kernels; found < MOST_LEVELS && (kernels = sigma_kernels_level(found)); found++) {
        level_report *level = &levels[found];
        level->kernels = kernels;
        if (count == 2) {
            printf("%s\n", kernels->name);
            continue;
        }
        check_packed(level);
        check_floats(level);
        check_rows(level);
        check_attention(level);
        check_screen(level);
        for (int i = 0; i < level->count; i++) {
            const report *r = &level->reports[i];
            failures += r->failures;
            printf("%-9s %-22s %6ld comparisons, error %.3f of bound, results %s %08x%s\n", kernels->name, r->kernel, r->comparisons,
                   r->worst, !is_fused(kernels->name) ? "own" : r->order == ANY_LANES ? "all" : "length", (unsigned)r->results,
                   r->failures ? " FAILED" : "");
        }
    }
    if (count == 2) return 0;
    for (int i = 1; i < found; i++) failures += compare(&levels[i - 1], &levels[i]);
    if (strcmp(sigma_kernels_best()->name, levels[found - 1].kernels->name) != 0) {
        fprintf(stderr, "the best level is not the last\n");
        failures++;
    }
    printf("%d levels, %ld failures\n", found, failures);
    return failures ? 1 : 0;
}
