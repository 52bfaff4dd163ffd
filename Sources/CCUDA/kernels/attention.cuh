// Attention of tiles of 16 query vectors against a sequence's keys and values, on tensor cores.
//
// 64 positions are a unit whose softmax state is computed by itself. The units of a split of 256 positions are merged in order, and so are
// the splits. For few rows every split has a block of threads and every unit a warp; for many rows a warp goes through a tile's units alone. The
// arithmetic is the same.
#pragma once

// The kernels for this many steps take any head that has fewer; the others one that has just as many.
constexpr bool is_generic(int steps) { return steps == 16; }

enum { UNIT = 64, UNITS = SIGMA_CUDA_SPLIT / UNIT };

// Softmax state of 16 query vectors in a warp's registers: lane 4 g + t has vectors g and g + 8, and of each component pair 8 n + 2 t of
// both. Scores are to the base 2. output is not yet divided by sum.
template <int STEPS>
struct AttentionState {
    float most[2], sum[2];
    float output[2 * STEPS][4];

    DEVICE_MEMBER void clear() {
        UNROLLED for (int i = 0; i < 2; i++) {
            most[i] = as_float(0xff800000u);
            sum[i] = 0.0f;
        }
        UNROLLED for (int n = 0; n < 2 * STEPS; n++)
            UNROLLED for (int i = 0; i < 4; i++) output[n][i] = 0.0f;
    }
};

// How a state goes into the one before it: factors of both.
struct MergeFactors {
    float most, before, now;
};
DEVICE MergeFactors merge_factors(float most, float other) {
    MergeFactors f;
    f.most = fmaxf(most, other);
    f.before = exp2_fast(most - f.most);
    f.now = exp2_fast(other - f.most);
    return f;
}
DEVICE float merged(float value, float other, const MergeFactors &f) { return fmaf(other, f.now, value * f.before); }

template <int STEPS>
DEVICE void merge(AttentionState<STEPS> &state, const AttentionState<STEPS> &next) {
    UNROLLED for (int r = 0; r < 2; r++) {
        // A vector that saw nothing.
        if (next.sum[r] == 0.0f) continue;
        const MergeFactors f = merge_factors(state.most[r], next.most[r]);
        state.most[r] = f.most;
        state.sum[r] = merged(state.sum[r], next.sum[r], f);
        UNROLLED for (int n = 0; n < 2 * STEPS; n++)
            UNROLLED for (int i = 2 * r; i < 2 * r + 2; i++) state.output[n][i] = merged(state.output[n][i], next.output[n][i], f);
    }
}

// What a warp knows of its tile.
struct QueryTile {
    sigma_cuda_sequence sequence;
    int vectors;     // that exist
    int first;       // vector of the sequence
    int group;       // heads that share keys and values
    int kv_head;
    int limit;       // positions that the last vector sees

    // Row of the step, head and visible positions of vector v (0 ..< 16). One that does not exist is like the last, and sees nothing.
    DEVICE_MEMBER int clamped(int v) const { return first + min(v, vectors - 1); }
    DEVICE_MEMBER int row(int v) const { return sequence.first_row + clamped(v) / group; }
    DEVICE_MEMBER int head(int v) const { return kv_head * group + clamped(v) % group; }
    DEVICE_MEMBER int visible(int v) const { return v < vectors ? sequence.position + clamped(v) / group + 1 : 0; }
};

// False for an empty tile.
DEVICE bool find_tile(const sigma_cuda_attend &p, int index, int kv_head, QueryTile &tile) {
    if (index >= p.tile_count) return false;
    const sigma_cuda_query_tile own = at<const sigma_cuda_query_tile>(p.tiles)[index];
    if (own.sequence < 0) return false;
    tile.sequence = at<const sigma_cuda_sequence>(p.sequences)[own.sequence];
    tile.group = p.heads / p.kv_heads;
    tile.first = own.first;
    tile.vectors = min((int)SIGMA_CUDA_QUERIES, tile.sequence.rows * tile.group - own.first);
    tile.kv_head = kv_head;
    if (tile.vectors <= 0) return false;
    tile.limit = tile.visible(tile.vectors - 1);
    return true;
}

// Keys or values of a tile's positions.
DEVICE const unsigned char *kv_tiles(const sigma_cuda_attend &p, const QueryTile &tile, bool is_value, int position) {
    const unsigned char *block = at<const unsigned char>(at<const sigma_device>(tile.sequence.blocks)[position / SIGMA_CUDA_SPLIT]);
    return block + (((size_t)(p.layer * 2 + is_value) * p.kv_heads + tile.kv_head) * (SIGMA_CUDA_SPLIT / 16) + position % SIGMA_CUDA_SPLIT / 16)
        * sigma_cuda_kv_tile_bytes(p.kv_type, p.head_dim);
}

