// Where keys and values lie in the process's memory: said once, for the kernels and for Swift.
//
// A block holds 256 positions of one sequence, [layer][keys, values][kv head] times 16 tiles of 16 positions. A tile of keys is [width][16],
// of values [16][width], width = SIGMA_PADDED(head_dim), of f32. f16 are signed numbers of 15 bits, q8_0 signed bytes: keys as
// [width / 2][16][2], values as [8][width][2] (two components, or two positions, beside each other); then their scales, of 32 components of a
// position: [ceil(width / 32)][16], bf16 for f16 (whose values have one for all components, the first) and fp16 for q8_0. Blocks are 64-byte
// aligned, and tiles of f16 have a multiple of 64 bytes.
#ifndef SIGMA_KV_H
#define SIGMA_KV_H

#include <stddef.h>
#include <stdint.h>

enum { SIGMA_KV_TILE = 16 };

static inline int sigma_kv_width(int head_dim) { return (head_dim + 15) & ~15; }

// type: SIGMA_F32 (0), SIGMA_F16 (1) or SIGMA_Q8_0 (8); head_dim % 32 == 0 for q8_0. Bytes of an element, without a scale.
static inline int sigma_kv_element_bytes(int type) { return type == 0 ? 4 : type == 1 ? 2 : 1; }

static inline size_t sigma_kv_tile_bytes(int type, int head_dim) {
    const size_t width = (size_t)sigma_kv_width(head_dim);
    const size_t elements = SIGMA_KV_TILE * width * (size_t)sigma_kv_element_bytes(type), scales = SIGMA_KV_TILE * 2 * ((width + 31) / 32);
    return type == 0 ? elements : type == 8 ? elements + scales : (elements + scales + 63) / 64 * 64;
}

// Byte offset of a component of a key or value in its tile.
static inline size_t sigma_kv_offset(int type, int head_dim, int is_value, int position, int component) {
    const size_t width = (size_t)sigma_kv_width(head_dim), p = (size_t)position, c = (size_t)component;
    const size_t element = type == 0  ? is_value ? p * width + c : c * SIGMA_KV_TILE + p
                           : is_value ? p / 2 * 2 * width + 2 * c + p % 2
                                      : c / 2 * 2 * SIGMA_KV_TILE + 2 * p + c % 2;
    return element * (size_t)sigma_kv_element_bytes(type);
}

// Byte offset of the scale of 32 components from `component` on, in a tile of f16 or q8_0.
static inline size_t sigma_kv_scale_offset(int type, int head_dim, int position, int component) {
    return SIGMA_KV_TILE * (size_t)sigma_kv_width(head_dim) * (size_t)sigma_kv_element_bytes(type) +
           2 * (size_t)(component / 32 * SIGMA_KV_TILE + position);
}

#endif
