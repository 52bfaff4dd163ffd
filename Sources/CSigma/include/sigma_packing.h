// Between ggml's row-major blocks and the packed layout of quantized matrices (docs/model-file.md, "Packed matrices").
// Types are all but the float ones. Columns are a multiple of the type's block length.
#ifndef SIGMA_PACKING_H
#define SIGMA_PACKING_H

#include <stddef.h>

// Rows of a group.
enum { SIGMA_GROUP = 16 };

// The largest exponent byte of mxfp4 whose weights are finite numbers.
enum { SIGMA_MXFP4_LARGEST = 252 };

// Bytes of a group; a multiple of 64.
size_t sigma_group_bytes(int type, size_t columns);
// `rows` (1 to 16) rows of ggml blocks, one after the other, to a whole group; rows that are missing become zeros.
void sigma_pack_group(int type, const void *blocks, int rows, size_t columns, void *group);
// The inverse, for rows first ..< first + rows of a group.
void sigma_unpack_group(int type, const void *group, int first, int rows, size_t columns, void *blocks);
// Row `row` of a group as fp32: exactly ggml's values.
void sigma_dequantize_row(int type, const void *group, int row, size_t columns, float *out);
// Bytes of a row in ggml's blocks.
size_t sigma_row_bytes(int type, size_t columns);
// Whether all scales of a group are such that all its weights are finite numbers.
int sigma_group_is_finite(int type, const void *group, size_t columns);

#endif
