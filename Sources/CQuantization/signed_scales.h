// q6_k and q3_k: 256 weights with an fp16 factor d, a signed integer s for 16 weights each, and signed integers q; a weight is d s q.
//
// A lane is one of the 16 parts. Since d s is what counts and s is an integer, the search tries integers themselves, about the places where the
// part's largest weight becomes the least q, and (with the other sign) the largest.

typedef struct {
    float limit;        // q in [-limit, limit - 1]
    float scale_limit;  // s in [-scale_limit, scale_limit - 1]
    // What s of the part with the largest weight is at first, below the limit, so that there is room for larger ones. Each begins a search.
    float tops[3];
    int top_count;
    // Integers that are tried below and above the one that puts the largest weight in its place, in size. Below, it lies outside the range.
    int below, above;
    size_t bytes;
} signed_scales;

// d, the same in all lanes; s of each part; the sum of all parts' errors, in all lanes.
typedef struct {
    vf d, scales, error;
} signed_choice;

INLINE vf signed_integers(vf x, vf inverse, float limit) { return clamp(nearest(x * inverse), -limit, limit - 1); }

// Sum of w (x - a q)^2 over a part, with the best q.
INLINE vf signed_error(const vf x[16], const vf *w, vf a, float limit) {
    const vf inverse = quotient(splat(1), a);
    vf error = splat(0);
    for (int i = 0; i < 16; i++) {
        const vf r = x[i] - a * signed_integers(x[i], inverse, limit);
        error = error + (w ? w[i] * r : r) * r;
    }
    return error;
}

// The best s of each part for one d.
INLINE signed_choice signed_search_parts(const vf x[16], const vf *w, vf extreme, vf d, const signed_scales *type) {
    vf scales = splat(0), best = splat(INFINITY);
    for (int side = 0; side < 2; side++) {
        const vf center = nearest(extreme / (d * splat(side ? type->limit - 1 : -type->limit)));
        const vf first = center - choose(center < 0, splat((float)type->above), splat((float)type->below));
        for (int j = 0; j <= type->below + type->above; j++) {
            const vf s = clamp(first + (float)j, -type->scale_limit, type->scale_limit - 1);
            const vf error = signed_error(x, w, d * s, type->limit);
            const vi better = error < best;
            keep(better, &best, error);
            keep(better, &scales, s);
        }
    }
    return (signed_choice){d, scales, sum_of_16(best)};
}

// Moves d to the least squares of the integers that it gives.
INLINE signed_choice signed_refine(const vf x[16], const vf *w, signed_choice choice, float limit) {
    const vf a = choice.d * choice.scales, inverse = quotient(splat(1), a);
    vf cross = splat(0), square = splat(0);
    for (int i = 0; i < 16; i++) {
        const vf q = signed_integers(x[i], inverse, limit);
        const vf r = x[i] - a * q, sq = choice.scales * q, wsq = w ? w[i] * sq : sq;
        cross = cross + wsq * r;
        square = square + wsq * sq;
    }
    choice.d = half_precision(choice.d + quotient(sum_of_16(cross), sum_of_16(square)));
    choice.error = sum_of_16(signed_error(x, w, choice.d * choice.scales, limit));
    return choice;
}

INLINE signed_choice signed_search(const vf x[16], const vf *w, vf extreme, float largest, const signed_scales *type) {
    signed_choice best = {splat(0), splat(0), splat(INFINITY)};
    for (int c = 0; c < type->top_count; c++) {
        const vf d = most(half_precision(splat(largest / (type->limit * type->tops[c]))), splat(0x1p-24f));
        const signed_choice found = signed_search_parts(x, w, extreme, d, type), moved = signed_refine(x, w, found, type->limit);
        if (found.error[0] < best.error[0]) best = found;
        if (moved.error[0] < best.error[0]) best = moved;
    }
    return best;
}

// q6_k: the largest weight is about 30 to 35 steps from zero where s is about 100, and its place varies more where s is small. The scales of q3_k
// have few bits, so that the first d matters: several are tried. With importance a weight that counts little may lie far outside the range.
static const signed_scales q6_k = {32, 128, {110}, 1, 8, 8, 210};
static const signed_scales q3_k_plain = {4, 32, {25, 30}, 2, 8, 4, 110};
static const signed_scales q3_k_weighted = {4, 32, {20, 25, 30}, 3, 18, 4, 110};

