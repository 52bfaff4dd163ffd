// RMSNorm per head, RoPE, the key-value cache, and attention: many rows, few rows, whole prompts and pieces.
#include <algorithm>

#include "check.h"
#include "sigma_half.h"
#include "sigma_kernels.h"

namespace {

struct Shape {
    int heads, kv_heads, head_dim, kv_type;
    bool norms;
};

const char *type_name(int type) { return type == SIGMA_F32 ? "f32" : type == SIGMA_F16 ? "f16" : "q8_0"; }

// One sequence: what its projections are, its cache, and what attention must give.
struct Sequence {
    static constexpr int LAYERS = 2, LAYER = 1;
    Shape shape;
    int length;
    std::vector<float> projections;  // [length, (heads + 2 kv_heads) * head_dim]
    std::vector<Memory<unsigned char> *> blocks;
    Memory<sigma_device> table;
    std::vector<double> exact;  // [length, heads * head_dim]

    Sequence(Shape shape, int length, uint64_t seed)
        : shape(shape), length(length), projections(uneven_row((size_t)length * width(), seed, 2)), table((size_t)(length + 255) / 256) {
        for (size_t i = 0; i < table.count; i++) {
            blocks.push_back(new Memory<unsigned char>((size_t)LAYERS * 2 * shape.kv_heads * sigma_cuda_kv_bytes(shape.kv_type, shape.head_dim)));
            table[i] = blocks[i]->address();
        }
    }
    ~Sequence() {
        for (auto *block : blocks) delete block;
    }
    int width() const { return (shape.heads + 2 * shape.kv_heads) * shape.head_dim; }
};

struct Tables {
    Memory<float> cosines, sines, query_norm, key_norm;
    Tables(Shape shape, int positions)
        : cosines((size_t)positions * (shape.head_dim / 2)), sines((size_t)positions * (shape.head_dim / 2)),
          query_norm(uneven_row((size_t)shape.head_dim, 5, 2)), key_norm(uneven_row((size_t)shape.head_dim, 6, 2)) {
        for (int position = 0; position < positions; position++)
            for (int i = 0; i < shape.head_dim / 2; i++) {
                const double angle = position * pow(10000, -2.0 * i / shape.head_dim);
                cosines[(size_t)position * (shape.head_dim / 2) + i] = (float)cos(angle);
                sines[(size_t)position * (shape.head_dim / 2) + i] = (float)sin(angle);
            }
    }
};

// A head as it comes out of norm and RoPE, and as the cache keeps it.
std::vector<double> head_of(const Sequence &sequence, const Tables &tables, int position, int index, bool stored) {
    const Shape &s = sequence.shape;
    const int d = s.head_dim, half = d / 2;
    const bool is_value = index >= s.heads + s.kv_heads;
    std::vector<double> x(d);
    const float *from = &sequence.projections[(size_t)position * sequence.width() + (size_t)index * d];
    double squares = 0;
    for (int i = 0; i < d; i++) squares += (double)from[i] * from[i];
    const Memory<float> &norm = index < s.heads ? tables.query_norm : tables.key_norm;
    for (int i = 0; i < d; i++) x[i] = is_value || !s.norms ? from[i] : from[i] / sqrt(squares / d + 1e-6) * norm[i];
    if (!is_value)
        for (int i = 0; i < half; i++) {
            const double c = tables.cosines[(size_t)position * half + i], n = tables.sines[(size_t)position * half + i], a = x[i], b = x[i + half];
            x[i] = a * c - b * n;
            x[i + half] = b * c + a * n;
        }
    if (!stored || s.kv_type == SIGMA_F32) return x;
    if (s.kv_type == SIGMA_F16) {
        for (double &value : x) value = sigma_half_to_float(sigma_float_to_half((float)value));
        return x;
    }
    for (int first = 0; first < d; first += 32) {
        double most = 0;
        for (int i = first; i < first + 32; i++) most = std::max(most, fabs(x[i]));
        for (int i = first; i < first + 32; i++)
            x[i] = most > 0 ? rint(x[i] * 127 / most) * sigma_half_to_float(sigma_float_to_half((float)(most / 127))) : 0;
    }
    return x;
}

void compute_exact(Sequence &sequence, const Tables &tables) {
    const Shape &s = sequence.shape;
    const int d = s.head_dim;
    std::vector<std::vector<double>> keys((size_t)sequence.length * s.kv_heads), values(keys.size());
    for (int position = 0; position < sequence.length; position++)
        for (int head = 0; head < s.kv_heads; head++) {
            keys[(size_t)position * s.kv_heads + head] = head_of(sequence, tables, position, s.heads + head, true);
            values[(size_t)position * s.kv_heads + head] = head_of(sequence, tables, position, s.heads + s.kv_heads + head, true);
        }
    sequence.exact.assign((size_t)sequence.length * s.heads * d, 0);
    for (int position = 0; position < sequence.length; position++)
        for (int head = 0; head < s.heads; head++) {
            const std::vector<double> q = head_of(sequence, tables, position, head, false);
            const int kv = head / (s.heads / s.kv_heads);
            std::vector<double> scores(position + 1);
            double most = -INFINITY, total = 0;
            for (int j = 0; j <= position; j++) {
                for (int i = 0; i < d; i++) scores[j] += q[i] * keys[(size_t)j * s.kv_heads + kv][i];
                scores[j] /= sqrt(d);
                most = std::max(most, scores[j]);
            }
            for (double &score : scores) total += score = exp(score - most);
            double *out = &sequence.exact[((size_t)position * s.heads + head) * d];
            for (int j = 0; j <= position; j++)
                for (int i = 0; i < d; i++) out[i] += scores[j] / total * values[(size_t)j * s.kv_heads + kv][i];
        }
}

// One step: `counts[i]` successive rows of each sequence from `positions[i]` on. Returns what attention wrote, rows of the sequences one after
// the other.
std::vector<float> step(const std::vector<Sequence *> &sequences, const std::vector<int> &positions, const std::vector<int> &counts,
                        const Tables &tables, bool splits) {
    const Shape &s = sequences[0]->shape;
    std::vector<sigma_cuda_row> rows;
    std::vector<sigma_cuda_sequence> own;
    std::vector<sigma_cuda_query_tile> tiles = {{-1, 0}};  // an empty one first
    std::vector<float> projections;
    int longest = 0;
    for (size_t i = 0; i < sequences.size(); i++) {
        own.push_back({sequences[i]->table.address(), (int)rows.size(), counts[i], positions[i], 0});
        for (int tile = 0; tile < sigma_cuda_tile_count(counts[i], s.heads, s.kv_heads); tile++) tiles.push_back({(int)i, 16 * tile});
        for (int row = 0; row < counts[i]; row++) {
            rows.push_back({0, positions[i] + row, (int)i, 0});
            const float *from = &sequences[i]->projections[(size_t)(positions[i] + row) * sequences[i]->width()];
            projections.insert(projections.end(), from, from + sequences[i]->width());
        }
        longest = std::max(longest, positions[i] + counts[i]);
    }
    const Memory<sigma_cuda_row> row_memory(rows);
    const Memory<sigma_cuda_sequence> sequence_memory(own);
    const Memory<sigma_cuda_query_tile> tile_memory(tiles);
    const Memory<float> projection_memory(projections);
    Memory<unsigned char> queries(rows.size() * s.heads * sigma_cuda_query_bytes(s.kv_type, s.head_dim));
    sigma_cuda_rope_store store = {};
    store.projections = projection_memory.address();
    store.query_norm = s.norms ? tables.query_norm.address() : 0;
    store.key_norm = s.norms ? tables.key_norm.address() : 0;
    store.cosines = tables.cosines.address();
    store.sines = tables.sines.address();
    store.rows_address = row_memory.address();
    store.sequences = sequence_memory.address();
    store.queries = queries.address();
    store.rows = (int)rows.size();
    store.heads = s.heads;
    store.kv_heads = s.kv_heads;
    store.head_dim = s.head_dim;
    store.layer = Sequence::LAYER;
    store.kv_type = s.kv_type;
    store.epsilon = 1e-6f;
    LAUNCH(rope_store, store);

    Memory<float> attended(rows.size() * s.heads * s.head_dim);
    sigma_cuda_attend p = {};
    p.queries = queries.address();
    p.rows_address = row_memory.address();
    p.sequences = sequence_memory.address();
    p.tiles = tile_memory.address();
    p.attended = attended.address();
    p.tile_count = (int)tiles.size();
    p.split_count = (longest + 255) / 256 + 1;  // more than there are
    p.heads = s.heads;
    p.kv_heads = s.kv_heads;
    p.head_dim = s.head_dim;
    p.layer = Sequence::LAYER;
    p.kv_type = s.kv_type;
    Memory<unsigned char> states((size_t)p.tile_count * s.kv_heads * p.split_count * sigma_cuda_state_bytes(s.head_dim));
    Memory<int> counters(std::vector<int>((size_t)p.tile_count * s.kv_heads, 0));
    p.states = states.address();
    p.counters = counters.address();
    const std::string suffix = std::to_string(sigma_cuda_head_steps(s.head_dim)) + "_" + type_name(s.kv_type);
    if (splits) launch("sigma_attend_splits_" + suffix, p, sigma_cuda_launch_attend_splits(&p));
    else launch("sigma_attend_tiles_" + suffix, p, sigma_cuda_launch_attend_tiles(&p));
    for (size_t i = 0; i < counters.count; i++) expect(counters[i] == 0, "counter", (long)i, splits);
    return std::vector<float>(attended.base, attended.base + attended.count);
}

void compare(const std::vector<float> &found, size_t first, const std::vector<float> &expected, size_t expected_first, size_t count, const char *what) {
    for (size_t i = 0; i < count; i++) expect(same_bits(found[first + i], expected[expected_first + i]), what, (long)(first + i), (long)expected_first);
}

void check_shape(Shape shape, int length, uint64_t seed) {
    const Tables tables(shape, length);
    Sequence sequence(shape, length, seed);
    compute_exact(sequence, tables);
    const size_t width = (size_t)shape.heads * shape.head_dim;
    const std::vector<float> whole = step({&sequence}, {0}, {length}, tables, false);
    // fp32: rounding alone. Halves: queries, weights and keys' products are rounded to 11 bits: scores of up to about 10 are off by a part in
    // 2^11 of the sum of magnitudes.
    const double bound = shape.kv_type == SIGMA_F32 ? 3e-5 : shape.kv_type == SIGMA_F16 ? 0.02 : 0.03;
    double error = 0, power = 0;
    for (size_t i = 0; i < sequence.exact.size(); i++) {
        expect_near(whole[i], sequence.exact[i], bound, "attended", (long)(i / width), (long)(i % width), shape.head_dim);
        error += (whole[i] - sequence.exact[i]) * (whole[i] - sequence.exact[i]);
        power += sequence.exact[i] * sequence.exact[i];
    }
    expect_near(sqrt(error / power), 0, shape.kv_type == SIGMA_F32 ? 2e-6 : 3e-3, "relative error", shape.head_dim, shape.kv_type);

    compare(step({&sequence}, {0}, {length}, tables, true), 0, whole, 0, whole.size(), "splits of a whole prompt");
    // Another cache, filled in pieces, by both kernels in turn; beside another sequence.
    Sequence pieces(shape, length, seed), other(shape, 40, seed + 1);
    bool splits = false;
    int position = 0, piece = 1;
    while (position < length) {
        const int count = std::min(piece, length - position);
        const bool beside = position + count <= 40;
        const std::vector<float> found = beside ? step({&other, &pieces}, {position, position}, {count, count}, tables, splits)
                                                : step({&pieces}, {position}, {count}, tables, splits);
        compare(found, beside ? count * width : 0, whole, (size_t)position * width, (size_t)count * width, "pieces");
        position += count;
        piece = piece < 50 ? 2 * piece + 1 : piece == 1000 ? 1 : 67;
        splits = !splits;
    }
    // The last token again, by itself.
    compare(step({&pieces}, {length - 1}, {1}, tables, true), 0, whole, (size_t)(length - 1) * width, width, "last token");
    compare(step({&pieces}, {length - 1}, {1}, tables, false), 0, whole, (size_t)(length - 1) * width, width, "last token, one warp");
}

}  // namespace

void check_attention() {
    uint64_t seed = 1;
    for (int type : {SIGMA_F32, SIGMA_F16, SIGMA_Q8_0}) {
        begin(type == SIGMA_F32 ? "attention f32" : type == SIGMA_F16 ? "attention f16" : "attention q8_0");
        check_shape({4, 2, 64, type, true}, 530, seed++);
        check_shape({4, 1, 96, type, true}, 259, seed++);
        check_shape({2, 2, 128, type, false}, 130, seed++);
        check_shape({20, 1, 32, type, true}, 70, seed++);
        check_shape({2, 1, 160, type, false}, 67, seed++);
        // Ends with the last position but one of a tile.
        check_shape({4, 2, 64, type, true}, 31, seed++);
        check_shape({3, 1, 256, type, false}, 20, seed++);
        if (type == SIGMA_Q8_0) continue;
        check_shape({2, 1, 40, type, true}, 33, seed++);
        check_shape({2, 1, 6, type, true}, 18, seed++);
        check_shape({1, 1, 2, type, false}, 5, seed++);
    }
}
