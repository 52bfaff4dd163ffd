// Attention of query vectors with a stretch of the key-value cache: part of kernels_body.h.
//
// Keys lie in tiles of 16 positions: a vector holds one component of LANES successive positions, so that scores need no sums across lanes.
// Values lie in rows of components. Of f32, a score is one chain of sums over the head's components, an output component one chain over the
// positions of a block. Of f16 (whole numbers of 15 bits with scales) and q8_0 (bytes with scales), two components of a key, or two positions of
// a value, lie beside each other, and are multiplied with numbers of 16 bits in integers, exactly: with queries, one scale each, over 32
// components; and with weights times scales, over a block. So a query's result does not depend on the queries beside it.
//
// A level defines
//   add_pairs(sums, w, pair)   vi: to each lane the sum of its two 16-bit numbers in w times the two in `pair`, exact

// Queries whose scores are computed before any of them meets the values: keys, then values stay in the first cache meanwhile.
enum { BLOCK = SIGMA_ATTENTION_BLOCK, QUERIES = 4, CHUNK = SIGMA_ATTENTION_CHUNK };

typedef int8_t vb2 __attribute__((vector_size(2 * LANES), aligned(1)));
typedef int16_t vp __attribute__((vector_size(4 * LANES), aligned(2)));
typedef int16_t vs __attribute__((vector_size(2 * LANES), aligned(2)));

typedef struct {
    const char *elements;  // of keys: tile, component, position; of values: position, component; of f16 and q8_0 pairs of components or positions
    size_t tile_bytes;     // from tile to tile
    const char *next;      // what will be read after this block
} kv_block;

// Magnitudes of elements of f16; and, of what they are multiplied with, the most that 32 components or a block's positions add up to: their
// sums of products stay below 2^31 with what rounding adds.
enum { MOST_WORD = 16383, MOST_SUM = 131000 };

// The nearest integers, of magnitudes up to 32767.
INLINE vs round_to_16(vf x) {
    const vf shifted = x + splat(12582912.0f);
    vi bits;
    __builtin_memcpy(&bits, &shifted, sizeof bits);
    return __builtin_convertvector(bits, vs);
}

// What a whole number stands for where the sum of magnitudes must stay below MOST_SUM and each below 2^15. Not-a-number stays.
INLINE float word_unit(float sum, float largest) {
    const float unit = sum * (1.0f / MOST_SUM), other = largest * (1.0f / 32767);
    return other > unit ? other : unit;
}

// A query in 16 bits; returns their scale, which is not a number if a component isn't.
INLINE float quantize_query(const float *q, int head_dim, int16_t *out) {
    vi most = {0};
    for (int c = 0; c < head_dim; c += LANES) most = integer_max(most, magnitude(load(q + c)));
    const float amax = largest_magnitude(most);
    const float inverse = amax > 1e-30f ? 32767.0f / amax : 0;
    for (int c = 0; c < head_dim; c += LANES) *(vs *)(out + c) = round_to_16(load(q + c) * inverse);
    return amax / 32767.0f;
}

// A query in 16 bits for keys of f16: as many as the exact sums over 32 components allow.
INLINE float quantize_query_of_f16(const float *q, int width, int16_t *out) {
    vi most = {0};
    float most_sum = 0;
    for (int c = 0; c < width; c += 32) {
        vf sum = splat(0);
        for (int i = c; i < c + 32 && i < width; i += LANES) {
            const vi bits = magnitude(load(q + i));
            vf size;
            __builtin_memcpy(&size, &bits, sizeof size);
            sum += size;
            most = integer_max(most, bits);
        }
        const float total = lane_sum(sum);
        most_sum = total > most_sum || total != total ? total : most_sum;
    }
    const float unit = word_unit(most_sum, largest_magnitude(most));
    const float inverse = unit > 1e-30f ? 1 / unit : 0;
    for (int c = 0; c < width; c += LANES) *(vs *)(out + c) = round_to_16(load(q + c) * inverse);
    return unit;
}

