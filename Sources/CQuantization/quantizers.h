// The quantizers, written once. Each level_<name>.c sets the target attributes, defines LEVEL_NAME and LEVEL_TABLE, and includes this
// file.
#include "sigma_kernels.h"
#include "sigma_quantization.h"

#include "lanes.h"

// Products are rounded before they are added, at every level.
#pragma clang fp contract(off)

#include "one_scale.h"
#include "affine.h"
#include "signed_scales.h"

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
        return importance ? quantize_affine(rows, count, columns, importance, Q4_K_LIMIT, blocks)
                          : quantize_affine(rows, count, columns, NULL, Q4_K_LIMIT, blocks);
    case SIGMA_Q5_K:
        return importance ? quantize_affine(rows, count, columns, importance, Q5_K_LIMIT, blocks)
                          : quantize_affine(rows, count, columns, NULL, Q5_K_LIMIT, blocks);
    case SIGMA_Q3_K:
        return importance ? quantize_signed(rows, count, columns, importance, blocks, &q3_k_weighted)
                          : quantize_signed(rows, count, columns, NULL, blocks, &q3_k_plain);
    default:
        return importance ? quantize_signed(rows, count, columns, importance, blocks, &q6_k)
                          : quantize_signed(rows, count, columns, NULL, blocks, &q6_k);
    }
}

const sigma_quantizer LEVEL_TABLE = {LEVEL_NAME, quantize};
