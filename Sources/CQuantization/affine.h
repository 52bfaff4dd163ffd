// q4_k and q5_k: 256 weights in 8 parts of 32; fp16 factors d and m, per part 6-bit integers s and t, and integers q in [0, limit], where
// limit is 15 (q4_k) or 31 (q5_k); a weight is d s q - m t.
//
// Lanes 0 to 7 are the parts of one block, 8 to 15 those of the next. First every part gets the best real scale and minimum; they
// decide on d and m. Then the integers s and t about them are tried with the rounding that they really give, and d and m are moved to the
// least squares of what was chosen, until nothing gets better.

enum {
    Q4_K_LIMIT = 15,
    Q5_K_LIMIT = 31,
    // Integers that are tried on each side of the nearest at first, and when d and m have moved.
    AFFINE_REACH = 3,
    AFFINE_LATER_REACH = 1,
    AFFINE_ROUNDS = 3,
    // What the largest s and t are at first: room for larger ones above them.
    AFFINE_TOP = 61
};

// A part's weights are scale * q + offset, offset <= 0.
typedef struct {
    vf scale, offset;
    vf mean_q;  // weighted mean of q
} affine_line;

INLINE vf affine_integers(vf x, vf offset, vf inverse, float limit) { return clamp(nearest((x - offset) * inverse), 0, limit); }

// The best of some straight lines from near the least to near the largest weight, each moved to the least squares of its integers.
INLINE affine_line affine_best_line(const vf x[32], const vf *w, float limit) {
    vf low = splat(0), high = x[0], weight_sum = splat(0);
    for (int i = 0; i < 32; i++) {
        low = least(low, x[i]);
        high = most(high, x[i]);
        weight_sum = weight_sum + (w ? w[i] : splat(1));
    }
    const vf step = (high - low) / limit;
    // What is cut off at the low and the high end, in steps.
    static const float trims[][2] = {{0, 0}, {0.4f, 0}, {0, 0.4f}, {0.4f, 0.4f}, {0.8f, 0}, {0, 0.8f}, {0.8f, 0.8f}, {-0.4f, -0.4f}};
    affine_line best = {step, low, splat(0)};
    vf best_error = splat(INFINITY);
    for (size_t c = 0; c < sizeof trims / sizeof *trims; c++) {
        const vf offset = least(low + step * trims[c][0], splat(0));
        const vf scale = (high - step * trims[c][1] - offset) / limit, inverse = quotient(splat(1), scale);
        vf error = splat(0), q1 = splat(0), q2 = splat(0), r1 = splat(0), rq = splat(0);
        for (int i = 0; i < 32; i++) {
            const vf q = affine_integers(x[i], offset, inverse, limit);
            const vf r = x[i] - offset - scale * q;
            const vf wr = w ? w[i] * r : r, wq = w ? w[i] * q : q;
            error = error + wr * r;
            r1 = r1 + wr;
            rq = rq + wr * q;
            q1 = q1 + wq;
            q2 = q2 + wq * q;
        }
        // The rests r against the line: (q2 q1; q1 weight_sum) (a; b) = (rq; r1).
        const vf determinant = q2 * weight_sum - q1 * q1;
        vf a = quotient(rq * weight_sum - r1 * q1, determinant), b = quotient(r1 * q2 - rq * q1, determinant);
        // An offset above zero cannot be had: then it is zero, and the scale alone is free.
        const vi above = offset + b > 0;
        keep(above, &b, -offset);
        keep(above, &a, quotient(rq + offset * q1, q2));
        // What remains: the sum of w (r - a q - b)^2.
        const vf fitted = error - 2 * (a * rq + b * r1) + a * (a * q2 + 2 * b * q1) + b * b * weight_sum;
        const vi better = (fitted < best_error) & (scale + a > 0);
        keep(better, &best_error, fitted);
        keep(better, &best.scale, scale + a);
        keep(better, &best.offset, offset + b);
        keep(better, &best.mean_q, quotient(q1, weight_sum));
    }
    return best;
}

INLINE vf affine_error(const vf x[32], const vf *w, vf scale, vf offset, float limit) {
    const vf inverse = quotient(splat(1), scale);
    vf error = splat(0);
    for (int i = 0; i < 32; i++) {
        const vf y = x[i] - offset;
        const vf r = y - scale * clamp(nearest(y * inverse), 0, limit);
        error = error + (w ? w[i] * r : r) * r;
    }
    return error;
}