// Bits `low` and above of q + limit, for 32 weights each in a pair of bits: byte i has weights i, i + 32, i + 64, i + 96.
INLINE void signed_emit_pairs(const uint8_t q[128], int low, uint8_t out[32]) {
    for (int i = 0; i < 32; i++)
        out[i] = (uint8_t)((q[i] >> low & 3) | (q[i + 32] >> low & 3) << 2 | (q[i + 64] >> low & 3) << 4 | (q[i + 96] >> low & 3) << 6);
}

// In each half of 128 the t-th 32 weights have their low four bits in the t % 2-th 32 bytes (below for t < 2), and their upper two in the t-th
// pair of bits. Then 16 signed bytes, and d.
static inline void q6_k_emit(const uint8_t q[256], const int scales[16], uint8_t block[210]) {
    for (int h = 0; h < 2; h++) {
        const uint8_t *v = q + 128 * h;
        uint8_t *low = block + 64 * h;
        for (int i = 0; i < 32; i++) {
            low[i] = (uint8_t)((v[i] & 15) | v[i + 64] << 4);
            low[i + 32] = (uint8_t)((v[i + 32] & 15) | v[i + 96] << 4);
        }
        signed_emit_pairs(v, 4, block + 128 + 32 * h);
    }
    for (int p = 0; p < 16; p++) block[192 + p] = (uint8_t)(int8_t)scales[p];
}

// The t-th 32 weights have their third bits in the t-th bits of 32 bytes. In each half of 128 they have their lower two in the t-th pair of bits.
// Then s + 32 of part p: its low four bits in byte p % 8 (below for p < 8), its upper two in byte 8 + p % 4, in pair p / 4; and d.
static inline void q3_k_emit(const uint8_t q[256], const int scales[16], uint8_t block[110]) {
    for (int i = 0; i < 32; i++) {
        block[i] = 0;
        for (int t = 0; t < 8; t++) block[i] |= (uint8_t)(q[i + 32 * t] >> 2 << t);
    }
    for (int h = 0; h < 2; h++) signed_emit_pairs(q + 128 * h, 0, block + 32 + 32 * h);
    uint8_t *packed = block + 96;
    memset(packed, 0, 12);
    for (int p = 0; p < 16; p++) {
        const int s = scales[p] + 32;
        packed[p % 8] |= (uint8_t)((s & 15) << p / 8 * 4);
        packed[8 + p % 4] |= (uint8_t)(s >> 4 << p / 4 * 2);
    }
}

// Returns 0 if a weight is too large.
INLINE int signed_block(const float *source, const float *importance, const signed_scales *type, uint8_t *block) {
    vf x[16], weights[16];
    transpose_runs(source, 16, x);
    if (importance) transpose_runs(importance, 16, weights);
    const vf extreme = extreme_of(x, 16);
    const float largest = most_of_16(magnitude(extreme))[0];
    if (!(largest <= type->scale_limit * type->limit * 65504)) return 0;
    if (largest == 0) {
        memset(block, 0, type->bytes);
        return 1;
    }
    const signed_choice choice = signed_search(x, importance ? weights : NULL, extreme, largest, type);
    uint8_t q[256];
    int scales[16];
    for (int p = 0; p < 16; p++) {
        scales[p] = (int)choice.scales[p];
        const float a = choice.d[p] * choice.scales[p], inverse = a != 0 ? 1 / a : 0;
        const vf integers = signed_integers(load(source + 16 * p), splat(inverse), type->limit) + type->limit;
        const unsigned_bytes bytes = __builtin_convertvector(integers, unsigned_bytes);
        memcpy(q + 16 * p, &bytes, 16);
    }
    if (type->limit == 32)
        q6_k_emit(q, scales, block);
    else
        q3_k_emit(q, scales, block);
    store_half(block + type->bytes - 2, choice.d[0]);
    return 1;
}

INLINE ptrdiff_t quantize_signed(
    const float *rows, size_t count, size_t columns, const float *importance, uint8_t *blocks, const signed_scales *type) {
    for (size_t r = 0; r < count; r++)
        for (size_t c = 0; c < columns; c += 256, rows += 256, blocks += type->bytes)
            if (!signed_block(rows, importance ? importance + c : NULL, type, blocks)) return (ptrdiff_t)r;
    return -1;
}