// Prefetches `count` bytes of the next block, from `offset` on: to the second cache, as two blocks of keys and values are more than a first one holds.
INLINE void ask_for_next(const kv_block *block, size_t offset, size_t count) {
    UNROLLED for (size_t line = 0; line < count; line += 64) __builtin_prefetch(block->next + offset + line, 0, 2);
}

// scores[i][x] of some queries with `vectors` times LANES positions from `first` on: keys of f32.
INLINE void score_tile(const kv_block *k, int first, int vectors, int head_dim, const float *q, ptrdiff_t q_stride, int queries, float *scores) {
    const float *element[4];
    vf sums[QUERIES][4];
    UNROLLED for (int x = 0; x < vectors; x++) {
        const int position = first + x * LANES;
        element[x] = (const float *)(k->elements + (size_t)(position / 16) * k->tile_bytes) + position % 16;
        UNROLLED for (int i = 0; i < queries; i++) sums[i][x] = splat(0);
    }
    for (int d = 0; d < head_dim; d++) {
        vf key[4];
        UNROLLED for (int x = 0; x < vectors; x++) key[x] = load(element[x] + d * 16);
        UNROLLED for (int i = 0; i < queries; i++) {
            const vf component = splat(q[i * q_stride + d]);
            UNROLLED for (int x = 0; x < vectors; x++) sums[i][x] = key[x] * component + sums[i][x];
        }
    }
    UNROLLED for (int i = 0; i < queries; i++)
        UNROLLED for (int x = 0; x < vectors; x++) store(scores + i * BLOCK + first + x * LANES, sums[i][x]);
}

// The pair of two elements at each of LANES places.
INLINE vp load_pairs(const char *p, int type) {
    return type == SIGMA_F16 ? *(const vp *)p : __builtin_convertvector(*(const vb2 *)p, vp);
}

// Scales of LANES positions.
INLINE vf load_kv_scales(const char *p, int type) { return type == SIGMA_F16 ? load_float(p, SIGMA_BF16, 0) : load_half((const uint16_t *)p); }

// The same with keys of f16 or q8_0, and queries [queries, width] of 16 bits with their scales.
INLINE void score_pairs(const kv_block *k, int type, int first, int vectors, int width, const int16_t *q, const float *q_scale, int queries,
                        int ahead, float *scores) {
    const size_t pair_bytes = 2 * (size_t)sigma_kv_element_bytes(type);
    const char *element[4], *scale[4];
    const int16_t *query[QUERIES];
    UNROLLED for (int x = 0; x < vectors; x++) {
        const int position = first + x * LANES;
        const char *tile = k->elements + (size_t)(position / 16) * k->tile_bytes;
        element[x] = tile + (size_t)(position % 16) * pair_bytes;
        scale[x] = tile + sigma_kv_scale_offset(type, width, position % 16, 0);
    }
    UNROLLED for (int i = 0; i < queries; i++) query[i] = q + i * width;
    const size_t step = (size_t)(vectors * LANES) * pair_bytes;
    size_t next = (size_t)first * (size_t)width * pair_bytes / 2;
    for (int c = 0; c < width; c += 32) {
        vi sums[QUERIES][4];
        UNROLLED for (int i = 0; i < queries; i++)
            UNROLLED for (int x = 0; x < vectors; x++) sums[i][x] = (vi){0};
        const int pairs = width - c < 32 ? (width - c) / 2 : 16;
        for (int pair = 0; pair < pairs; pair++, next += step) {
            if (ahead) ask_for_next(k, next, step);
            vp key[4];
            UNROLLED for (int x = 0; x < vectors; x++) {
                key[x] = load_pairs(element[x], type);
                element[x] += 16 * pair_bytes;
            }
            UNROLLED for (int i = 0; i < queries; i++) {
                int32_t components;
                __builtin_memcpy(&components, query[i], sizeof components);
                query[i] += 2;
                UNROLLED for (int x = 0; x < vectors; x++) sums[i][x] = add_pairs(sums[i][x], key[x], components);
            }
        }
        UNROLLED for (int x = 0; x < vectors; x++) {
            const vf factor = load_kv_scales(scale[x], type);
            scale[x] += 32;
            UNROLLED for (int i = 0; i < queries; i++) {
                float *score = scores + i * BLOCK + first + x * LANES;
                const vf total = from_int(sums[i][x]) * factor + (c > 0 ? load(score) : splat(0));
                store(score, c + 32 < width ? total : total * q_scale[i]);
            }
        }
    }
    // What the scales make a block longer.
    if (ahead && first + vectors * LANES == BLOCK)
        for (; next < BLOCK / 16 * k->tile_bytes; next += 64) ask_for_next(k, next, 64);
}

