// What the checks share: reports, memory of exact sizes, uneven values.
#ifndef CHECK_H
#define CHECK_H

#include <stddef.h>
#include <stdint.h>

#include "sigma_kernels.h"

// Rounding unit of fp32.
#define UNIT 0x1p-24

// Whether a kernel's results depend on how many lanes a vector has. They do not where every output is computed in one lane.
typedef enum { ANY_LANES, BY_LANES } lane_order;

// What one kernel of one level did.
typedef struct {
    const char *kernel;
    lane_order order;
    uint32_t results;   // checksum of everything that it wrote
    double worst;       // largest error, in units of the bound
    long comparisons;
    long failures;
} report;

enum { MOST_KERNELS = 48 };

// Of one level, in the order of the checks.
typedef struct {
    const sigma_kernels *kernels;
    report reports[MOST_KERNELS];
    int count;
} level_report;

// Begins the report on a kernel; what follows counts for it.
void begin(level_report *level, const char *kernel, lane_order order);
// |found - exact| <= bound, none of them not-a-number. `what` and its numbers say where.
void expect_near(level_report *level, double found, double exact, double bound, const char *what, long a, long b, long c);
void expect(level_report *level, int holds, const char *what, long a, long b, long c);
// Adds results to the checksum.
void record(level_report *level, const void *results, size_t bytes);

// Memory of just that size, so that an address sanitizer sees one byte too many; 64-byte aligned, filled with 0xff (fp32, fp16: not a number).
void *allocate(size_t bytes);

// Uneven values in -scale ..< scale, a few of them zero or small.
float *uneven(size_t count, uint64_t seed, float scale);
uint64_t next_random(uint64_t *state);

void check_packed(level_report *level);
void check_floats(level_report *level);
void check_rows(level_report *level);
void check_attention(level_report *level);
void check_screen(level_report *level);

#endif