// d and m of a block, s and t of its parts, and the error of the whole block: all in the block's 8 lanes.
typedef struct {
    vf d, m;
    vf s, t;
    vf error;
} affine_choice;

// The best s and t for given d and m, about those that come nearest to the line.
INLINE void affine_search_parts(const vf x[32], const vf *w, affine_line line, int reach, float limit, affine_choice *choice) {
    vf best_error = splat(INFINITY), best_s = splat(0), best_t = splat(0);
    const vf center = nearest(quotient(line.scale, choice->d));
    for (int i = -reach; i <= reach; i++) {
        const vf s = clamp(center + (float)i, 0, 63), scale = choice->d * s;
        // A larger scale goes with a lower offset: the line turns about its mean.
        const vf offset = line.offset + (line.scale - scale) * line.mean_q;
        const vf center_t = nearest(quotient(-offset, choice->m));
        for (int j = -reach; j <= reach; j++) {
            const vf t = clamp(center_t + (float)j, 0, 63);
            const vf error = affine_error(x, w, scale, -(choice->m * t), limit);
            const vi better = error < best_error;
            keep(better, &best_error, error);
            keep(better, &best_s, s);
            keep(better, &best_t, t);
        }
    }
    choice->s = best_s;
    choice->t = best_t;
    choice->error = sum_of_8(best_error);
}

// Moves d and m to the least squares of the integers that they give, and every part's line to what was chosen for it.
INLINE void affine_refine(const vf x[32], const vf *w, float limit, affine_choice *choice, affine_line *line) {
    const vf scale = choice->d * choice->s, offset = -(choice->m * choice->t), inverse = quotient(splat(1), scale);
    vf q1 = splat(0), q2 = splat(0), r1 = splat(0), rq = splat(0), weight_sum = splat(0);
    for (int i = 0; i < 32; i++) {
        const vf q = affine_integers(x[i], offset, inverse, limit);
        const vf r = x[i] - offset - scale * q;
        const vf wr = w ? w[i] * r : r, wq = w ? w[i] * q : q;
        r1 = r1 + wr;
        rq = rq + wr * q;
        q1 = q1 + wq;
        q2 = q2 + wq * q;
        weight_sum = weight_sum + (w ? w[i] : splat(1));
    }
    const vf s = choice->s, t = -choice->t;
    const vf ss = sum_of_8(s * s * q2), st = sum_of_8(s * t * q1), tt = sum_of_8(t * t * weight_sum);
    const vf rs = sum_of_8(s * rq), rt = sum_of_8(t * r1);
    const vf determinant = ss * tt - st * st;
    const vi single = determinant <= ss * tt * 1e-6f;
    vf a = quotient(rs * tt - rt * st, determinant), b = quotient(rt * ss - rs * st, determinant);
    keep(single, &a, quotient(rs, ss));
    keep(single, &b, splat(0));
    choice->d = most(half_precision(choice->d + a), splat(0));
    choice->m = most(half_precision(choice->m + b), splat(0));
    line->scale = choice->d * s;
    line->offset = choice->m * t;
    line->mean_q = quotient(q1, weight_sum);
}

INLINE affine_choice affine_search(const vf x[32], const vf *w, float limit) {
    affine_line line = affine_best_line(x, w, limit);
    const vf largest_scale = most_of_8(line.scale), largest_offset = most_of_8(-line.offset);
    affine_choice choice = {splat(0), splat(0), splat(0), splat(0), splat(INFINITY)}, best = choice;
    choice.d = most(half_precision(largest_scale / AFFINE_TOP), splat(0x1p-24f));
    choice.m = most(half_precision(largest_offset / AFFINE_TOP), splat(0x1p-24f));
    for (int round = 0; round < AFFINE_ROUNDS; round++) {
        if (round > 0) affine_refine(x, w, limit, &choice, &line);
        affine_search_parts(x, w, line, round == 0 ? AFFINE_REACH : AFFINE_LATER_REACH, limit, &choice);
        const vi better = choice.error < best.error;
        keep(better, &best.d, choice.d);
        keep(better, &best.m, choice.m);
        keep(better, &best.s, choice.s);
        keep(better, &best.t, choice.t);
        keep(better, &best.error, choice.error);
    }
    return best;
}

INLINE size_t affine_bytes(float limit) { return limit == Q5_K_LIMIT ? 176 : 144; }

