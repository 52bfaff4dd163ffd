// q6_k: 256 weights with an fp16 factor d, 16 signed bytes s, one for 16 weights, and integers q in [-32, 31]; a weight is d s q.
//
// A lane is one of the 16 parts. Since d s is what counts and s is an integer, the search tries integers themselves, about the place
// where the part's largest weight becomes -32 steps, and (with the other sign) +31.

enum {
    Q6_K_BYTES = 210,
    // Integers that are tried on each side of the middle: from about 30 to 35 steps at s = 100, and more where s is small.
    Q6_K_REACH = 8,
    // What s of the part with the largest weight is at first: room for larger ones above it.
    Q6_K_TOP = 110
};

typedef struct {
    vf scales;  // s
    vf error;
} q6_k_parts;

// Sum of w (x - a q)^2 over a part, with the best q.
INLINE vf q6_k_error(const vf x[16], const vf *w, vf a) {
    const vf inverse = quotient(splat(1), a);
    vf error = splat(0);
    for (int i = 0; i < 16; i++) {
        const vf q = clamp(nearest(x[i] * inverse), -32, 31);
        const vf r = x[i] - a * q;
        error = error + (w ? w[i] * r : r) * r;
    }
    return error;
}

// The best s of each part for one d.
INLINE q6_k_parts q6_k_search_parts(const vf x[16], const vf *w, vf extreme, vf d) {
    q6_k_parts best = {splat(0), splat(INFINITY)};
    for (int side = 0; side < 2; side++) {
        const vf center = nearest(extreme / (d * splat(side ? 31 : -32)));
        for (int j = -Q6_K_REACH; j <= Q6_K_REACH; j++) {
            const vf s = clamp(center + (float)j, -128, 127);
            const vf error = q6_k_error(x, w, d * s);
            const vi better = error < best.error;
            keep(better, &best.error, error);
            keep(better, &best.scales, s);
        }
    }
    return best;
}

// Moves d to the least squares of the integers that it gives. Returns the new error of all parts.
INLINE vf q6_k_refine(const vf x[16], const vf *w, vf scales, vf *d) {
    const vf a = *d * scales, inverse = quotient(splat(1), a);
    vf cross = splat(0), square = splat(0);
    for (int i = 0; i < 16; i++) {
        const vf q = clamp(nearest(x[i] * inverse), -32, 31);
        const vf r = x[i] - a * q, sq = scales * q, wsq = w ? w[i] * sq : sq;
        cross = cross + wsq * r;
        square = square + wsq * sq;
    }
    *d = half_precision(*d + quotient(sum_of_16(cross), sum_of_16(square)));
    return sum_of_16(q6_k_error(x, w, *d * scales));
}

INLINE void q6_k_emit(const float *x, float d, const float scales[16], uint8_t *block) {
    uint8_t q[256];
    for (int p = 0; p < 16; p++) {
        const float a = d * scales[p], inverse = a != 0 ? 1 / a : 0;
        const vf integers = clamp(nearest(load(x + 16 * p) * splat(inverse)), -32, 31) + 32;
        const unsigned_bytes bytes = __builtin_convertvector(integers, unsigned_bytes);
        memcpy(q + 16 * p, &bytes, 16);
        block[192 + p] = (uint8_t)(int8_t)scales[p];
    }
    // Two halves of 128; in each the t-th 32 weights have their low four bits in the t % 2-th 32 bytes (below for t < 2), and their
    // upper two bits in the t-th pair of bits.
    for (int h = 0; h < 2; h++) {
        const uint8_t *v = q + 128 * h;
        uint8_t *low = block + 64 * h, *high = block + 128 + 32 * h;
        for (int i = 0; i < 32; i++) {
            low[i] = (uint8_t)((v[i] & 15) | v[i + 64] << 4);
            low[i + 32] = (uint8_t)((v[i + 32] & 15) | v[i + 96] << 4);
            high[i] = (uint8_t)(v[i] >> 4 | v[i + 32] >> 4 << 2 | v[i + 64] >> 4 << 4 | v[i + 96] >> 4 << 6);
        }
    }
    store_half(block + 208, d);
}

// Returns 0 if a weight is too large.
INLINE int q6_k_block(const float *source, const float *importance, uint8_t *block) {
    vf x[16], weights[16];
    transpose_runs(source, 16, x);
    if (importance) transpose_runs(importance, 16, weights);
    const vf *w = importance ? weights : NULL;
    const vf extreme = extreme_of(x, 16);
    const float largest = most_of_16(magnitude(extreme))[0];
    if (!(largest <= 128 * 32 * 65504.0f)) return 0;
    if (largest == 0) {
        memset(block, 0, Q6_K_BYTES);
        return 1;
    }

    vf d = most(half_precision(splat(largest / (32 * Q6_K_TOP))), splat(0x1p-24f));
    const q6_k_parts parts = q6_k_search_parts(x, w, extreme, d);
    const float first_d = d[0];
    const float error = q6_k_refine(x, w, parts.scales, &d)[0];
    const float best_d = error < sum_of_16(parts.error)[0] ? d[0] : first_d;
    float scales[16];
    memcpy(scales, &parts.scales, sizeof scales);
    q6_k_emit(source, best_d, scales, block);
    return 1;
}

INLINE ptrdiff_t quantize_q6_k(const float *rows, size_t count, size_t columns, const float *importance, uint8_t *blocks) {
    for (size_t r = 0; r < count; r++)
        for (size_t c = 0; c < columns; c += 256, rows += 256, blocks += Q6_K_BYTES)
            if (!q6_k_block(rows, importance ? importance + c : NULL, blocks)) return (ptrdiff_t)r;
    return -1;
}
