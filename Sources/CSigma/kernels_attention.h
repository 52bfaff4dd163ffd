// Attention of query vectors with a stretch of the key-value cache: part of kernels_body.h.
//
// Keys lie in tiles of 16 positions, [head_dim][16]: a vector holds one component of LANES successive positions, so that scores
// need no sums across lanes. Values lie in rows, [16][width]. A score is one chain of sums over the head's components, an output component
// one chain over the positions of a block. Where keys and values are bytes (q8_0), two components of a key, or two positions of a value, lie
// beside each other, and are multiplied with numbers of 16 bits in integers: queries, one scale each, over 32 components; and weights, one
// scale for a block and 32 components. So a query's result depends neither on the queries beside it nor on where elements were widened.
//
// A level defines
//   add_pairs(sums, w, pair)   vi: to each lane the sum of its two 16-bit numbers in w times the two in `pair`, exact

// Queries whose scores are computed before any of them meets the values: keys, then values stay in the first cache meanwhile.
enum { BLOCK = SIGMA_ATTENTION_BLOCK, QUERIES = 4, CHUNK = SIGMA_ATTENTION_CHUNK };

typedef int8_t vb2 __attribute__((vector_size(2 * LANES), aligned(1)));
typedef int16_t vp __attribute__((vector_size(4 * LANES), aligned(2)));
typedef int16_t vs __attribute__((vector_size(2 * LANES), aligned(2)));

typedef struct {
    const char *elements;  // of keys: tile, component, position; of values: position, component; of bytes, pairs of components or positions
    size_t tile_bytes;     // from tile to tile
    int type;              // of an element: SIGMA_F32, SIGMA_F16, or SIGMA_Q8_0: signed bytes, behind each tile's the scales [width / 32][16] fp16
    const char *next;      // what will be read after this block
} kv_block;

INLINE vf load_element(const char *p, int type) { return type == SIGMA_F32 ? load((const float *)p) : load_half((const uint16_t *)p); }