// output[i] = output[i] * correction[i] + sum over j < count of p[i][j] * value j, for `vectors` vectors of the head from component
// `first` on: values of f32.
INLINE void value_tile(const kv_block *v, int first, int count, const float *p, const float *correction, int queries, int vectors,
                       float *output, int width) {
    vf sums[QUERIES][6];
    output += first;
    UNROLLED for (int i = 0; i < queries; i++)
        UNROLLED for (int c = 0; c < vectors; c++) sums[i][c] = load(output + i * width + c * LANES) * correction[i];
    for (int tile = 0; tile < count; tile += 16) {
        const float *row = (const float *)(v->elements + (size_t)(tile / 16) * v->tile_bytes) + first;
        const int end = count - tile < 16 ? count : tile + 16;
        for (int j = tile; j < end; j++, row += width) {
            vf value[6];
            UNROLLED for (int c = 0; c < vectors; c++) value[c] = load(row + c * LANES);
            UNROLLED for (int i = 0; i < queries; i++) {
                const vf weight = splat(p[i * BLOCK + j]);
                UNROLLED for (int c = 0; c < vectors; c++) sums[i][c] = value[c] * weight + sums[i][c];
            }
        }
    }
    UNROLLED for (int i = 0; i < queries; i++)
        UNROLLED for (int c = 0; c < vectors; c++) store(output + i * width + c * LANES, sums[i][c]);
}

// output[i] = output[i] * correction[i] + unit[i] * sum over j < count of weights[i][j] * element j, for `vectors` vectors.
INLINE void value_pairs(const kv_block *v, int type, int ahead, int first, int count, const int16_t *weights, const float *unit,
                        const float *correction, int queries, int vectors, float *output, int width) {
    const size_t pair_bytes = 2 * (size_t)sigma_kv_element_bytes(type);
    vi sums[QUERIES][6];
    UNROLLED for (int i = 0; i < queries; i++)
        UNROLLED for (int c = 0; c < vectors; c++) sums[i][c] = (vi){0};
    for (int tile = 0; tile < count; tile += 16) {
        const char *row = v->elements + (size_t)(tile / 16) * v->tile_bytes + (size_t)first * pair_bytes;
        const int end = count - tile < 16 ? count : tile + 16;
        for (int j = tile; j < end; j += 2, row += (size_t)width * pair_bytes) {
            if (ahead) ask_for_next(v, (size_t)(row - v->elements), (size_t)(vectors * LANES) * pair_bytes);
            vp value[6];
            UNROLLED for (int c = 0; c < vectors; c++) value[c] = load_pairs(row + (size_t)(c * LANES) * pair_bytes, type);
            UNROLLED for (int i = 0; i < queries; i++) {
                int32_t pair;
                __builtin_memcpy(&pair, weights + i * BLOCK + j, sizeof pair);
                UNROLLED for (int c = 0; c < vectors; c++) sums[i][c] = add_pairs(sums[i][c], value[c], pair);
            }
        }
    }
    output += first;
    UNROLLED for (int i = 0; i < queries; i++)
        UNROLLED for (int c = 0; c < vectors; c++) {
            float *out = output + i * width + c * LANES;
            store(out, from_int(sums[i][c]) * unit[i] + load(out) * correction[i]);
        }
}

