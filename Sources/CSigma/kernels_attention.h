// Attention of query vectors with a stretch of the key-value cache: part of kernels_body.h.
//
// Keys lie in tiles of 16 positions, [head_dim][16]: a vector holds one component of LANES successive positions, so that scores
// need no sums across lanes. Values lie in rows, [16][width]. A score is one chain of sums over the head's components (q8_0: over those of
// 32 components, times their scale, and then over the 32s); an output component is one chain over the positions of a block. So a query's
// result depends neither on the queries beside it nor on where the elements were widened.

enum { BLOCK = SIGMA_ATTENTION_BLOCK, QUERIES = 4 };

typedef struct {
    const char *elements;   // of keys: tile, component, position; of values: position, component
    const char *scales;     // of a q8_0 tile: [width / 32][16] fp16
    size_t tile_bytes;      // from tile to tile of the elements
    size_t scale_bytes;     // from tile to tile of the scales
    int type;               // of an element: SIGMA_F32, SIGMA_F16, or SIGMA_Q8_0 for a signed byte
    const char *next;       // what will be read after this block
} kv_block;

INLINE size_t element_bytes(int type) { return type == SIGMA_F32 ? 4 : type == SIGMA_F16 ? 2 : 1; }

INLINE vf load_element(const char *p, int type) {
    if (type == SIGMA_F32) return load((const float *)p);
    if (type == SIGMA_F16) return load_half((const uint16_t *)p);
    return from_int(__builtin_convertvector(*(const vb *)p, vi));
}

// scores[i][x] of some queries with `vectors` times LANES positions from `first` on.
INLINE void score_tile(const kv_block *k, const kv_block *v, int type, int scaled, int first, int vectors, int head_dim,
                       const float *q, ptrdiff_t q_stride, int queries, int ahead, float *scores) {
    const char *element[4], *scale[4];
    vf sums[QUERIES][4], totals[QUERIES][4];
    UNROLLED for (int x = 0; x < vectors; x++) {
        const int position = first + x * LANES;
        const size_t tile = (size_t)(position / 16);
        element[x] = k->elements + tile * k->tile_bytes + (size_t)(position % 16) * element_bytes(type);
        if (scaled) scale[x] = k->scales + tile * k->scale_bytes + (size_t)(position % 16) * 2;
        UNROLLED for (int i = 0; i < queries; i++) sums[i][x] = totals[i][x] = splat(0);
    }
    // The next block's keys and values come while this one's are multiplied for the first time.
    const size_t step = (size_t)(vectors * LANES) * element_bytes(type);
    const char *next_keys = k->next + (size_t)first * (size_t)head_dim * element_bytes(type);
    const char *next_values = v->next + (size_t)first * (size_t)head_dim * element_bytes(type);
    for (int d = 0; d < head_dim; d++, next_keys += step, next_values += step) {
        if (ahead) UNROLLED for (size_t line = 0; line < step; line += 64) {
            __builtin_prefetch(next_keys + line);
            __builtin_prefetch(next_values + line);
        }
        vf key[4];
        UNROLLED for (int x = 0; x < vectors; x++) key[x] = load_element(element[x] + (size_t)d * 16 * element_bytes(type), type);
        UNROLLED for (int i = 0; i < queries; i++) {
            const vf component = splat(q[i * q_stride + d]);
            UNROLLED for (int x = 0; x < vectors; x++) sums[i][x] = key[x] * component + sums[i][x];
        }
        if (scaled && d % 32 == 31)
            UNROLLED for (int x = 0; x < vectors; x++) {
                const vf factor = load_half((const uint16_t *)(scale[x] + d / 32 * 32));
                UNROLLED for (int i = 0; i < queries; i++) {
                    totals[i][x] = sums[i][x] * factor + totals[i][x];
                    sums[i][x] = splat(0);
                }
            }
    }
    UNROLLED for (int i = 0; i < queries; i++)
        UNROLLED for (int x = 0; x < vectors; x++) store(scores + i * BLOCK + first + x * LANES, scaled ? totals[i][x] : sums[i][x]);
}

// output[i] = output[i] * correction[i] + sum over j < count of p[i][j] * value j, for `vectors` vectors of the head from component
// `first` on.
INLINE void value_tile(const kv_block *v, int type, int first, int count, const float *p, const float *correction, int queries,
                       int vectors, float *output, int width) {
    const size_t row_bytes = (size_t)width * element_bytes(type);
    vf sums[QUERIES][6];
    output += first;
    UNROLLED for (int i = 0; i < queries; i++)
        UNROLLED for (int c = 0; c < vectors; c++) sums[i][c] = load(output + i * width + c * LANES) * correction[i];
    for (int tile = 0; tile < count; tile += 16) {
        const char *row = v->elements + (size_t)(tile / 16) * v->tile_bytes + (size_t)first * element_bytes(type);
        const int end = count - tile < 16 ? count : tile + 16;
        for (int j = tile; j < end; j++, row += row_bytes) {
            vf value[6];
            UNROLLED for (int c = 0; c < vectors; c++) value[c] = load_element(row + (size_t)(c * LANES) * element_bytes(type), type);
            UNROLLED for (int i = 0; i < queries; i++) {
                const vf weight = splat(p[i * BLOCK + j]);
                UNROLLED for (int c = 0; c < vectors; c++) sums[i][c] = value[c] * weight + sums[i][c];
            }
        }
    }
    UNROLLED for (int i = 0; i < queries; i++)
        UNROLLED for (int c = 0; c < vectors; c++) store(output + i * width + c * LANES, sums[i][c]);
}

