// fp32 weights to ggml's quantized blocks, by a search for the scales (and minima) that make the squared error least. Conversion only:
// nothing here runs when a model is used.
//
// The blocks are the same bytes on every instruction set: all levels are compiled from one source that works on 16 lanes, without
// fused multiply-adds, and whose sums have one order.
#ifndef SIGMA_QUANTIZATION_H
#define SIGMA_QUANTIZATION_H

#include <stddef.h>

typedef struct {
    const char *name;

    // Rows [count, columns] of finite weights, one after the other, to as many rows of blocks of `type` (SIGMA_Q8_0, SIGMA_Q6_K,
    // SIGMA_Q5_K, SIGMA_Q4_K, SIGMA_Q4_0 or SIGMA_Q3_K). Columns are a multiple of the type's block length.
    //
    // importance [columns], or NULL: the error that is made least is the sum of importance * (weight - quantized weight)^2. Finite,
    // positive numbers, best with a mean near 1.
    //
    // Returns -1, or the first row that has a weight too large for the type: its blocks, and those of later rows, are then undefined.
    ptrdiff_t (*quantize)(int type, const float *rows, size_t count, size_t columns, const float *importance, void *blocks);
} sigma_quantizer;

// The best level that this processor can run.
const sigma_quantizer *sigma_quantizer_best(void);
// "portable", "avx2", "avx512": NULL where the name is unknown or the processor cannot run it.
const sigma_quantizer *sigma_quantizer_named(const char *name);

#endif