// Softmax numerators of some queries in place of their scores; positions from visible[i] on get 0. peak[i] is the largest of them. The
// queries' chains run side by side.
INLINE void softmax_block(float *scores, const int *visible, int queries, float *maximum, float *sum, float *correction, float *peak) {
    vf most[QUERIES], total[QUERIES];
    float now[LANES];
    UNROLLED for (int i = 0; i < queries; i++) {
        float *row = scores + i * BLOCK;
        for (int j = visible[i] < 0 ? 0 : visible[i]; j < BLOCK; j++) row[j] = -__builtin_inff();
        most[i] = vmax(vmax(load(row), load(row + LANES)), vmax(load(row + 2 * LANES), load(row + 3 * LANES)));
        for (int j = 4 * LANES; j < BLOCK; j += LANES) most[i] = vmax(most[i], load(row + j));
    }
    // A query that has seen nothing yet keeps -inf as its maximum, which must not be taken from itself.
    vf before = splat(0), largest = splat(-__builtin_inff());
    UNROLLED for (int i = 0; i < queries; i++) {
        const float here = lane_max(most[i]);
        now[i] = maximum[i] > here ? maximum[i] : here;
        before[i] = visible[i] > 0 ? maximum[i] - now[i] : 0;
        if (visible[i] > 0) largest[i] = here - now[i];
    }
    before = vexp(before);
    largest = vexp(largest);
    UNROLLED for (int i = 0; i < queries; i++) {
        total[i] = splat(0);
        const vf shift = splat(visible[i] > 0 ? now[i] : 0);
        for (int j = 0; j < BLOCK; j += LANES) {
            const vf p = vexp(load(scores + i * BLOCK + j) - shift);
            store(scores + i * BLOCK + j, p);
            total[i] += p;
        }
    }
    UNROLLED for (int i = 0; i < queries; i++) {
        correction[i] = before[i];
        peak[i] = largest[i];
        maximum[i] = now[i];
        sum[i] = sum[i] * before[i] + lane_sum(total[i]);
    }
}

// Queries of one call, as the products want them.
typedef struct {
    const float *values;   // [queries, width]
    const int16_t *words;  // the same in 16 bits, for f16 and q8_0
    const float *scales;   // of words
    const int *visible;    // positions of the block that a query sees
    float *maximum, *sum, *output;
} query_rows;

INLINE int most_visible(const int *visible, int queries) {
    int most = 0;
    for (int i = 0; i < queries; i++) most = visible[i] > most ? visible[i] : most;
    return most;
}

// Scores of the queries from i on with the first `most` positions of a block, and their softmax.
INLINE void weigh_tile(const kv_block *k, int type, int ahead, int head_dim, const query_rows *q, int i, int queries,
                       int most, float *scores, float *correction, float *peak) {
    const int width = SIGMA_PADDED(head_dim);
    enum { VECTORS = LANES == 16 ? 4 : 2 };
    for (int x = 0; x < most; x += VECTORS * LANES)
        if (type != SIGMA_F32)
            score_pairs(k, type, x, VECTORS, width, q->words + (ptrdiff_t)i * width, q->scales + i, queries, ahead, scores);
        else
            score_tile(k, x, VECTORS, head_dim, q->values + (ptrdiff_t)i * width, width, queries, scores);
    softmax_block(scores, q->visible + i, queries, q->maximum + i, q->sum + i, correction, peak);
}

// The largest of the first `count` of a block's scales; not-a-number is above all.
INLINE float largest_scale(const float *scales, int count) {
    vi most = {0};
    for (int j = 0; j < BLOCK; j += LANES) {
        vi index;
        for (int lane = 0; lane < LANES; lane++) index[lane] = j + lane;
        most = integer_max(most, magnitude(load(scales + j)) & (index < count));
    }
    return largest_magnitude(most);
}

// Weights times scales in 16 bits, for q8_0: as far as anything is visible. `largest` is the largest visible scale. Returns their unit.
INLINE float weights_of_bytes(const float *p, const float *scales, float peak, float largest, int16_t *weights) {
    const float bound = peak * largest, inverse = bound > 1e-30f ? 32767.0f / bound : 0;
    for (int j = 0; j < BLOCK; j += LANES) *(vs *)(weights + j) = round_to_16(load(p + j) * load(scales + j) * inverse);
    return bound / 32767.0f;
}

