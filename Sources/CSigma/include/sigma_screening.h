// The screen of an output head: low-bit planes of its rows that find the few rows whose exact logits decide (docs/model-file.md,
// "Screening planes"). A row is rotated first, so that what is lost by rounding it behaves like noise whatever outliers rows and states have.
#ifndef SIGMA_SCREENING_H
#define SIGMA_SCREENING_H

#include <stddef.h>
#include <stdint.h>

#include "sigma_kernels.h"

// Columns of the planes: those of the head, and zeros up to a multiple of 256.
static inline size_t sigma_screen_columns(size_t hidden) { return (hidden + 255) & ~(size_t)255; }
// A group of 16 rows of the coarse plane; its numbers begin SIGMA_SCREEN_NUMBERS bytes before its end. A multiple of 64.
enum { SIGMA_SCREEN_NUMBERS = 192 };
static inline size_t sigma_screen_group_bytes(size_t columns) { return 4 * columns + SIGMA_SCREEN_NUMBERS; }
// One row of the fine plane. A multiple of 64.
static inline size_t sigma_screen_row_bytes(size_t columns) { return columns / 4; }

// Numbers of one row, from its group of the coarse plane.
typedef struct {
    float half_step;     // a coarse weight is half_step * (2 c - 3); the fine plane adds half_step / 4 * (2 f - 3)
    float coarse_error;  // norm of what the coarse plane misses of the row
    float fine_error;    // of what both miss
    float norm;          // of the row without the mean
} sigma_screen_numbers;

sigma_screen_numbers sigma_screen_row_numbers(const void *group, size_t columns, int row);

// x [hidden] is rotated in place; lengths and products of vectors are kept.
void sigma_screen_rotate(float *x, int hidden);
// The inverse.
void sigma_screen_rotate_back(float *x, int hidden);

// Up to 16 rows [rows, hidden], the mean taken off, to a whole group of the coarse plane and `rows` rows of the fine one; rows that are
// missing become zeros. The rows are rotated in place.
void sigma_screen_encode(float *values, int rows, int hidden, void *group, void *fine);

// A rotated state x [hidden] to 8 bits with one scale: q [columns], zeros after hidden, and all of `state` but the offset. `deviations` is
// how many standard deviations of the error the margins are wide. Returns 0 where x has no usable scale: zeros, not-a-number, huge or tiny.
int sigma_screen_quantize(const float *x, int hidden, float deviations, int8_t *q, sigma_screen_state *state);

// Ids (from `first` on) of the values that are at least `least`, in order; returns their number. found: room for count.
int sigma_screen_find(const float *values, int count, float least, int32_t first, int32_t *found);
// Values whose bits are zero become -inf: bit i % 64 of word i / 64 is value i's.
void sigma_screen_mask(float *values, const uint64_t *words, int count);

#endif
