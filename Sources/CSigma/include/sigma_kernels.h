// Arithmetic kernels: one table per instruction set, chosen at run time.
//
// Conventions: matrices are row-major [rows, columns]; a weight matrix W [n, k] maps activations [m, k] to [m, n].
// Element (i, j) of every product is one dot product whose order of summation depends on k alone, never on n, m or the
// tile, so results do not depend on batching or threads. Pointers need no alignment unless stated. Nothing may alias
// unless stated.
#ifndef SIGMA_KERNELS_H
#define SIGMA_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#include "sigma_kv.h"

// GGUF's numbers.
enum {
    SIGMA_F32 = 0, SIGMA_F16 = 1, SIGMA_Q4_0 = 2, SIGMA_Q4_1 = 3, SIGMA_Q5_0 = 6, SIGMA_Q5_1 = 7, SIGMA_Q8_0 = 8, SIGMA_Q2_K = 10,
    SIGMA_Q3_K = 11, SIGMA_Q4_K = 12, SIGMA_Q5_K = 13, SIGMA_Q6_K = 14, SIGMA_IQ4_NL = 20, SIGMA_IQ4_XS = 23, SIGMA_BF16 = 30,
    SIGMA_MXFP4 = 39
};

// Positions per block of attention's online softmax.
enum { SIGMA_ATTENTION_BLOCK = 64 };
// Most query vectors of one call, and those whose scores are kept at a time.
enum { SIGMA_ATTENTION_QUERIES = 1024, SIGMA_ATTENTION_CHUNK = 32 };

// Queries and outputs of attention lie at this distance: head_dim rounded up, the rest zero.
#define SIGMA_PADDED(head_dim) (((head_dim) + 15) & ~15)

// Floats of scratch that attention of so many queries uses: scores, and queries in 16 bits with their scales.
static inline size_t sigma_attention_scratch(int head_dim, int queries) {
    return SIGMA_ATTENTION_BLOCK * SIGMA_ATTENTION_CHUNK + (size_t)queries * (1 + SIGMA_PADDED(head_dim) / 2);
}

// 32 activations in 8 bits, and what products need to know of them beside.
typedef struct {
    int8_t q[32];
    float scale;            // an activation is scale * q
    float scaled_sum;       // scale * sum of q
    int32_t both, first;    // -8 * sum of all, of the first 16: what a zero point of 8 takes off
} sigma_activation_block;

// m activation rows. Row i is at index[i], or at i where index is NULL.
typedef struct {
    const float *values;    // [*, k] fp32
    size_t value_stride;    // elements from row to row
    const sigma_activation_block *blocks;  // [*, k / 32], for quantized weights; k % 32 == 0
    size_t block_stride;    // elements from row to row
    const int32_t *index;   // [m] or NULL
} sigma_activations;

// A state that the planes of an output head are multiplied with: rotated, in 8 bits. The estimate of a row's logit is
// offset + scale * half_step * sum of (2 c - 3) q, and its margin error_margin * coarse_error + norm_margin * norm.
typedef struct {
    const int8_t *q;  // [k]
    int32_t sum;      // of q
    float scale;      // the state is scale * q
    float offset;     // the product with the rows' mean
    float error_margin, norm_margin;
} sigma_screen_state;

// Keys (or values) of one head at successive positions, in the tiles of a block (sigma_kv.h). There is memory for whole blocks of
// SIGMA_ATTENTION_BLOCK positions: what follows the last visible position is read, and makes no difference.
typedef struct {
    void *tiles;
    int type;  // SIGMA_F32, SIGMA_F16 or SIGMA_Q8_0; head_dim % 32 == 0 for q8_0
    const void *next;  // tiles that are read after these, to have them come in time; or NULL
} sigma_kv_rows;