// The same for f16: as many bits as the exact sum over a block allows. A weight of zero takes no part, whatever the scale.
INLINE float weights_of_words(const float *p, const float *scales, int16_t *weights) {
    vf products[BLOCK / LANES], sum = splat(0), most = splat(0);
    UNROLLED for (int j = 0; j < BLOCK / LANES; j++) {
        const vf weight = load(p + j * LANES), product = weight * load(scales + j * LANES);
        const vi counts = weight != splat(0);
        vi bits;
        __builtin_memcpy(&bits, &product, sizeof bits);
        bits &= counts;
        __builtin_memcpy(&products[j], &bits, sizeof bits);
        sum += products[j];
        most = vmax(most, products[j]);
    }
    const float unit = word_unit(lane_sum(sum), lane_max(most)), inverse = unit > 1e-30f ? 1 / unit : 0;
    UNROLLED for (int j = 0; j < BLOCK / LANES; j++) *(vs *)(weights + j * LANES) = round_to_16(products[j] * inverse);
    return unit;
}

// A block's scales of the 32 components from c on, as fp32.
INLINE void load_block_scales(const kv_block *v, int type, int ahead, int width, int c, float *scales) {
    for (int j = 0; j < BLOCK; j += LANES) {
        const size_t offset = (size_t)(j / 16) * v->tile_bytes + sigma_kv_scale_offset(type, width, j % 16, c);
        if (ahead) ask_for_next(v, offset, 1);
        store(scales + j, load_kv_scales(v->elements + offset, type));
    }
}

// Their outputs.
INLINE void value_sums(const kv_block *v, int type, int ahead, int head_dim, const query_rows *q, int i, int queries, int most,
                       const float *p, const float *correction, const float *peak) {
    enum { MANY = LANES == 16 ? 6 : 3, SOME = LANES == 16 ? 4 : 2 };
    const int width = SIGMA_PADDED(head_dim);
    float *output = q->output + (ptrdiff_t)i * width;
    int16_t weights[QUERIES * BLOCK];
    float scales[BLOCK], unit[QUERIES];
    if (type == SIGMA_Q8_0) {
        // 32 components share a scale at each position: it goes into the weights.
        for (int c = 0; c < width; c += 32) {
            load_block_scales(v, type, ahead, width, c, scales);
            for (int j = most; j < BLOCK; j++) scales[j] = 0;
            float largest = 0;
            UNROLLED for (int x = 0; x < queries; x++) {
                // Only what the query sees may count.
                if (x == 0 || q->visible[i + x] != q->visible[i + x - 1]) largest = largest_scale(scales, q->visible[i + x]);
                unit[x] = weights_of_bytes(p + x * BLOCK, scales, peak[x], largest, weights + x * BLOCK);
            }
            enum { VECTORS = LANES == 4 ? 4 : 2 };
            for (int x = c; x < c + 32; x += VECTORS * LANES)
                value_pairs(v, type, ahead, x, most, weights, unit, correction, queries, VECTORS, output, width);
        }
        return;
    }
    if (type == SIGMA_F16) {
        load_block_scales(v, type, ahead, width, 0, scales);
        UNROLLED for (int x = 0; x < queries; x++) unit[x] = weights_of_words(p + x * BLOCK, scales, weights + x * BLOCK);
    }
#define VALUES(vectors) \
    if (type == SIGMA_F16) value_pairs(v, type, ahead, c, most, weights, unit, correction, queries, vectors, output, width); \
    else value_tile(v, c, most, p, correction, queries, vectors, output, width)
    int c = 0;
    if (width % (MANY * LANES) == 0)
        for (; c < width; c += MANY * LANES) { VALUES(MANY); }
    for (; c + SOME * LANES <= width; c += SOME * LANES) { VALUES(SOME); }
    for (; c < width; c += LANES) { VALUES(1); }
#undef VALUES
}

