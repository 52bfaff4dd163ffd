// The CUDA kernels' contract: what each kernel is given, how it is launched, and how its memory lies.
//
// Included by Swift and C (the launching side), by the kernels' sources when NVRTC compiles them, and by the tests' emulation.
//
// Conventions: a kernel takes one structure by value. Addresses are the device's, as 64-bit numbers; 0 where something is absent.
// Matrices are row-major [rows, columns]; activations are fp32 unless stated. Every result has one order of summation, whatever kernel
// computes it and whatever rows are beside it (docs/cuda.md): few rows and many, whole prompts and pieces give the same bits.
// Kernels check nothing; the launching side owns all sizes. Whatever an address names begins at a multiple of 16 bytes, but for outputs of
// products.
#ifndef SIGMA_CUDA_H
#define SIGMA_CUDA_H

#ifdef __CUDACC_RTC__
typedef unsigned long long sigma_device;
typedef int sigma_int;
#else
#include <stddef.h>
#include <stdint.h>
// An address of the device's memory.
typedef uint64_t sigma_device;
typedef int32_t sigma_int;
#endif

enum {
    // Rows that the kernels for few rows take at most.
    SIGMA_CUDA_FEW_ROWS = 8,
    // Rows of a tile of the kernels for many rows.
    SIGMA_CUDA_TILE_ROWS = 64,
    // Columns whose products are added up by themselves, before they are added to the sum of those before them.
    SIGMA_CUDA_CHUNK = 256,
    // Positions of a block of the key-value cache, and of a split of attention.
    SIGMA_CUDA_SPLIT = 256,
    // Query vectors (rows times heads that share keys and values) of a tile of attention.
    SIGMA_CUDA_QUERIES = 16,
    // The most that is supported; beyond it the model is refused.
    SIGMA_CUDA_MAX_HEAD_DIM = 256,
    SIGMA_CUDA_MAX_EXPERTS = 1024,
    SIGMA_CUDA_MAX_CHOICES = 64,
    // The most of `sigma_top`.
    SIGMA_CUDA_MAX_TOP = 256,
    // Ids that one block of `sigma_top` looks through.
    SIGMA_CUDA_TOP_SLICE = 1024,
    // Products that a warp (int8) or thread (fp32) of the measuring loops has under way.
    SIGMA_CUDA_PEAK_CHAINS = 8
};

// A weight matrix [rows, columns] in the model file's layout: type is GGUF's number (sigma_kernels.h). Address a multiple of 64.
typedef struct {
    sigma_device data;
    sigma_int type, rows, columns;
    sigma_int padding;
} sigma_cuda_matrix;

// 32 activations in 8 bits, in the order in which tensor cores take them: four times columns 4 t ..< 4 t + 4, 16 + 4 t ..< 20 + 4 t.
typedef struct {
    signed char q[32];
    float scale;       // an activation is scale * q; scale = max|x| / 127
    float scaled_sum;  // scale * sum of q
    sigma_int sum;     // of q
    sigma_int first;   // of q of columns 0 ..< 16
} sigma_cuda_block;

// A step's rows, sequences and tiles of queries, in device memory: what changes from step to step of the same shape.
typedef struct {
    sigma_int token, position;
    sigma_int sequence;  // index of its sequence
    sigma_int padding;
} sigma_cuda_row;

typedef struct {
    sigma_device blocks;  // addresses of its key-value blocks, 8 bytes each
    sigma_int first_row;  // in the step
    sigma_int rows;
    sigma_int position;   // of first_row
    sigma_int padding;
} sigma_cuda_sequence;

// Query vectors first ..< first + 16 of a sequence: vector v is row v / (heads per key-value head), head v % (heads per key-value head)
// of those that share keys and values. Those beyond rows * (heads per key-value head) do not exist. sequence < 0: an empty tile.
typedef struct {
    sigma_int sequence, first;
} sigma_cuda_query_tile;

// Rows first ..< first + count of the sorted slots, all of one expert. count 0: an empty tile.
typedef struct {
    sigma_int expert, first, count;
    sigma_int padding;
} sigma_cuda_expert_tile;