DEVICE float signed_byte(unsigned word, int i) { return (float)(signed char)(word >> 8 * i & 255); }

// Sixteen components of sixteen positions, as the second operands of two products.
template <int TYPE>
DEVICE uint4 load_operand(const unsigned char *tile, bool is_value, int head_dim, int step) {
    if constexpr (TYPE == TYPE_F16) {
        return *(const uint4 *)(tile + step * 512 + LANE * 16);
    } else {
        const uint2 bytes = *(const uint2 *)(tile + step / 2 * 512 + LANE * 16 + step % 2 * 8);
        const unsigned short *scales = (const unsigned short *)(tile + 16 * head_dim + step / 2 * 32);
        // Of the four bytes of either word: keys of one position, or values of four positions.
        float first[4], second[4];
        const int g = LANE / 4, t = LANE % 4;
        UNROLLED for (int i = 0; i < 4; i++) {
            first[i] = half_to_float(scales[is_value ? 2 * t + i / 2 * 8 + i % 2 : g]);
            second[i] = is_value ? first[i] : half_to_float(scales[g + 8]);
        }
        uint4 v;
        v.x = pack_halves(signed_byte(bytes.x, 0) * first[0], signed_byte(bytes.x, 1) * first[1]);
        v.y = pack_halves(signed_byte(bytes.x, 2) * first[2], signed_byte(bytes.x, 3) * first[3]);
        v.z = pack_halves(signed_byte(bytes.y, 0) * second[0], signed_byte(bytes.y, 1) * second[1]);
        v.w = pack_halves(signed_byte(bytes.y, 2) * second[2], signed_byte(bytes.y, 3) * second[3]);
        return v;
    }
}

// The queries of a tile: fragments of halves, or (f32) where they lie.
template <int STEPS, int TYPE>
struct Queries {
    unsigned a[TYPE == TYPE_F32 ? 1 : STEPS][4];
    const float *row[2];

    DEVICE_MEMBER void load(const sigma_cuda_attend &p, const QueryTile &tile, int steps) {
        const int g = LANE / 4, t = LANE % 4, padded = sigma_cuda_padded(p.head_dim);
        UNROLLED for (int r = 0; r < 2; r++) {
            const size_t first = ((size_t)tile.row(g + 8 * r) * p.heads + tile.head(g + 8 * r)) * padded;
            if constexpr (TYPE == TYPE_F32) {
                row[r] = at<const float>(p.queries) + first;
            } else {
                const unsigned *words = (const unsigned *)(at<const unsigned short>(p.queries) + first);
                UNROLLED for (int step = 0; step < STEPS; step++) {
                    const bool is_there = !is_generic(STEPS) || step < steps;
                    a[step][r] = is_there ? words[8 * step + t] : 0;
                    a[step][2 + r] = is_there ? words[8 * step + t + 4] : 0;
                }
            }
        }
    }
};

// scores [16, 64] of a unit: lane 4 g + t has vectors g, g + 8 at positions 8 n + 2 t, 8 n + 2 t + 1.
template <int STEPS, int TYPE>
DEVICE void unit_scores(const sigma_cuda_attend &p, const QueryTile &tile, const Queries<STEPS, TYPE> &queries, int start, int steps,
                        float scores[8][4]) {
    const unsigned char *keys = kv_tiles(p, tile, false, start);
    const int tile_bytes = sigma_cuda_kv_tile_bytes(p.kv_type, p.head_dim);
    UNROLLED for (int n = 0; n < 8; n++)
        UNROLLED for (int i = 0; i < 4; i++) scores[n][i] = 0.0f;
    // What lies behind the last position is read, and its scores are dropped.
    if constexpr (TYPE == TYPE_F32) {
        // For checking numbers: short rather than fast.
        NOT_UNROLLED for (int item = 0; item < 32; item++) {
            const int n = item / 4, i = item % 4;
            const float *key = (const float *)(keys + n / 2 * tile_bytes) + (size_t)(8 * (n % 2) + 2 * (LANE % 4) + i % 2) * (16 * steps);
            float sum = 0.0f;
            for (int c = 0; c < p.head_dim; c++) sum = fmaf(queries.row[i / 2][c], key[c], sum);
            scores[n][i] = sum;
        }
    } else {
        UNROLLED for (int s = 0; s < UNIT / 16; s++, keys += tile_bytes)
            UNROLLED for (int step = 0; step < STEPS; step++) {
                if (is_generic(STEPS) && step >= steps) break;
                const uint4 k = load_operand<TYPE>(keys, false, p.head_dim, step);
                mma_halves(scores[2 * s], queries.a[step], k.x, k.y);
                mma_halves(scores[2 * s + 1], queries.a[step], k.z, k.w);
            }
    }
}