// Softmax numerators of some queries in place of their scores; positions from visible[i] on get 0. The queries' chains run side by side.
INLINE void softmax_block(float *scores, const int *visible, int queries, float *maximum, float *sum, float *correction) {
    vf most[QUERIES], total[QUERIES];
    float now[LANES];
    UNROLLED for (int i = 0; i < queries; i++) {
        float *row = scores + i * BLOCK;
        for (int j = visible[i] < 0 ? 0 : visible[i]; j < BLOCK; j++) row[j] = -__builtin_inff();
        most[i] = vmax(vmax(load(row), load(row + LANES)), vmax(load(row + 2 * LANES), load(row + 3 * LANES)));
        for (int j = 4 * LANES; j < BLOCK; j += LANES) most[i] = vmax(most[i], load(row + j));
    }
    // A query that has seen nothing yet keeps -inf as its maximum, which must not be taken from itself.
    vf before = splat(0);
    UNROLLED for (int i = 0; i < queries; i++) {
        now[i] = lane_max(most[i]);
        now[i] = maximum[i] > now[i] ? maximum[i] : now[i];
        before[i] = visible[i] > 0 ? maximum[i] - now[i] : 0;
    }
    before = vexp(before);
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
        maximum[i] = now[i];
        sum[i] = sum[i] * before[i] + lane_sum(total[i]);
    }
}

// All of one block for some queries, of which visible[i] positions count.
INLINE void attend_tile(const kv_block *k, const kv_block *v, int type, int scaled, int ahead, int head_dim, const float *q,
                        int queries, const int *visible, float *scratch, float *maximum, float *sum, float *output) {
    const int width = SIGMA_PADDED(head_dim);
    float *scores = scratch, *weights = scratch + QUERIES * BLOCK, correction[QUERIES];
    int most = 0;
    for (int i = 0; i < queries; i++) most = visible[i] > most ? visible[i] : most;
    enum { WIDE = LANES == 16 ? 4 : 2, NARROW = LANES == 16 ? 2 : 1 };
    if (scaled)
        for (int x = 0; x < most; x += NARROW * LANES) score_tile(k, v, type, 1, x, NARROW, head_dim, q, width, queries, ahead, scores);
    else
        for (int x = 0; x < most; x += WIDE * LANES) score_tile(k, v, type, 0, x, WIDE, head_dim, q, width, queries, ahead, scores);
    softmax_block(scores, visible, queries, maximum, sum, correction);
    if (!scaled) {
        enum { MANY = LANES == 16 ? 6 : 3, SOME = LANES == 16 ? 4 : 2 };
        int c = 0;
        if (width % (MANY * LANES) == 0)
            for (; c < width; c += MANY * LANES) value_tile(v, type, c, most, scores, correction, queries, MANY, output, width);
        for (; c + SOME * LANES <= width; c += SOME * LANES)
            value_tile(v, type, c, most, scores, correction, queries, SOME, output, width);
        for (; c < width; c += LANES) value_tile(v, type, c, most, scores, correction, queries, 1, output, width);
        return;
    }
    // 32 components share a scale at each position; it goes into the weights.
    for (int c = 0; c < width; c += 32) {
        for (int i = 0; i < queries; i++)
            for (int j = 0; j < most; j += LANES) {
                const char *scale = v->scales + (size_t)(j / 16) * v->scale_bytes + c + j % 16 * 2;
                store(weights + i * BLOCK + j, load(scores + i * BLOCK + j) * load_half((const uint16_t *)scale));
            }
        enum { VECTORS = LANES == 16 ? 2 : LANES == 8 ? 2 : 4 };
        for (int x = c; x < c + 32; x += VECTORS * LANES)
            value_tile(v, type, x, most, weights, correction, queries, VECTORS, output, width);
    }
}

INLINE void attend_queries(const kv_block *k, const kv_block *v, int type, int scaled, int ahead, int head_dim, const float *q,
                           int queries, const int *visible, float *scratch, float *maximum, float *sum, float *output) {
    const int width = SIGMA_PADDED(head_dim);
    for (int i = 0; i < queries; i += QUERIES) {
        const float *query = q + (ptrdiff_t)i * width;
        float *out = output + (ptrdiff_t)i * width;
        switch (queries - i) {
        case 1: attend_tile(k, v, type, scaled, ahead, head_dim, query, 1, visible + i, scratch, maximum + i, sum + i, out); break;
        case 2: attend_tile(k, v, type, scaled, ahead, head_dim, query, 2, visible + i, scratch, maximum + i, sum + i, out); break;
        case 3: attend_tile(k, v, type, scaled, ahead, head_dim, query, 3, visible + i, scratch, maximum + i, sum + i, out); break;
        default: attend_tile(k, v, type, scaled, ahead, head_dim, query, 4, visible + i, scratch, maximum + i, sum + i, out); break;
        }
    }
}