// One block's part in the states of all queries.
INLINE void attend_block(const kv_block *k, const kv_block *v, int type, int ahead, int head_dim, const query_rows *q, int queries,
                         float *scores) {
    float correction[CHUNK], peak[CHUNK];
    for (int start = 0; start < queries; start += CHUNK) {
        const int end = queries - start < CHUNK ? queries : start + CHUNK;
        for (int i = start; i < end; i += QUERIES) {
            const int most = most_visible(q->visible + i, end - i < QUERIES ? end - i : QUERIES);
            float *p = scores + (i - start) * BLOCK, *corrections = correction + i - start, *peaks = peak + i - start;
            if (most == 0) continue;
            switch (end - i) {
            case 1: weigh_tile(k, type, ahead, head_dim, q, i, 1, most, p, corrections, peaks); break;
            case 2: weigh_tile(k, type, ahead, head_dim, q, i, 2, most, p, corrections, peaks); break;
            case 3: weigh_tile(k, type, ahead, head_dim, q, i, 3, most, p, corrections, peaks); break;
            default:
                if (ahead && i == 0) weigh_tile(k, type, 1, head_dim, q, i, 4, most, p, corrections, peaks);
                else weigh_tile(k, type, 0, head_dim, q, i, 4, most, p, corrections, peaks);
            }
        }
        for (int i = start; i < end; i += QUERIES) {
            const int most = most_visible(q->visible + i, end - i < QUERIES ? end - i : QUERIES);
            const float *p = scores + (i - start) * BLOCK, *corrections = correction + i - start, *peaks = peak + i - start;
            if (most == 0) continue;
            switch (end - i) {
            case 1: value_sums(v, type, ahead, head_dim, q, i, 1, most, p, corrections, peaks); break;
            case 2: value_sums(v, type, ahead, head_dim, q, i, 2, most, p, corrections, peaks); break;
            case 3: value_sums(v, type, ahead, head_dim, q, i, 3, most, p, corrections, peaks); break;
            default:
                if (ahead && i == 0) value_sums(v, type, 1, head_dim, q, i, 4, most, p, corrections, peaks);
                else value_sums(v, type, 0, head_dim, q, i, 4, most, p, corrections, peaks);
            }
        }
    }
}

static void attend(const sigma_kv_rows *keys, const sigma_kv_rows *values, int head_dim, const float *q, int queries,
                   const int32_t *visible, float *scratch, float *maximum, float *sum, float *output) {
    const int width = SIGMA_PADDED(head_dim), type = keys->type;
    float *scores = scratch, *scales = scores + CHUNK * BLOCK;
    int16_t *words = (int16_t *)(scales + queries);
    int left[SIGMA_ATTENTION_QUERIES];
    const query_rows rows = {q, words, scales, left, maximum, sum, output};
    for (int i = 0; i < queries; i++) {
        maximum[i] = -__builtin_inff();
        sum[i] = 0;
        for (int c = 0; c < width; c++) output[(ptrdiff_t)i * width + c] = 0;
        if (type == SIGMA_Q8_0) scales[i] = quantize_query(q + (ptrdiff_t)i * width, width, words + (ptrdiff_t)i * width);
        if (type == SIGMA_F16) scales[i] = quantize_query_of_f16(q + (ptrdiff_t)i * width, width, words + (ptrdiff_t)i * width);
    }
    const int most = most_visible(visible, queries);
    const size_t tile_bytes = sigma_kv_tile_bytes(type, head_dim), block_bytes = BLOCK / 16 * tile_bytes;
    // What is asked for twice costs little, an address without memory much.
    const char *next_keys = keys->next ? keys->next : keys->tiles, *next_values = values->next ? values->next : values->tiles;
    for (int start = 0; start < most; start += BLOCK) {
        const size_t offset = (size_t)(start / 16) * tile_bytes;
        const int is_last = start + BLOCK >= most;
        const char *k_now = (const char *)keys->tiles + offset, *v_now = (const char *)values->tiles + offset;
        const char *k_next = is_last ? next_keys : k_now + block_bytes, *v_next = is_last ? next_values : v_now + block_bytes;
        const kv_block k = {k_now, tile_bytes, k_next}, v = {v_now, tile_bytes, v_next};
        for (int i = 0; i < queries; i++) left[i] = visible[i] - start < BLOCK ? visible[i] - start : BLOCK;
        if (type == SIGMA_F16)
            attend_block(&k, &v, SIGMA_F16, 1, head_dim, &rows, queries, scores);
        else if (type == SIGMA_Q8_0)
            attend_block(&k, &v, SIGMA_Q8_0, 1, head_dim, &rows, queries, scores);
        else
            attend_block(&k, &v, SIGMA_F32, 0, head_dim, &rows, queries, scores);
    }
}

