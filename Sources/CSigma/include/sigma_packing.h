// Between ggml's row-major blocks and the packed layout of quantized matrices (docs/model-file.md, "Packed matrices").
// Types are SIGMA_Q8_0, SIGMA_Q6_K, SIGMA_Q4_K and SIGMA_Q4_0. Columns are a multiple of the type's block length.
#ifndef SIGMA_PACKING_H
#define SIGMA_PACKING_H

#include <stddef.h>

// Rows of a group.
enum { SIGMA_GROUP = 16 };

// Bytes of a group; a multiple of 64.
size_t sigma_group_bytes(int type, size_t columns);
// `rows` (1 to 16) rows of ggml blocks, one behind the other, to a whole group; rows that are missing become zeros.
void sigma_pack_group(int type, const void *blocks, int rows, size_t columns, void *group);
// The inverse, for rows first ..< first + rows of a group.
void sigma_unpack_group(int type, const void *group, int first, int rows, size_t columns, void *blocks);
// Row `row` of a group as fp32: exactly ggml's values.
void sigma_dequantize_row(int type, const void *group, int row, size_t columns, float *out);
// Whether all fp16 scales of a group are finite numbers: then all its weights are.
int sigma_group_is_finite(int type, const void *group, size_t columns);

#endif