// Key-value blocks
//
// A block of 256 positions is [layer][keys, values][kv head] times sigma_cuda_kv_bytes: 16 tiles of 16 positions. A tile holds
// head_dim, rounded up to 16, components of 16 positions; the components beyond head_dim are zero.
// f16:  per 16 components 32 lanes times 16 bytes: what a lane needs of the second operand of a product of halves (m16n8k16), for keys
//       [components, positions], for values [positions, components].
// q8_0: per 32 components 32 lanes times 16 signed bytes, likewise; after them per 32 components 16 fp16 scales. head_dim % 32 == 0.
// f32:  [position][component].
// What lies at positions that no row sees makes no difference: a block's memory needs no initial value.
static inline sigma_int sigma_cuda_padded(sigma_int head_dim) { return (head_dim + 15) & ~15; }

// Bytes of a tile of one head's keys or values. Types: 0 f32, 1 f16, 8 q8_0.
static inline sigma_int sigma_cuda_kv_tile_bytes(sigma_int type, sigma_int head_dim) {
    const sigma_int width = sigma_cuda_padded(head_dim);
    return type == 0 ? 64 * width : type == 1 ? 32 * width : 16 * width + width;
}
static inline sigma_int sigma_cuda_kv_bytes(sigma_int type, sigma_int head_dim) {
    return SIGMA_CUDA_SPLIT / 16 * sigma_cuda_kv_tile_bytes(type, head_dim);
}

// Byte offset of a component (0 ..< padded head_dim) of a position (0 ..< 16) in a tile.
static inline sigma_int sigma_cuda_kv_offset(sigma_int type, sigma_int head_dim, sigma_int is_value, sigma_int position,
                                             sigma_int component) {
    if (type == 0) return 4 * (position * sigma_cuda_padded(head_dim) + component);
    const sigma_int part = component % 16;
    // In a product's second operand lane 4 g + t has column g of rows 2 t, 2 t + 1, 2 t + 8 and 2 t + 9; then column g + 8.
    const sigma_int row = is_value ? position : part, column = is_value ? part : position;
    const sigma_int lane = column % 8 * 4 + row % 8 / 2;
    const sigma_int element = column / 8 * 4 + row / 8 * 2 + row % 2;
    if (type == 1) return component / 16 * 512 + lane * 16 + element * 2;
    return component / 32 * 512 + lane * 16 + component % 32 / 16 * 8 + element;
}
// Byte offset of the fp16 scale of that component in a tile of q8_0.
static inline sigma_int sigma_cuda_kv_scale_offset(sigma_int head_dim, sigma_int position, sigma_int component) {
    return 16 * head_dim + component / 32 * 32 + position * 2;
}

// MARK: - Kernels

// What a product takes, and how it comes about.
enum {
    SIGMA_CUDA_NORMED = 0,   // values [rows, columns] / rms * other [columns]
    SIGMA_CUDA_FLOATS = 1,   // values [rows, columns] as they are
    SIGMA_CUDA_GATED = 2,    // silu(values [rows, columns]) * other [rows, columns]
    SIGMA_CUDA_PREPARED = 3  // by `sigma_prepare`: values [rows, columns] (float weights), other = blocks [rows, columns / 32] (packed ones)
};

typedef struct {
    sigma_device values, other;
    sigma_int kind, columns;
    float epsilon;  // NORMED
    sigma_int padding;
} sigma_cuda_input;

// One of the products of an input: output[row * stride + j] = (output[...] if adds) + W[j] . input[row] + bias[j].
typedef struct {
    sigma_cuda_matrix matrix;  // columns == the input's
    sigma_device bias;         // [matrix.rows] fp32, or 0
    sigma_device output;
    sigma_int stride;          // floats from row to row
    sigma_int adds;
} sigma_cuda_product;

// sigma_embed: residual [rows, embedding.columns] = the tokens' rows of the embedding, exactly as the file has them.
typedef struct {
    sigma_cuda_matrix embedding;
    sigma_device rows_address;  // sigma_cuda_row [rows]
    sigma_device residual;
    sigma_int rows;
    sigma_int padding;
} sigma_cuda_embed;

// sigma_prepare: inputs of products for many rows, or for products in more than one launch. floats [rows, columns], blocks
// [rows, columns / 32] (columns % 32 == 0); either may be 0. input.kind is not PREPARED.
typedef struct {
    sigma_cuda_input input;
    sigma_device floats, blocks;
    sigma_int rows;
    sigma_int padding;
} sigma_cuda_prepare;

// sigma_project: up to 4 products of at most SIGMA_CUDA_FEW_ROWS rows, of any weight types. The input is prepared on the way, with the
// same bits as sigma_prepare's.
typedef struct {
    sigma_cuda_input input;
    sigma_cuda_product products[4];
    sigma_int count, rows;
} sigma_cuda_project;