// The halves of a word whose positions are below `count`; `position` is that of the lower half.
DEVICE unsigned keep_visible(unsigned word, int position, int count) {
    return position + 1 < count ? word : position < count ? word & 0xffffu : 0;
}

// output [16, head_dim] += weights [16, 64] times values.
template <int STEPS, int TYPE>
DEVICE void unit_values(const sigma_cuda_attend &p, const QueryTile &tile, int start, int steps, const float weights[8][4],
                        float output[2 * STEPS][4]) {
    const unsigned char *values = kv_tiles(p, tile, true, start);
    const int tile_bytes = sigma_cuda_kv_tile_bytes(p.kv_type, p.head_dim);
    const int t = LANE % 4;
    if constexpr (TYPE == TYPE_F32) {
        NOT_UNROLLED for (int j = 0; j < min((int)UNIT, tile.limit - start); j++) {
            // A weight is in the lane that has its position.
            const int n = j / 8, lane = (LANE & ~3) + j % 8 / 2;
            const float first = shuffle(weights[n][j % 2], lane), second = shuffle(weights[n][2 + j % 2], lane);
            const float *value = (const float *)(values + j / 16 * tile_bytes) + (size_t)(j % 16) * (16 * steps);
            UNROLLED for (int m = 0; m < 2 * STEPS; m++) {
                if (is_generic(STEPS) && m >= 2 * steps) break;
                UNROLLED for (int i = 0; i < 4; i++) output[m][i] = fmaf(i < 2 ? first : second, value[8 * m + 2 * t + i % 2], output[m][i]);
            }
        }
    } else {
        UNROLLED for (int s = 0; s < UNIT / 16; s++, values += tile_bytes) {
            const int count = tile.limit - start - 16 * s;
            const unsigned a[4] = {pack_halves(weights[2 * s][0], weights[2 * s][1]), pack_halves(weights[2 * s][2], weights[2 * s][3]),
                                   pack_halves(weights[2 * s + 1][0], weights[2 * s + 1][1]),
                                   pack_halves(weights[2 * s + 1][2], weights[2 * s + 1][3])};
            UNROLLED for (int step = 0; step < STEPS; step++) {
                if (is_generic(STEPS) && step >= steps) break;
                uint4 v = load_operand<TYPE>(values, true, p.head_dim, step);
                // Not even zero times what lies behind the last position may come in: it could be no number.
                if (count < 16) {
                    v.x = keep_visible(v.x, 2 * t, count);
                    v.y = keep_visible(v.y, 2 * t + 8, count);
                    v.z = keep_visible(v.z, 2 * t, count);
                    v.w = keep_visible(v.w, 2 * t + 8, count);
                }
                mma_halves(output[2 * step], a, v.x, v.y);
                mma_halves(output[2 * step + 1], a, v.z, v.w);
            }
        }
    }
}

// The state of the 64 positions from `start` on, start < tile.limit.
template <int STEPS, int TYPE>
DEVICE void unit_state(const sigma_cuda_attend &p, const QueryTile &tile, const Queries<STEPS, TYPE> &queries, int start,
                       AttentionState<STEPS> &state) {
    const int steps = sigma_cuda_padded(p.head_dim) / 16, g = LANE / 4, t = LANE % 4;
    float scores[8][4];
    state.clear();
    unit_scores<STEPS, TYPE>(p, tile, queries, start, steps, scores);
    UNROLLED for (int r = 0; r < 2; r++) {
        const int visible = tile.visible(g + 8 * r) - start;
        float most = as_float(0xff800000u);
        UNROLLED for (int n = 0; n < 8; n++)
            UNROLLED for (int i = 2 * r; i < 2 * r + 2; i++) {
                if (8 * n + 2 * t + i % 2 >= visible) scores[n][i] = as_float(0xff800000u);
                most = fmaxf(most, scores[n][i]);
            }
        most = fmaxf(most, shuffle_xor(most, 1));
        most = fmaxf(most, shuffle_xor(most, 2));
        state.most[r] = most;
        // Nothing visible: -infinity less -infinity is no number.
        const float shift = visible > 0 ? most : 0.0f;
        float sum = 0.0f;
        UNROLLED for (int n = 0; n < 8; n++)
            UNROLLED for (int i = 2 * r; i < 2 * r + 2; i++) {
                scores[n][i] = exp2_fast(scores[n][i] - shift);
                sum += scores[n][i];
            }
        sum += shuffle_xor(sum, 1);
        sum += shuffle_xor(sum, 2);
        state.sum[r] = sum;
    }
    unit_values<STEPS, TYPE>(p, tile, start, steps, scores, state.output);
}

