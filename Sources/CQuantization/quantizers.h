// The quantizers, written once. Each level_<name>.c sets the target attributes, defines LEVEL_NAME and LEVEL_TABLE, and includes this
// file.
#include "sigma_kernels.h"
#include "sigma_quantization.h"

#include "lanes.h"

// Products are rounded before they are added, at every level.
#pragma clang fp contract(off)

#include "one_scale.h"
#include "q4_k.h"
#include "q6_k.h"

static ptrdiff_t quantize(
    int type, const float *rows, size_t count, size_t columns, const float *importance, void *blocks) {
    // With and without weights are compiled apart.
    switch (type) {
    case SIGMA_Q8_0:
        return importance ? quantize_one_scale(rows, count, columns, importance, blocks, &q8_0_weighted, 8)
                          : quantize_one_scale(rows, count, columns, NULL, blocks, &q8_0_plain, 8);
    case SIGMA_Q4_0:
        return importance ? quantize_one_scale(rows, count, columns, importance, blocks, &q4_0_weighted, 4)
                          : quantize_one_scale(rows, count, columns, NULL, blocks, &q4_0_plain, 4);
    case SIGMA_Q4_K:
        return importance ? quantize_q4_k(rows, count, columns, importance, blocks)
                          : quantize_q4_k(rows, count, columns, NULL, blocks);
    default:
        return importance ? quantize_q6_k(rows, count, columns, importance, blocks)
                          : quantize_q6_k(rows, count, columns, NULL, blocks);
    }
}

const sigma_quantizer LEVEL_TABLE = {LEVEL_NAME, quantize};