// sigma_multiply: the same for any number of rows, on tensor cores where weights are packed. input.kind == PREPARED.
// With records (experts), tiles say which sorted slots go to which expert; a slot is row * choices + choice. Then matrix.data is the offset
// in the expert's record, the input's row is slot / input_divisor, the output's row is the slot, and bias and adds are 0.
typedef struct {
    sigma_cuda_input input;
    sigma_cuda_product products[4];
    sigma_device records;  // addresses [experts] of the layer's expert records, or 0
    sigma_device order;    // sorted slots [slots]
    sigma_device tiles;    // sigma_cuda_expert_tile [tile_count]
    sigma_int count, rows;
    sigma_int tile_count;  // with records: the most that there can be
    sigma_int input_divisor;
} sigma_cuda_multiply;

// sigma_rope_store: per row and head, RMSNorm over head_dim of q and k where norms are given, RoPE, then queries as attention takes them,
// and keys and values into the cache at the rows' positions.
typedef struct {
    sigma_device projections;              // [rows, (heads + 2 kv_heads) * head_dim]: q, k, v
    sigma_device query_norm, key_norm;     // [head_dim] or 0
    sigma_device cosines, sines;           // [positions, head_dim / 2]
    sigma_device rows_address, sequences;  // sigma_cuda_row [rows], sigma_cuda_sequence
    sigma_device queries;                  // sigma_cuda_query_bytes [rows, heads]
    sigma_int rows, heads, kv_heads, head_dim, layer, kv_type;
    float epsilon;
    sigma_int padding;
} sigma_cuda_rope_store;

// Bytes of one head's query: head_dim components, rounded up to 16, scaled by head_dim^-0.5 * log2(e): fp32 for f32 caches, else fp16.
static inline sigma_int sigma_cuda_query_bytes(sigma_int kv_type, sigma_int head_dim) {
    return sigma_cuda_padded(head_dim) * (kv_type == 0 ? 4 : 2);
}

// sigma_attend_splits_N_TYPE: one block of threads for each tile, kv head and split; the last one of a tile and kv head merges the splits.
// sigma_attend_tiles_N_TYPE: four tiles a block of threads, each going through all of its splits. Both give the same bits: the first
// is for few rows, the second for many. N = sigma_cuda_head_steps(head_dim).
typedef struct {
    sigma_device queries, rows_address, sequences;
    sigma_device tiles;     // sigma_cuda_query_tile [tile_count]
    sigma_device attended;  // [rows, heads * head_dim]
    // Splits only: sigma_cuda_state_bytes [tile_count, kv_heads, split_count]; and sigma_int [tile_count, kv_heads], zero before the first
    // launch and after each.
    sigma_device states, counters;
    sigma_int tile_count, split_count;  // split_count: at least the splits of the longest sequence
    sigma_int heads, kv_heads, head_dim, layer, kv_type;
    sigma_int padding;
} sigma_cuda_attend;

static inline sigma_int sigma_cuda_state_bytes(sigma_int head_dim) {
    return SIGMA_CUDA_QUERIES * (sigma_cuda_padded(head_dim) + 2) * 4;
}
// Tiles of a sequence with `rows` rows in the step.
static inline sigma_int sigma_cuda_tile_count(sigma_int rows, sigma_int heads, sigma_int kv_heads) {
    return (rows * (heads / kv_heads) + SIGMA_CUDA_QUERIES - 1) / SIGMA_CUDA_QUERIES;
}
// Times 16 components that the kernel for this head_dim is compiled for: 4, 6 and 8 for just so many, 16 for all others.
static inline sigma_int sigma_cuda_head_steps(sigma_int head_dim) {
    const sigma_int steps = sigma_cuda_padded(head_dim) / 16;
    return steps == 4 || steps == 6 || steps == 8 ? steps : 16;
}

// How logits become choices. chosen, weights: [rows, choices]. scores + bias decides, ties to the lowest index; weights come from the scores.
typedef struct {
    sigma_device logits;           // [rows, experts]
    sigma_device bias;             // [experts] or 0
    sigma_device chosen, weights;  // sigma_int, float
    sigma_int rows, experts, choices;
    sigma_int softmax;             // over all experts; else sigmoid
    sigma_int normalizes;          // weights are divided by their sum
    float scale;                   // of the weights, afterwards
} sigma_cuda_choose;