// A state in memory: most [16], sum [16], output [16][padded].
DEVICE int state_floats(int padded) { return SIGMA_CUDA_QUERIES * (padded + 2); }

template <int STEPS>
DEVICE void write_state(const AttentionState<STEPS> &state, int padded, float *memory) {
    const int g = LANE / 4, t = LANE % 4;
    UNROLLED for (int r = 0; r < 2; r++) {
        const int v = g + 8 * r;
        if (t == 0) {
            memory[v] = state.most[r];
            memory[16 + v] = state.sum[r];
        }
        UNROLLED for (int n = 0; n < 2 * STEPS; n++) {
            if (is_generic(STEPS) && 8 * n >= padded) break;
            UNROLLED for (int i = 0; i < 2; i++) memory[32 + v * padded + 8 * n + 2 * t + i] = state.output[n][2 * r + i];
        }
    }
}

// Merges `count` states that lie `stride` floats apart, for component c (of padded) of vector v. `fresh`: written by other blocks.
DEVICE float merge_states(const float *states, int count, size_t stride, int padded, int v, int c, bool fresh, float &most, float &sum) {
    float output = 0.0f;
    most = as_float(0xff800000u);
    sum = 0.0f;
    for (int i = 0; i < count; i++, states += stride) {
        const float other_sum = fresh ? load_fresh(states + 16 + v) : states[16 + v];
        if (other_sum == 0.0f) continue;
        const MergeFactors f = merge_factors(most, fresh ? load_fresh(states + v) : states[v]);
        const float *other = states + 32 + v * padded + c;
        most = f.most;
        sum = merged(sum, other_sum, f);
        output = merged(output, fresh ? load_fresh(other) : *other, f);
    }
    return output;
}

DEVICE void write_attended(const sigma_cuda_attend &p, const QueryTile &tile, int v, int c, float value) {
    if (v < tile.vectors && c < p.head_dim)
        at<float>(p.attended)[((size_t)tile.row(v) * p.heads + tile.head(v)) * p.head_dim + c] = value;
}

template <int STEPS, int TYPE>
DEVICE void attend_splits(const sigma_cuda_attend &p) {
    DYNAMIC_SHARED(float, shared);
    __shared__ int is_last;
    const int split = (int)blockIdx.x, kv_head = (int)blockIdx.y, index = (int)blockIdx.z;
    QueryTile tile;
    if (!find_tile(p, index, kv_head, tile) || split * SIGMA_CUDA_SPLIT >= tile.limit) return;
    const int padded = sigma_cuda_padded(p.head_dim), size = state_floats(padded);
    const int splits = (tile.limit + SIGMA_CUDA_SPLIT - 1) / SIGMA_CUDA_SPLIT;
    const int start = split * SIGMA_CUDA_SPLIT + WARP * UNIT;
    const int units = min((int)UNITS, (tile.limit - split * SIGMA_CUDA_SPLIT + UNIT - 1) / UNIT);
    if (start < tile.limit) {
        Queries<STEPS, TYPE> queries;
        AttentionState<STEPS> state;
        queries.load(p, tile, padded / 16);
        unit_state<STEPS, TYPE>(p, tile, queries, start, state);
        write_state(state, padded, shared + WARP * size);
    }
    sync_block();
    float *states = at<float>(p.states) + ((size_t)index * p.kv_heads + kv_head) * p.split_count * size;
    for (int item = (int)threadIdx.x; item < 16 * padded; item += (int)blockDim.x) {
        const int v = item / padded, c = item % padded;
        float most, sum;
        const float output = merge_states(shared, units, (size_t)size, padded, v, c, false, most, sum);
        if (splits == 1) {
            // Merging one state with none leaves it as it is.
            write_attended(p, tile, v, c, output / sum);
            continue;
        }
        float *own = states + (size_t)split * size;
        own[32 + item] = output;
        if (c == 0) {
            own[v] = most;
            own[16 + v] = sum;
        }
    }
    if (splits == 1) return;
    fence();
    sync_block();
    int *counter = at<int>(p.counters) + index * p.kv_heads + kv_head;
    if (threadIdx.x == 0) is_last = count_up(counter) == splits - 1;
    sync_block();
    if (!is_last) return;
    fence();
    if (threadIdx.x == 0) *counter = 0;
    for (int item = (int)threadIdx.x; item < 16 * padded; item += (int)blockDim.x) {
        const int v = item / padded, c = item % padded;
        float most, sum;
        const float output = merge_states(states, splits, (size_t)size, padded, v, c, true, most, sum);
        write_attended(p, tile, v, c, output / sum);
    }
}

