// q8_0 and q4_0: 32 weights with one fp16 scale d; a weight is d * q, q an integer in [-limit, limit - 1].
//
// The error as a function of d is a chain of parabolas, one for each way to round: it has many minima of about equal depth. So many d are
// tried, on both sides of zero (a negative d puts the longer end of the range on the positive weights), and each is moved to the
// bottom of its parabola by least squares.

typedef struct {
    float limit;
    // Where the largest weight may go, in steps: d = largest / place.
    const float *places;
    int place_count;
} one_scale;

// What one d gives for 32 weights per lane: sums of w x q and w q^2. Of all multiples of these q, cross / square is the best, and
// takes cross^2 / square off the sum of w x^2.
typedef struct {
    vf cross, square;
} one_scale_fit;

INLINE one_scale_fit fit_one_scale(const vf *x, const vf *w, vf inverse, float limit) {
    one_scale_fit f = {splat(0), splat(0)};
    for (int i = 0; i < 32; i++) {
        const vf q = clamp(nearest(x[i] * inverse), -limit, limit - 1), wq = w ? w[i] * q : q;
        f.cross = f.cross + wq * x[i];
        f.square = f.square + wq * q;
    }
    return f;
}

// The weight of largest magnitude.
INLINE vf extreme_of(const vf *x, int count) {
    vf size = splat(0), extreme = splat(0);
    for (int i = 0; i < count; i++) {
        const vf m = magnitude(x[i]);
        const vi larger = m > size;
        keep(larger, &size, m);
        keep(larger, &extreme, x[i]);
    }
    return extreme;
}

// d of 16 blocks, as fp16 has it.
INLINE vf search_one_scale(const vf x[32], const vf *w, const one_scale *type) {
    const vf extreme = extreme_of(x, 32);
    vf most_taken = splat(0), best = splat(0);
    for (int c = 0; c < type->place_count; c++) {
        const one_scale_fit f = fit_one_scale(x, w, quotient(splat(type->places[c]), extreme), type->limit);
        const vf d = quotient(f.cross, f.square), taken = f.cross * d;
        const vi better = taken > most_taken;
        keep(better, &most_taken, taken);
        keep(better, &best, d);
    }
    vf d = half_precision(best);
    // The least number that fp16 has is better than none: its error is at most that of zeros.
    keep(magnitude(d) < 0x1p-24f, &d, splat(0x1p-24f));
    keep(extreme == 0, &d, splat(0));
    return d;
}

// Where the largest weight may go. Without importance the best place is near the ends of the range, and these types are chosen for speed
// too; with it, a weight that counts little may lie far outside.
#define PLACES(type, limit, ...)                          \
    static const float type##_places[] = {__VA_ARGS__};   \
    static const one_scale type = {limit, type##_places, sizeof type##_places / sizeof(float)};

PLACES(q8_0_plain, 128, -128, -127, -126, 127)
PLACES(q8_0_weighted, 128, -134, -132, -130, -129, -128, -127, -126, -125, -124, -123, 127, 126, 125, 124, 123, 122)
PLACES(q4_0_plain, 8, -8.8f, -8.3f, -7.8f, -7.3f, -6.8f, -6.3f, 7.4f, 7, 6.6f, 6.2f)
PLACES(q4_0_weighted, 8, -11, -10.6f, -10.2f, -9.8f, -9.4f, -9, -8.6f, -8.2f, -7.8f, -7.4f, -7, -6.6f, -6.2f, -5.8f, -5.4f, 10, 9.6f, 9.2f,
       8.8f, 8.4f, 8, 7.6f, 7.2f, 6.8f, 6.4f, 6, 5.6f, 5.2f)

INLINE vf one_scale_integers(const float *x, float inverse, float limit) {
    return clamp(nearest(load(x) * splat(inverse)), -limit, limit - 1);
}

INLINE ptrdiff_t quantize_one_scale(
    const float *rows, size_t count, size_t columns, const float *importance, uint8_t *blocks, const one_scale *type, int bits) {
    const size_t per_row = columns / 32, total = count * per_row, block_bytes = bits == 8 ? 34 : 18;
    const float most_allowed = type->limit * 65504;
    float padded[16 * 32], padded_weights[16 * 32];
    for (size_t first = 0; first < total; first += LANES) {
        const size_t n = total - first < LANES ? total - first : LANES;
        const float *source = rows + 32 * first;
        if (n < LANES) {
            memset(padded, 0, sizeof padded);
            memcpy(padded, source, 128 * n);
            source = padded;
        }
        vf x[32], w[32];
        transpose_runs(source, 32, x);
        transpose_runs(source + 16, 32, x + 16);
        if (importance) {
            for (size_t b = 0; b < LANES; b++) memcpy(padded_weights + 32 * b, importance + (first + b) % per_row * 32, 128);
            transpose_runs(padded_weights, 32, w);
            transpose_runs(padded_weights + 16, 32, w + 16);
        }
        const vf extreme = extreme_of(x, 32);
        for (size_t b = 0; b < n; b++)
            if (!(__builtin_fabsf(extreme[b]) <= most_allowed)) return (ptrdiff_t)((first + b) / per_row);
        const vf scales = search_one_scale(x, importance ? w : NULL, type), inverses = quotient(splat(1), scales);
        float d[LANES], inverse[LANES];
        memcpy(d, &scales, sizeof d);
        memcpy(inverse, &inverses, sizeof inverse);
        uint8_t *out = blocks + block_bytes * first;
        for (size_t b = 0; b < n; b++, out += block_bytes, source += 32) {
            store_half(out, d[b]);
            const vf low = one_scale_integers(source, inverse[b], type->limit);
            const vf high = one_scale_integers(source + 16, inverse[b], type->limit);
            if (bits == 8) {
                const signed_bytes first_half = __builtin_convertvector(low, signed_bytes);
                const signed_bytes second_half = __builtin_convertvector(high, signed_bytes);
                memcpy(out + 2, &first_half, 16);
                memcpy(out + 18, &second_half, 16);
            } else {
                // Two nibbles in one number below 256: exact.
                const unsigned_bytes both = __builtin_convertvector((low + 8) + 16 * (high + 8), unsigned_bytes);
                memcpy(out + 2, &both, 16);
            }
        }
    }
    return -1;
}