static void merge_attention(float *maximum, float *sum, float *output, float split_maximum, float split_sum,
                            const float *split_output, int head_dim) {
    if (split_sum == 0) return;
    const float most = *maximum > split_maximum ? *maximum : split_maximum;
    const float before = exp1(*maximum - most), now = exp1(split_maximum - most);
    *maximum = most;
    *sum = *sum * before + split_sum * now;
    for (int c = 0; c < SIGMA_PADDED(head_dim); c += LANES)
        store(output + c, load(output + c) * before + load(split_output + c) * now);
}

// The scale of f16's elements with this largest magnitude, in bf16: rounded up, so that none gets beyond MOST_WORD. Not-a-number stays.
INLINE uint16_t word_scale(float largest) {
    const float scale = largest > 1e-30f || largest != largest ? largest * (1.0f / MOST_WORD) : 0;
    uint32_t bits;
    __builtin_memcpy(&bits, &scale, sizeof bits);
    return bits < 0x7f800000 ? (uint16_t)((bits + 0xffff) >> 16) : bits == 0x7f800000 ? 0x7f80 : 0x7fc0;
}

// 32 components from `first` on, those behind head_dim as zeros.
INLINE void load_components(const float *x, int head_dim, int first, float *out) {
    for (int c = 0; c < 32; c++) out[c] = first + c < head_dim ? x[first + c] : 0;
}

INLINE vi largest_of_32(const float *x, vi most) {
    UNROLLED for (int c = 0; c < 32; c += LANES) most = integer_max(most, magnitude(load(x + c)));
    return most;
}

static void store_kv(const float *x, int head_dim, int is_value, int position, const sigma_kv_rows *rows) {
    const int width = SIGMA_PADDED(head_dim), type = rows->type, row = position % SIGMA_KV_TILE;
    const size_t size = (size_t)sigma_kv_element_bytes(type);
    char *tile = (char *)rows->tiles + (size_t)(position / SIGMA_KV_TILE) * sigma_kv_tile_bytes(type, head_dim);
    float padded[32];
    vi most = {0};
    if (type == SIGMA_F16 && is_value)
        for (int first = 0; first < head_dim; first += 32) {
            load_components(x, head_dim, first, padded);
            most = largest_of_32(padded, most);
        }
    for (int first = 0; first < width; first += 32) {
        load_components(x, head_dim, first, padded);
        int16_t words[32];
        int8_t bytes[32];
        const void *source = padded;
        if (type == SIGMA_F16) {
            if (!is_value) most = largest_of_32(padded, (vi){0});
            const uint16_t scale = word_scale(largest_magnitude(most));
            const float unit = load_float1(&scale, SIGMA_BF16, 0), inverse = unit > 0 ? 1 / unit : 0;
            UNROLLED for (int c = 0; c < 32; c += LANES) *(vs *)(words + c) = round_to_16(load(padded + c) * inverse);
            if (first == 0 || !is_value) __builtin_memcpy(tile + sigma_kv_scale_offset(type, head_dim, row, first), &scale, 2);
            source = words;
        } else if (type == SIGMA_Q8_0) {
            int32_t halves[2];
            const uint16_t scale = sigma_float_to_half(quantize_block(padded, bytes, halves));
            __builtin_memcpy(tile + sigma_kv_scale_offset(type, head_dim, row, first), &scale, 2);
            source = bytes;
        }
        for (int c = 0; c < 32 && first + c < width; c++)
            __builtin_memcpy(tile + sigma_kv_offset(type, head_dim, is_value, row, first + c), (const char *)source + (size_t)c * size, size);
    }
}