// d, m, 12 bytes of s and t; q5_k: 32 bytes in which bit p of byte i belongs to weight i of part p; the lower four bits of q.
INLINE void affine_emit(
    const float *x, float sign, float d, float m, const float s[8], const float t[8], float limit, uint8_t *block) {
    store_half(block, sign * d);
    store_half(block + 2, sign * m);
    uint8_t *packed = block + 4, *out = block + affine_bytes(limit) - 128;
    for (int p = 0; p < 4; p++) {
        const int low_s = (int)s[p], low_t = (int)t[p], high_s = (int)s[p + 4], high_t = (int)t[p + 4];
        packed[p] = (uint8_t)(low_s | high_s >> 4 << 6);
        packed[p + 4] = (uint8_t)(low_t | high_t >> 4 << 6);
        packed[p + 8] = (uint8_t)((high_s & 15) | (high_t & 15) << 4);
    }
    unsigned_bytes fifths[2] = {0};
    for (int pair = 0; pair < 4; pair++, out += 32) {
        for (int half = 0; half < 2; half++) {
            vf nibbles[2];
            for (int i = 0; i < 2; i++) {
                const int part = 2 * pair + i;
                const float scale = d * s[part], offset = -(m * t[part]);
                const float inverse = scale != 0 ? 1 / scale : 0;
                vf q = affine_integers(sign * load(x + 32 * part + 16 * half), splat(offset), splat(inverse), limit);
                if (limit == Q5_K_LIMIT) {
                    const vi fifth = q > 15;
                    fifths[half] |= __builtin_convertvector(fifth & 1 << part, unsigned_bytes);
                    q = choose(fifth, q - 16, q);
                }
                nibbles[i] = q;
            }
            const unsigned_bytes both = __builtin_convertvector(nibbles[0] + 16 * nibbles[1], unsigned_bytes);
            memcpy(out + 16 * half, &both, 16);
        }
    }
    if (limit == Q5_K_LIMIT) memcpy(block + 16, fifths, 32);
}

// One or two blocks. Returns the number that were done before a weight that is too large.
INLINE size_t affine_blocks(const float *source, const float *importance, size_t count, float limit, uint8_t *block) {
    vf x[32], weights[32];
    transpose_runs(source, 32, x);
    transpose_runs(source + 16, 32, x + 16);
    if (importance) {
        transpose_runs(importance, 32, weights);
        transpose_runs(importance + 16, 32, weights + 16);
    }
    const vf *w = importance ? weights : NULL;
    // A part's offset is not above zero: parts that lie wholly above it are better off with everything's sign changed.
    vf low = x[0], high = x[0];
    for (int i = 1; i < 32; i++) {
        low = least(low, x[i]);
        high = most(high, x[i]);
    }
    const vf lost = sum_of_8(most(low, splat(0))), lost_negated = sum_of_8(most(-high, splat(0)));
    const vf sign = choose(lost > lost_negated, splat(-1), splat(1));
    for (int i = 0; i < 32; i++) x[i] = sign * x[i];

    const vf size = most_of_8(most(magnitude(low), magnitude(high)));
    const affine_choice choice = affine_search(x, w, limit);
    float s[16], t[16];
    memcpy(s, &choice.s, sizeof s);
    memcpy(t, &choice.t, sizeof t);
    const size_t bytes = affine_bytes(limit);
    for (size_t b = 0; b < count; b++, source += 256, block += bytes) {
        if (!(size[8 * b] <= 63 * 65504.0f)) return b;
        if (size[8 * b] == 0)
            memset(block, 0, bytes);
        else
            affine_emit(source, sign[8 * b], choice.d[8 * b], choice.m[8 * b], s + 8 * b, t + 8 * b, limit, block);
    }
    return count;
}

INLINE ptrdiff_t quantize_affine(
    const float *rows, size_t count, size_t columns, const float *importance, float limit, uint8_t *blocks) {
    const size_t per_row = columns / 256, total = count * per_row;
    float padded[512], weights[512];
    for (size_t first = 0; first < total; first += 2) {
        const size_t n = total - first < 2 ? 1 : 2;
        const float *source = rows + 256 * first;
        if (n < 2) {
            memset(padded, 0, sizeof padded);
            memcpy(padded, source, 1024);
            source = padded;
        }
        if (importance)
            for (size_t b = 0; b < 2; b++) memcpy(weights + 256 * b, importance + (first + b) % per_row * 256, 1024);
        const size_t done = affine_blocks(source, importance ? weights : NULL, n, limit, blocks + affine_bytes(limit) * first);
        if (done < n) return (ptrdiff_t)((first + done) / per_row);
    }
    return -1;
}