template <int STEPS, int TYPE>
DEVICE void attend_tiles(const sigma_cuda_attend &p) {
    DYNAMIC_SHARED(float, shared);
    QueryTile tile;
    if (!find_tile(p, (int)blockIdx.x * 4 + WARP, (int)blockIdx.y, tile)) return;
    const int padded = sigma_cuda_padded(p.head_dim), g = LANE / 4, t = LANE % 4;
    Queries<STEPS, TYPE> queries;
    queries.load(p, tile, padded / 16);
    // The state of the splits before; it is used once a split, and would take registers.
    float *total = shared + WARP * state_floats(padded);
    AttentionState<STEPS> split, unit;
    split.clear();
    write_state(split, padded, total);
    for (int start = 0; start < tile.limit; start += SIGMA_CUDA_SPLIT) {
        split.clear();
        for (int own = start; own < min(tile.limit, start + (int)SIGMA_CUDA_SPLIT); own += UNIT) {
            unit_state<STEPS, TYPE>(p, tile, queries, own, unit);
            merge(split, unit);
        }
        sync_warp();
        UNROLLED for (int r = 0; r < 2; r++) {
            if (split.sum[r] == 0.0f) continue;
            const int v = g + 8 * r;
            const MergeFactors f = merge_factors(total[v], split.most[r]);
            const float sum = merged(total[16 + v], split.sum[r], f);
            // All lanes of a vector have read before one writes.
            UNROLLED for (int n = 0; n < 2 * STEPS; n++) {
                if (is_generic(STEPS) && 8 * n >= padded) break;
                UNROLLED for (int i = 0; i < 2; i++) {
                    float *place = total + 32 + v * padded + 8 * n + 2 * t + i;
                    *place = merged(*place, split.output[n][2 * r + i], f);
                }
            }
            split.most[r] = f.most;
            unit.sum[r] = sum;
        }
        sync_warp();
        UNROLLED for (int r = 0; r < 2; r++) {
            if (split.sum[r] == 0.0f || t != 0) continue;
            total[g + 8 * r] = split.most[r];
            total[16 + g + 8 * r] = unit.sum[r];
        }
    }
    sync_warp();
    for (int item = LANE; item < 16 * padded; item += 32)
        write_attended(p, tile, item / padded, item % padded, total[32 + item] / total[16 + item / padded]);
}

#define ATTENTION_KERNELS(STEPS, NAME, TYPE) \
    SIGMA_KERNEL(sigma_attend_splits_##STEPS##_##NAME, sigma_cuda_attend, 128, 1) { attend_splits<STEPS, TYPE>(p); } \
    SIGMA_KERNEL(sigma_attend_tiles_##STEPS##_##NAME, sigma_cuda_attend, 128, 1) { attend_tiles<STEPS, TYPE>(p); }
#define ATTENTION_KERNELS_OF_ALL_TYPES(STEPS) \
    ATTENTION_KERNELS(STEPS, f32, TYPE_F32) \
    ATTENTION_KERNELS(STEPS, f16, TYPE_F16) \
    ATTENTION_KERNELS(STEPS, q8_0, TYPE_Q8_0)

#if !defined(SIGMA_HEAD_STEPS) || SIGMA_HEAD_STEPS == 4
ATTENTION_KERNELS_OF_ALL_TYPES(4)
#endif
#if !defined(SIGMA_HEAD_STEPS) || SIGMA_HEAD_STEPS == 6
ATTENTION_KERNELS_OF_ALL_TYPES(6)
#endif
#if !defined(SIGMA_HEAD_STEPS) || SIGMA_HEAD_STEPS == 8
ATTENTION_KERNELS_OF_ALL_TYPES(8)
#endif
#if !defined(SIGMA_HEAD_STEPS) || SIGMA_HEAD_STEPS == 16
ATTENTION_KERNELS_OF_ALL_TYPES(16)
#endif
