// q8_0 and q4_0: 32 weights with one fp16 scale d; a weight is d * q, q an integer in [-limit, limit - 1].
//
// The error as a function of d is a chain of parabolas, one for each way to round: it has many minima of about equal depth. So many d are
// tried, on both sides of zero (a negative d puts the longer end of the range on the positive weights), and each is moved to the
// bottom of its parabola by least squares.

typedef struct {
    float limit;
    // Where the largest weight may go, in steps: d = largest / place. `inner` places are at most limit - 1 + 0.49 from zero, so that
    // nothing lies outside the range; there the sign of d makes no difference.
    const float *places, *inner;
    int place_count, inner_count;
} one_scale;

// What one d gives for 32 weights per lane: sums of w x q and w q^2. Of all multiples of these q, cross / square is the best, and
// takes cross^2 / square off the sum of w x^2.
typedef struct {
    vf cross, square;
} one_scale_fit;

INLINE one_scale_fit fit_one_scale(const vf *x, const vf *w, vf inverse, int is_inner, float limit) {
    one_scale_fit f = {splat(0), splat(0)};
    for (int i = 0; i < 32; i++) {
        const vf integer = nearest(x[i] * inverse);
        const vf q = is_inner ? integer : clamp(integer, -limit, limit - 1), wq = w ? w[i] * q : q;
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

// What the best d so far takes off the sum of w x^2.
typedef struct {
    vf taken, d;
} one_scale_choice;

INLINE void try_one_scale(const vf *x, const vf *w, vf inverse, int is_inner, float limit, one_scale_choice *best) {
    const one_scale_fit f = fit_one_scale(x, w, inverse, is_inner, limit);
    const vf d = quotient(f.cross, f.square), taken = f.cross * d;
    const vi better = taken > best->taken;
    keep(better, &best->taken, taken);
    keep(better, &best->d, d);
}

// d of 16 blocks, as fp16 has it.
INLINE vf search_one_scale(const vf x[32], const vf *w, vf extreme, const one_scale *type) {
    one_scale_choice best = {splat(0), splat(0)};
    const vf unit = quotient(splat(1), extreme);
    for (int c = 0; c < type->place_count; c++) try_one_scale(x, w, unit * type->places[c], 0, type->limit, &best);
    for (int c = 0; c < type->inner_count; c++) try_one_scale(x, w, unit * type->inner[c], 1, type->limit, &best);
    vf d = half_precision(best.d);
    // The least number that fp16 has is better than none: its error is at most that of zeros.
    keep(magnitude(d) < 0x1p-24f, &d, splat(0x1p-24f));
    keep(extreme == 0, &d, splat(0));
    return d;
}

// Without importance the best place is near the ends of the range, and these types are chosen for the speed of their conversion too; with
// it, a weight that counts little may lie far outside.
static const float q8_0_plain_places[] = {-128}, q8_0_plain_inner[] = {127.4f, 126.7f, 126, 125.3f};
static const float q8_0_weighted_places[] = {-134, -132, -130, -129, -128, 132, 130, 129, 128}, q8_0_weighted_inner[] = {127, 126, 125, 124, 123, 122};
static const float q4_0_plain_places[] = {-8.8f, -8.3f, -7.8f}, q4_0_plain_inner[] = {7.3f, 6.9f, 6.5f, 6.1f};
static const float q4_0_weighted_places[] = {-11, -10.5f, -10, -9.6f, -9.2f, -8.9f, -8.6f, -8.3f, -8, -7.7f, 10.5f, 10, 9.5f, 9, 8.6f, 8.2f, 7.8f};
static const float q4_0_weighted_inner[] = {7.4f, 7.1f, 6.8f, 6.5f, 6.2f, 5.9f, 5.6f, 5.3f, 5};
#define ONE_SCALE(name, limit) {limit, name##_places, name##_inner, sizeof name##_places / sizeof(float), sizeof name##_inner / sizeof(float)}
static const one_scale q8_0_plain = ONE_SCALE(q8_0_plain, 128), q8_0_weighted = ONE_SCALE(q8_0_weighted, 128);
static const one_scale q4_0_plain = ONE_SCALE(q4_0_plain, 8), q4_0_weighted = ONE_SCALE(q4_0_weighted, 8);
#undef ONE_SCALE

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
        if (!(most_of_16(magnitude(extreme))[0] <= most_allowed)) {
            size_t b = 0;
            while (magnitude(extreme)[b] <= most_allowed) b++;
            return (ptrdiff_t)((first + b) / per_row);
        }
        const vf scales = search_one_scale(x, importance ? w : NULL, extreme, type);
        const lane_halves d = halves_of(scales);
        float inverse[LANES];
        const vf inverses = quotient(splat(1), scales);
        memcpy(inverse, &inverses, sizeof inverse);
        uint8_t *out = blocks + block_bytes * first;
        for (size_t b = 0; b < n; b++, out += block_bytes, source += 32) {
            memcpy(out, (const uint8_t *)&d + 2 * b, 2);
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