// sigma_route: logits [rows, experts] of at most SIGMA_CUDA_FEW_ROWS rows, then the choice, by the block of threads that ends last.
// router: f32, f16 or bf16. counter: one sigma_int, zero before the first launch and after each.
typedef struct {
    sigma_cuda_input input;
    sigma_cuda_matrix router;
    sigma_cuda_choose choose;
    sigma_device counter;
} sigma_cuda_route;

// sigma_choose: the choice alone, for logits of any number of rows.
// sigma_sort: slots [count] sorted by expert, in their order within one; and the tiles that sigma_multiply goes by. Tiles beyond the last are
// empty.
typedef struct {
    sigma_device chosen;  // [slots]
    sigma_device order;   // [slots]
    sigma_device tiles;   // [tile_count]
    sigma_int slots, experts, tile_count;
    sigma_int padding;
} sigma_cuda_sort;

static inline sigma_int sigma_cuda_expert_tile_count(sigma_int slots, sigma_int experts) {
    const sigma_int whole = slots / SIGMA_CUDA_TILE_ROWS;
    return whole + (slots < experts ? slots : experts);
}

// sigma_expert_gate: gate and up of the chosen experts, for few rows. outputs [rows * choices, intermediate].
typedef struct {
    sigma_cuda_input input;   // [rows, hidden]
    sigma_device records;     // addresses [experts] of the layer's records
    sigma_device chosen;      // [rows, choices]
    sigma_device gate, up;    // outputs
    sigma_cuda_matrix gate_matrix, up_matrix;  // data: offset in the record
    sigma_int rows, choices;
} sigma_cuda_expert_gate;

// sigma_expert_down: residual [rows, hidden] += sum over choices of weight * down(silu(gate) * up), in the order of the choice, plus the
// shared (or dense) MLP's. For few rows. choices 0: the latter alone.
typedef struct {
    sigma_device records, chosen, weights;
    sigma_device gate, up;                // [rows * choices, down.columns]
    sigma_device shared_gate, shared_up;  // [rows, shared.columns]
    sigma_device residual;
    sigma_cuda_matrix down;               // data: offset in the record
    sigma_cuda_matrix shared;             // data: address, or 0
    sigma_int rows, choices;
} sigma_cuda_expert_down;

// sigma_combine: the same sum for many rows, of products that sigma_multiply made: outputs [rows * choices, hidden], shared [rows, hidden] or 0.
typedef struct {
    sigma_device outputs, weights, shared, residual;
    sigma_int rows, choices, hidden;
    sigma_int padding;
} sigma_cuda_combine;

// sigma_top: of each row the `top` largest, ties to the lowest id, as keys [rows, slices, top], largest first, 0 where there are no more.
// Source: logits, or (keys != 0) the keys of the launch before; repeat until there is one slice. Ids whose bit in `allowed` is 0 are left out, as
// are logits that are not numbers.
typedef struct {
    sigma_device logits;   // [rows, stride] fp32
    sigma_device keys;     // [rows, count] of the launch before, or 0
    sigma_device allowed;  // bit id % 32 of word id / 32; or 0: all ids. With logits only.
    sigma_device output;   // 8 bytes each
    sigma_int rows, count, stride, top;  // count: ids or keys of a row
} sigma_cuda_top;

static inline sigma_int sigma_cuda_slices(sigma_int count) {
    return (count + SIGMA_CUDA_TOP_SLICE - 1) / SIGMA_CUDA_TOP_SLICE;
}

// sigma_read: reads byte_count bytes (a multiple of 16) and adds them up into sink (4 bytes a block of threads), for measuring bandwidth.
typedef struct {
    sigma_device source, sink;
    sigma_device byte_count;
} sigma_cuda_read;

// sigma_peak_int8, sigma_peak_fp32: products in registers, for measuring the peak rate. sink: 4 bytes a thread.
typedef struct {
    sigma_device sink;
    sigma_int iterations;
    sigma_int padding;
} sigma_cuda_peak;

#ifndef __CUDACC_RTC__

// MARK: - Launches

typedef struct {
    uint32_t grid_x, grid_y, grid_z;
    uint32_t block;
    uint32_t shared;  // bytes of dynamic shared memory; above 48 KiB the function's limit must be raised
} sigma_cuda_launch;