typedef struct {
    const char *name;

    // x [k] -> blocks [k / 32]: scale = max|x| / 127 per 32 values, rounded to nearest even. k % 32 == 0.
    void (*quantize_activations)(const float *x, sigma_activation_block *blocks, int k);

    // y[i * y_stride + j] = sum over k of W[j] * activation row i, for n rows of W, packed in groups of 16 (the first row begins a
    // group; 64-byte aligned), and m activation rows.
    void (*matmul_packed)(int type, const void *groups, int n, int k, const sigma_activations *a, int m, float *y,
                          size_t y_stride);
    // The same for row-major float weights (type SIGMA_F32, SIGMA_F16 or SIGMA_BF16), fp32 activations and sums.
    void (*matmul_float)(const void *w, int type, int n, int k, const sigma_activations *a, int m, float *y,
                         size_t y_stride);

    // y[i * y_stride + j] = estimate and margin of row j's logit for state i (sigma_screen_state), for n rows of a coarse plane in groups of 16
    // (sigma_screening.h; the first row begins a group; 64-byte aligned) and m states. k % 256 == 0.
    void (*screen_rows)(const void *groups, int n, int k, const sigma_screen_state *x, int m, float *y, size_t y_stride);
    // Sum over k of f q, f a row of the fine plane (64-byte aligned), q [k]. k % 256 == 0.
    int32_t (*screen_fine)(const void *row, int k, const int8_t *q);

    // n elements of a float type -> fp32 (exact).
    void (*widen)(const void *source, int type, float *out, int n);

    // y = x / sqrt(mean(x^2) + eps) * weight. y may be x.
    void (*rms_norm)(const float *x, const float *weight, float eps, float *y, int n);
    // Rotates the halves of x [2 * half]: x1' = x1 cos - x2 sin, x2' = x2 cos + x1 sin.
    void (*rope)(float *x, const float *cosines, const float *sines, int half);
    // y = silu(gate) * up. y may be gate.
    void (*silu_multiply)(const float *gate, const float *up, float *y, int n);
    // y += a * x
    void (*add_scaled)(float *y, float a, const float *x, int n);
    // y = x / divisor
    void (*divide)(const float *x, float divisor, float *y, int n);
    // ln(sum of e^x) over n > 0 numbers, in fp64; what is not a number counts nothing. -inf or inf where the largest is.
    double (*log_sum_exp)(const float *x, int n);

    // x [head_dim] becomes the keys' or values' row at `position`: f16 with scale max|x| / 16383, of keys per 32, rounded up to bf16; q8_0 with
    // scale max|x| / 127 per 32. Numbers are rounded to nearest even.
    void (*store_kv)(const float *x, int head_dim, int is_value, int position, const sigma_kv_rows *rows);
    // One split of a sequence: `queries` vectors q [queries, padded] (already scaled, padded = SIGMA_PADDED(head_dim), zeros after
    // head_dim) against its first positions. Query i sees the first visible[i] >= 0 of them. Writes the softmax state of each query:
    // maximum[i], sum[i] and the unnormalised output [queries, padded]. scratch holds sigma_attention_scratch(head_dim, queries) floats.
    void (*attend)(const sigma_kv_rows *keys, const sigma_kv_rows *values, int head_dim, const float *q, int queries,
                   const int32_t *visible, float *scratch, float *maximum, float *sum, float *output);
    // Adds one split's state to the state (maximum, sum, output [padded]) of the splits before it. Begin
    // with -inf, 0, 0.
    void (*merge_attention)(float *maximum, float *sum, float *output, float split_maximum, float split_sum,
                            const float *split_output, int head_dim);
} sigma_kernels;

// Prefetches `bytes` bytes into the processor's second-level cache.
static inline void sigma_prefetch(const void *bytes, size_t count) {
    for (size_t i = 0; i < count; i += 64) __builtin_prefetch((const char *)bytes + i, 0, 2);
}

// The best table that this processor can run.
const sigma_kernels *sigma_kernels_best(void);
// The levels that this processor can run, the plainest (0, "portable") first and the best last, ending with NULL. docs/kernels.md lists them.
const sigma_kernels *sigma_kernels_level(int number);
// NULL where the name is unknown or the processor cannot run it.
const sigma_kernels *sigma_kernels_named(const char *name);

#endif