// The nearest integers, of magnitudes up to 32767.
INLINE vs round_to_16(vf x) {
    const vf shifted = x + splat(12582912.0f);
    vi bits;
    __builtin_memcpy(&bits, &shifted, sizeof bits);
    return __builtin_convertvector(bits, vs);
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

// Prefetches `count` bytes of the next block, from `offset` on.
INLINE void ask_for_next(const kv_block *block, size_t offset, size_t count) {
    UNROLLED for (size_t line = 0; line < count; line += 64) __builtin_prefetch(block->next + offset + line);
}

// scores[i][x] of some queries with `vectors` times LANES positions from `first` on.
INLINE void score_tile(const kv_block *k, int type, int first, int vectors, int head_dim, const float *q,
                       ptrdiff_t q_stride, int queries, int ahead, float *scores) {
    const char *element[4];
    vf sums[QUERIES][4];
    UNROLLED for (int x = 0; x < vectors; x++) {
        const int position = first + x * LANES;
        element[x] = k->elements + (size_t)(position / 16) * k->tile_bytes + (size_t)(position % 16) * (size_t)sigma_kv_element_bytes(type);
        UNROLLED for (int i = 0; i < queries; i++) sums[i][x] = splat(0);
    }
    const size_t step = (size_t)(vectors * LANES) * (size_t)sigma_kv_element_bytes(type);
    size_t next = (size_t)first * (size_t)head_dim * (size_t)sigma_kv_element_bytes(type);
    for (int d = 0; d < head_dim; d++, next += step) {
        if (ahead) ask_for_next(k, next, step);
        vf key[4];
        UNROLLED for (int x = 0; x < vectors; x++) key[x] = load_element(element[x] + (size_t)d * 16 * (size_t)sigma_kv_element_bytes(type), type);
        UNROLLED for (int i = 0; i < queries; i++) {
            const vf component = splat(q[i * q_stride + d]);
            UNROLLED for (int x = 0; x < vectors; x++) sums[i][x] = key[x] * component + sums[i][x];
        }
    }
    UNROLLED for (int i = 0; i < queries; i++)
        UNROLLED for (int x = 0; x < vectors; x++) store(scores + i * BLOCK + first + x * LANES, sums[i][x]);
}

// The same with keys of bytes, and queries [queries, head_dim] of 16 bits with their scales.
INLINE void score_pairs(const kv_block *k, int first, int vectors, int head_dim, const int16_t *q, const float *q_scale, int queries,
                        int ahead, float *scores) {
    const char *element[4], *scale[4];
    const int16_t *query[QUERIES];
    UNROLLED for (int x = 0; x < vectors; x++) {
        const int position = first + x * LANES;
        element[x] = k->elements + (size_t)(position / 16) * k->tile_bytes + (size_t)(position % 16) * 2;
        scale[x] = element[x] + 16 * head_dim;
    }
    UNROLLED for (int i = 0; i < queries; i++) query[i] = q + i * head_dim;
    const size_t step = (size_t)(vectors * LANES * 2);
    size_t next = (size_t)first * (size_t)head_dim;
    for (int c = 0; c < head_dim; c += 32) {
        vi sums[QUERIES][4];
        UNROLLED for (int i = 0; i < queries; i++)
            UNROLLED for (int x = 0; x < vectors; x++) sums[i][x] = (vi){0};
        for (int pair = 0; pair < 16; pair++, next += step) {
            if (ahead) ask_for_next(k, next, step);
            vp key[4];
            UNROLLED for (int x = 0; x < vectors; x++) {
                key[x] = __builtin_convertvector(*(const vb2 *)element[x], vp);
                element[x] += 32;
            }
            UNROLLED for (int i = 0; i < queries; i++) {
                int32_t components;
                __builtin_memcpy(&components, query[i], sizeof components);
                query[i] += 2;
                UNROLLED for (int x = 0; x < vectors; x++) sums[i][x] = add_pairs(sums[i][x], key[x], components);
            }
        }
        UNROLLED for (int x = 0; x < vectors; x++) {
            const vf factor = load_half((const uint16_t *)scale[x]);
            scale[x] += 32;
            UNROLLED for (int i = 0; i < queries; i++) {
                float *score = scores + i * BLOCK + first + x * LANES;
                const vf total = from_int(sums[i][x]) * factor + (c > 0 ? load(score) : splat(0));
                store(score, c + 32 < head_dim ? total : total * q_scale[i]);
            }
        }
    }
    // What the scales make a block longer.
    if (ahead && first + vectors * LANES == BLOCK)
        for (; next < BLOCK / 16 * k->tile_bytes; next += 64) ask_for_next(k, next, 64);
}

// output[i] = output[i] * correction[i] + sum over j < count of p[i][j] * value j, for `vectors` vectors of the head from component
// `first` on.
INLINE void value_tile(const kv_block *v, int type, int ahead, int first, int count, const float *p, const float *correction, int queries,
                       int vectors, float *output, int width) {
    const size_t row_bytes = (size_t)width * (size_t)sigma_kv_element_bytes(type);
    vf sums[QUERIES][6];
    output += first;
    UNROLLED for (int i = 0; i < queries; i++)
        UNROLLED for (int c = 0; c < vectors; c++) sums[i][c] = load(output + i * width + c * LANES) * correction[i];
    for (int tile = 0; tile < count; tile += 16) {
        const char *row = v->elements + (size_t)(tile / 16) * v->tile_bytes + (size_t)first * (size_t)sigma_kv_element_bytes(type);
        const int end = count - tile < 16 ? count : tile + 16;
        for (int j = tile; j < end; j++, row += row_bytes) {
            if (ahead) ask_for_next(v, (size_t)(row - v->elements), (size_t)(vectors * LANES) * (size_t)sigma_kv_element_bytes(type));
            vf value[6];
            UNROLLED for (int c = 0; c < vectors; c++) value[c] = load_element(row + (size_t)(c * LANES) * (size_t)sigma_kv_element_bytes(type), type);
            UNROLLED for (int i = 0; i < queries; i++) {
                const vf weight = splat(p[i * BLOCK + j]);
                UNROLLED for (int c = 0; c < vectors; c++) sums[i][c] = value[c] * weight + sums[i][c];
            }
        }
    }
    UNROLLED for (int i = 0; i < queries; i++)
        UNROLLED for (int c = 0; c < vectors; c++) store(output + i * width + c * LANES, sums[i][c]);
}

// output[i] = output[i] * correction[i] + unit[i] * sum over j < count of weights[i][j] * byte j, for `vectors` vectors.
INLINE void value_pairs(const kv_block *v, int ahead, int first, int count, const int16_t *weights, const float *unit,
                        const float *correction, int queries, int vectors, float *output, int width) {
    vi sums[QUERIES][4];
    UNROLLED for (int i = 0; i < queries; i++)
        UNROLLED for (int c = 0; c < vectors; c++) sums[i][c] = (vi){0};
    for (int tile = 0; tile < count; tile += 16) {
        const char *row = v->elements + (size_t)(tile / 16) * v->tile_bytes + (size_t)first * 2;
        const int end = count - tile < 16 ? count : tile + 16;
        for (int j = tile; j < end; j += 2, row += 2 * width) {
            if (ahead) ask_for_next(v, (size_t)(row - v->elements), (size_t)(vectors * LANES * 2));
            vp value[4];
            UNROLLED for (int c = 0; c < vectors; c++) value[c] = __builtin_convertvector(*(const vb2 *)(row + c * LANES * 2), vp);
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
    const int16_t *words;  // the same in 16 bits, for bytes
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
        if (type == SIGMA_Q8_0)
            score_pairs(k, x, VECTORS, head_dim, q->words + (ptrdiff_t)i * width, q->scales + i, queries, ahead, scores);
        else
            score_tile(k, type, x, VECTORS, head_dim, q->values + (ptrdiff_t)i * width, width, queries, ahead, scores);
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

// Their outputs.
INLINE void value_sums(const kv_block *v, int type, int ahead, int head_dim, const query_rows *q, int i, int queries, int most,
                       const float *p, const float *correction, const float *peak) {
    const int width = SIGMA_PADDED(head_dim);
    float *output = q->output + (ptrdiff_t)i * width;
    if (type != SIGMA_Q8_0) {
        enum { MANY = LANES == 16 ? 6 : 3, SOME = LANES == 16 ? 4 : 2 };
        int c = 0;
        if (width % (MANY * LANES) == 0)
            for (; c < width; c += MANY * LANES) value_tile(v, type, ahead, c, most, p, correction, queries, MANY, output, width);
        for (; c + SOME * LANES <= width; c += SOME * LANES) value_tile(v, type, ahead, c, most, p, correction, queries, SOME, output, width);
        for (; c < width; c += LANES) value_tile(v, type, ahead, c, most, p, correction, queries, 1, output, width);
        return;
    }
    // 32 components share a scale at each position: it goes into the weights, as far as anything is visible.
    int16_t weights[QUERIES * BLOCK];
    float scales[BLOCK], unit[QUERIES];
    for (int c = 0; c < width; c += 32) {
        for (int j = 0; j < BLOCK; j += LANES) {
            const size_t offset = (size_t)(j / 16) * v->tile_bytes + (size_t)(16 * width + c + j % 16 * 2);
            if (ahead) ask_for_next(v, offset, 1);
            store(scales + j, load_half((const uint16_t *)(v->elements + offset)));
        }
        for (int j = most; j < BLOCK; j++) scales[j] = 0;
        float largest = 0;
        UNROLLED for (int x = 0; x < queries; x++) {
            // Only what the query sees may count.
            if (x == 0 || q->visible[i + x] != q->visible[i + x - 1]) largest = largest_scale(scales, q->visible[i + x]);
            const float bound = peak[x] * largest, inverse = bound > 1e-30f ? 32767.0f / bound : 0;
            unit[x] = bound / 32767.0f;
            for (int j = 0; j < BLOCK; j += LANES)
                *(vs *)(weights + x * BLOCK + j) = round_to_16(load(p + x * BLOCK + j) * load(scales + j) * inverse);
        }
        enum { VECTORS = LANES == 4 ? 4 : 2 };
        for (int x = c; x < c + 32; x += VECTORS * LANES)
            value_pairs(v, ahead, x, most, weights, unit, correction, queries, VECTORS, output, width);
    }
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

// A block's elements as fp32, at the same places.
INLINE void widen_block(kv_block *block, int tiles, int width, float *out) {
    for (int tile = 0; tile < tiles; tile++) {
        const char *elements = block->elements + (size_t)tile * block->tile_bytes;
        for (int i = 0; i < 16 * width; i += LANES)
            store(out + tile * 16 * width + i, load_element(elements + (size_t)i * (size_t)sigma_kv_element_bytes(block->type), block->type));
    }
    block->elements = (const char *)out;
    block->tile_bytes = (size_t)width * 64;
    block->type = SIGMA_F32;
}

static void attend(const sigma_kv_rows *keys, const sigma_kv_rows *values, int head_dim, const float *q, int queries,
                   const int32_t *visible, float *scratch, float *maximum, float *sum, float *output) {
    const int width = SIGMA_PADDED(head_dim), type = keys->type;
    float *scores = scratch, *wide_keys = scores + CHUNK * BLOCK, *wide_values = wide_keys + BLOCK * width;
    float *scales = wide_values + BLOCK * width;
    int16_t *words = (int16_t *)(scales + queries);
    int left[SIGMA_ATTENTION_QUERIES];
    const query_rows rows = {q, words, scales, left, maximum, sum, output};
    for (int i = 0; i < queries; i++) {
        maximum[i] = -__builtin_inff();
        sum[i] = 0;
        for (int c = 0; c < width; c++) output[(ptrdiff_t)i * width + c] = 0;
        if (type == SIGMA_Q8_0) scales[i] = quantize_query(q + (ptrdiff_t)i * width, width, words + (ptrdiff_t)i * width);
    }
    const int most = most_visible(visible, queries);
    const size_t tile_bytes = sigma_kv_tile_bytes(type, head_dim), block_bytes = BLOCK / 16 * tile_bytes;
    // What is asked for twice costs little, an address without memory much.
    const char *next_keys = keys->next ? keys->next : keys->tiles, *next_values = values->next ? values->next : values->tiles;
    for (int start = 0; start < most; start += BLOCK) {
        const size_t offset = (size_t)(start / 16) * tile_bytes;
        const int is_last = start + BLOCK >= most;
        kv_block k = {(const char *)keys->tiles + offset, tile_bytes, type,
                      is_last ? next_keys : (const char *)keys->tiles + offset + block_bytes};
        kv_block v = {(const char *)values->tiles + offset, tile_bytes, type,
                      is_last ? next_values : (const char *)values->tiles + offset + block_bytes};
        for (int i = 0; i < queries; i++) left[i] = visible[i] - start < BLOCK ? visible[i] - start : BLOCK;
        // Many queries use each element often enough that widening it once pays.
        if (queries > 2 * QUERIES && type == SIGMA_F16) {
            const int tiles = ((most - start < BLOCK ? most - start : BLOCK) + 15) / 16;
            widen_block(&k, tiles, width, wide_keys);
            widen_block(&v, tiles, width, wide_values);
        }
        if (k.type == SIGMA_F16)
            attend_block(&k, &v, SIGMA_F16, 1, head_dim, &rows, queries, scores);
        else if (k.type == SIGMA_Q8_0)
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

static void store_kv(const float *x, int head_dim, int is_value, int position, const sigma_kv_rows *rows) {
    const int width = SIGMA_PADDED(head_dim), type = rows->type, row = position % SIGMA_KV_TILE;
    const size_t size = (size_t)sigma_kv_element_bytes(type);
    char *tile = (char *)rows->tiles + (size_t)(position / SIGMA_KV_TILE) * sigma_kv_tile_bytes(type, head_dim);
    // LANES components as they are stored.
    union {
        float f32[LANES];
        uint16_t f16[LANES];
        int8_t q8[32];
    } piece;
    for (int i = 0; i < width; i += LANES) {
        float padded[LANES];
        for (int c = 0; c < LANES; c++) padded[c] = i + c < head_dim ? x[i + c] : 0;
        const int8_t *quants = piece.q8;
        if (type == SIGMA_F32) {
            store(piece.f32, load(padded));
        } else if (type == SIGMA_F16) {
            store_half(piece.f16, load(padded));
        } else {
            if (i % 32 == 0) {
                int32_t halves[2];
                const uint16_t scale = sigma_float_to_half(quantize_block(x + i, piece.q8, halves));
                __builtin_memcpy(tile + sigma_kv_scale_offset(head_dim, row, i), &scale, 2);
            }
            quants += i % 32;
        }
        const char *source = type == SIGMA_Q8_0 ? (const char *)quants : (const char *)piece.q8;
        if (is_value && type != SIGMA_Q8_0) {
            __builtin_memcpy(tile + sigma_kv_offset(type, head_dim, 1, row, i), source, LANES * size);
            continue;
        }
        for (int c = 0; c < LANES; c++)
            __builtin_memcpy(tile + sigma_kv_offset(type, head_dim, is_value, row, i + c), source + (size_t)c * size, size);
    }
}