static inline int sigma_cuda_is_packed(int32_t type) { return type == 2 || type == 8 || type == 12 || type == 14; }
static inline uint32_t sigma_cuda_chunks(int32_t columns) {
    return ((uint32_t)columns + SIGMA_CUDA_CHUNK - 1) / SIGMA_CUDA_CHUNK;
}
static inline uint32_t sigma_cuda_groups(int32_t rows) { return ((uint32_t)rows + 15) / 16; }
static inline uint32_t sigma_cuda_few_warps(uint32_t chunks) { return chunks < 2 ? 2 : chunks < 8 ? chunks : 8; }

static inline sigma_cuda_launch sigma_cuda_launch_embed(const sigma_cuda_embed *p) {
    return (sigma_cuda_launch){(uint32_t)p->rows, 1, 1, 256, 0};
}
static inline sigma_cuda_launch sigma_cuda_launch_prepare(const sigma_cuda_prepare *p) {
    return (sigma_cuda_launch){(uint32_t)p->rows, 1, 1, 256, 4 * sigma_cuda_chunks(p->input.columns)};
}

// Shared memory of the kernels for few rows: sums [chunks][16 weights][rows], and where activations are quantized on the way 256 of each
// row for each warp.
static inline uint32_t sigma_cuda_few_shared(uint32_t chunks, uint32_t warps, uint32_t rows, int quantizes) {
    return chunks * 16 * 4 * rows + chunks * 4 * rows + (quantizes ? warps * rows * 8 * (uint32_t)sizeof(sigma_cuda_block) : 0) + 32;
}
static inline sigma_cuda_launch sigma_cuda_launch_project(const sigma_cuda_project *p) {
    uint32_t groups = 0;
    int packed = 0;
    for (int32_t i = 0; i < p->count; i++) {
        groups += sigma_cuda_groups(p->products[i].matrix.rows);
        packed |= sigma_cuda_is_packed(p->products[i].matrix.type);
    }
    const uint32_t chunks = sigma_cuda_chunks(p->input.columns), warps = sigma_cuda_few_warps(chunks);
    const uint32_t shared =
        sigma_cuda_few_shared(chunks, warps, (uint32_t)p->rows, packed && p->input.kind != SIGMA_CUDA_PREPARED);
    return (sigma_cuda_launch){groups, 1, 1, 32 * warps, shared};
}
static inline sigma_cuda_launch sigma_cuda_launch_multiply(const sigma_cuda_multiply *p) {
    uint32_t groups = 0;
    for (int32_t i = 0; i < p->count; i++) groups += (sigma_cuda_groups(p->products[i].matrix.rows) + 3) / 4;
    const uint32_t tiles = p->records ? (uint32_t)p->tile_count
                                      : ((uint32_t)p->rows + SIGMA_CUDA_TILE_ROWS - 1) / SIGMA_CUDA_TILE_ROWS;
    return (sigma_cuda_launch){groups, tiles, 1, 128, 0};
}
static inline sigma_cuda_launch sigma_cuda_launch_rope_store(const sigma_cuda_rope_store *p) {
    return (sigma_cuda_launch){((uint32_t)(p->heads + 2 * p->kv_heads) + 3) / 4, (uint32_t)p->rows, 1, 128, 0};
}
static inline sigma_cuda_launch sigma_cuda_launch_attend_splits(const sigma_cuda_attend *p) {
    return (sigma_cuda_launch){(uint32_t)p->split_count, (uint32_t)p->kv_heads, (uint32_t)p->tile_count, 128,
                               4 * (uint32_t)sigma_cuda_state_bytes(p->head_dim)};
}
static inline sigma_cuda_launch sigma_cuda_launch_attend_tiles(const sigma_cuda_attend *p) {
    return (sigma_cuda_launch){((uint32_t)p->tile_count + 3) / 4, (uint32_t)p->kv_heads, 1, 128,
                               4 * (uint32_t)sigma_cuda_state_bytes(p->head_dim)};
}
static inline sigma_cuda_launch sigma_cuda_launch_route(const sigma_cuda_route *p) {
    const uint32_t chunks = sigma_cuda_chunks(p->input.columns);
    return (sigma_cuda_launch){((uint32_t)p->router.rows + 3) / 4, 1, 1, 128,
                               4 * (chunks * (uint32_t)p->choose.rows + 4 * (uint32_t)p->choose.experts) + 64};
}
static inline sigma_cuda_launch sigma_cuda_launch_choose(const sigma_cuda_choose *p) {
    return (sigma_cuda_launch){((uint32_t)p->rows + 3) / 4, 1, 1, 128, 16 * (uint32_t)p->experts};
}
static inline sigma_cuda_launch sigma_cuda_launch_sort(const sigma_cuda_sort *p) {
    return (sigma_cuda_launch){1, 1, 1, 1024, 8 * ((uint32_t)p->experts + 1)};
}
static inline sigma_cuda_launch sigma_cuda_launch_expert_gate(const sigma_cuda_expert_gate *p) {
    const uint32_t chunks = sigma_cuda_chunks(p->input.columns), warps = sigma_cuda_few_warps(chunks);
    const int packed = sigma_cuda_is_packed(p->gate_matrix.type) || sigma_cuda_is_packed(p->up_matrix.type);
    return (sigma_cuda_launch){
        sigma_cuda_groups(p->gate_matrix.rows) + sigma_cuda_groups(p->up_matrix.rows), (uint32_t)(p->rows * p->choices), 1,
        32 * warps, sigma_cuda_few_shared(chunks, warps, 1, packed && p->input.kind != SIGMA_CUDA_PREPARED)};
}
static inline sigma_cuda_launch sigma_cuda_launch_expert_down(const sigma_cuda_expert_down *p) {
    const uint32_t of_experts = (uint32_t)p->choices * (p->choices ? sigma_cuda_chunks(p->down.columns) : 0);
    const uint32_t of_shared = p->shared.data ? sigma_cuda_chunks(p->shared.columns) : 0;
    const uint32_t chunks = of_experts + of_shared, warps = sigma_cuda_few_warps(chunks);
    const int packed = (p->choices && sigma_cuda_is_packed(p->down.type)) || (of_shared && sigma_cuda_is_packed(p->shared.type));
    return (sigma_cuda_launch){sigma_cuda_groups(p->choices ? p->down.rows : p->shared.rows), (uint32_t)p->rows, 1, 32 * warps,
                               sigma_cuda_few_shared(chunks, warps, 1, packed)};
}
static inline sigma_cuda_launch sigma_cuda_launch_combine(const sigma_cuda_combine *p) {
    return (sigma_cuda_launch){((uint32_t)p->hidden + 255) / 256, (uint32_t)p->rows, 1, 256, 0};
}
static inline sigma_cuda_launch sigma_cuda_launch_top(const sigma_cuda_top *p) {
    return (sigma_cuda_launch){(uint32_t)sigma_cuda_slices(p->count), (uint32_t)p->rows, 1, 256, 8 * SIGMA_CUDA_TOP_SLICE};
}
static inline sigma_cuda_launch sigma_cuda_launch_read(uint32_t multiprocessors) {
    return (sigma_cuda_launch){8 * multiprocessors, 1, 1, 256, 0};
}
static inline sigma_cuda_launch sigma_cuda_launch_peak(uint32_t multiprocessors) {
    return (sigma_cuda_launch){4 * multiprocessors, 1, 1, 256, 0};
}
// Multiply-adds of one block of threads in one iteration.
static inline uint64_t sigma_cuda_peak_int8_products(void) { return 8ull * SIGMA_CUDA_PEAK_CHAINS * 16 * 8 * 32; }
static inline uint64_t sigma_cuda_peak_fp32_products(void) { return 256ull * SIGMA_CUDA_PEAK_CHAINS; }

// What a key of `sigma_top` says.
static inline int32_t sigma_cuda_key_id(uint64_t key) { return (int32_t)(0xffffffffu - (uint32_t)key); }
static inline float sigma_cuda_key_logit(uint64_t key) {
    union {
        uint32_t bits;
        float value;
    } u;
    const uint32_t ordered = (uint32_t)(key >> 32);
    u.bits = ordered & 0x80000000u ? ordered & 0x7fffffffu : ~ordered;
    return u.value;
}

// MARK: - Sources

typedef struct {
    const char *name;
    const char *text;  // ends with a zero byte
    size_t length;     // without it
} sigma_cuda_source;

#ifdef __cplusplus
extern "C" {
#endif
// The first is the program, the others are the headers that it includes by name.
const sigma_cuda_source *sigma_cuda_sources(int32_t *count);
// Names of the program's kernels, ending with NULL.
const char *const *sigma_cuda_kernel_names(void);
// Options for the compiler beside --gpu-architecture=sm_XX, ending with NULL. -DSIGMA_HEAD_STEPS=N may be added: the program then has
// the attention kernels of that N alone.
const char *const *sigma_cuda_options(void);
#ifdef __cplusplus
}
#endif

#endif
#endif