// A block's elements as fp32, at the same places.
INLINE void widen_block(kv_block *block, int tiles, int width, float *out) {
    for (int tile = 0; tile < tiles; tile++) {
        const char *elements = block->elements + (size_t)tile * block->tile_bytes;
        for (int i = 0; i < 16 * width; i += LANES)
            store(out + tile * 16 * width + i, load_element(elements + (size_t)i * element_bytes(block->type), block->type));
    }
    block->elements = (const char *)out;
    block->tile_bytes = (size_t)width * 64;
    block->type = SIGMA_F32;
}

static void attend(const sigma_kv_rows *keys, const sigma_kv_rows *values, int head_dim, const float *q, int queries,
                   const int32_t *visible, float *scratch, float *maximum, float *sum, float *output) {
    const int width = SIGMA_PADDED(head_dim), type = keys->type, scaled = type == SIGMA_Q8_0;
    int most = 0;
    for (int i = 0; i < queries; i++) {
        maximum[i] = -__builtin_inff();
        sum[i] = 0;
        for (int c = 0; c < width; c++) output[(ptrdiff_t)i * width + c] = 0;
        if (visible[i] > most) most = visible[i];
    }
    const size_t tile_bytes = sigma_kv_tile_bytes(type, head_dim);
    float *work = scratch, *wide_keys = scratch + 2 * QUERIES * BLOCK, *wide_values = wide_keys + BLOCK * width;
    // What is asked for twice costs little, an address without memory much.
    const char *next_keys = keys->next ? keys->next : keys->tiles, *next_values = values->next ? values->next : values->tiles;
    int left[SIGMA_ATTENTION_QUERIES];
    for (int start = 0; start < most; start += BLOCK) {
        const size_t offset = (size_t)(start / 16) * tile_bytes;
        const size_t scales = (size_t)width * 16;
        kv_block k = {(const char *)keys->tiles + offset, (const char *)keys->tiles + offset + scales, tile_bytes, tile_bytes, type,
                      start + BLOCK < most ? (const char *)keys->tiles + offset + BLOCK / 16 * tile_bytes : next_keys};
        kv_block v = {(const char *)values->tiles + offset, (const char *)values->tiles + offset + scales, tile_bytes, tile_bytes, type,
                      start + BLOCK < most ? (const char *)values->tiles + offset + BLOCK / 16 * tile_bytes : next_values};
        for (int i = 0; i < queries; i++) left[i] = visible[i] - start < BLOCK ? visible[i] - start : BLOCK;
        // Many queries use each element often enough that widening it once pays.
        if (queries > 2 * QUERIES && type != SIGMA_F32) {
            const int tiles = ((most - start < BLOCK ? most - start : BLOCK) + 15) / 16;
            widen_block(&k, tiles, width, wide_keys);
            widen_block(&v, tiles, width, wide_values);
        }
        if (k.type == SIGMA_F16)
            attend_queries(&k, &v, SIGMA_F16, 0, 1, head_dim, q, queries, left, work, maximum, sum, output);
        else if (k.type == SIGMA_Q8_0)
            attend_queries(&k, &v, SIGMA_Q8_0, 1, 1, head_dim, q, queries, left, work, maximum, sum, output);
        else if (scaled)
            attend_queries(&k, &v, SIGMA_F32, 1, 0, head_dim, q, queries, left, work, maximum, sum, output);
        else
            attend_queries(&k, &v, SIGMA_F32, 0, 0, head_dim, q, queries, left, work, maximum, sum, output);
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
    const int width = SIGMA_PADDED(head_dim), type = rows->type, row = position % 16;
    const size_t size = element_bytes(type);
    char *tile = (char *)rows->tiles + (size_t)(position / 16) * sigma_kv_tile_bytes(type, head_dim);
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
                __builtin_memcpy(tile + width * 16 + i + 2 * row, &scale, 2);
            }
            quants += i % 32;
        }
        if (is_value) {
            __builtin_memcpy(tile + (size_t)(row * width + i) * size, quants, LANES * size);
            continue;
        }
        for (int c = 0; c < LANES; c++) {
            char *element = tile + (size_t)((i + c) * 16 + row) * size;
            if (type == SIGMA_F32) __builtin_memcpy(element, piece.f32 + c, 4);
            else if (type == SIGMA_F16) __builtin_memcpy(element, piece.f16 + c, 2);
            else *element = (char)quants[c];
        }
    }
}
