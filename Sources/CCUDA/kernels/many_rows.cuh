// Products for many rows: a warp has 16 rows of weights and up to 64 rows of activations, which the block's four warps share. The sums are
// those of few_rows.cuh, bit for bit.
#pragma once

// Which rows a block of threads works on.
struct RowTile {
    int first, count;        // rows, or sorted slots
    const sigma_int *order;  // sorted slots, or NULL
    int divisor;             // input row = slot / divisor

    DEVICE_MEMBER int output(int i) const { return order ? order[first + i] : first + i; }
    DEVICE_MEMBER int input(int i) const { return order ? order[first + i] / divisor : first + i; }
};

// Blocks of a row of activations in shared memory: 26 times 16 bytes lead eight rows to different banks.
enum { STAGED_STRIDE = 26 };

// One group against a tile. `staged` holds a chunk of all rows. All threads of the block call it; active: this warp has a group.
template <int TYPE>
DEVICE void multiply_packed(const unsigned char *group, bool active, const sigma_cuda_input &input, const RowTile &tile, uint4 *staged,
                            float totals[SIGMA_CUDA_TILE_ROWS / 8][4]) {
    const int columns = input.columns, chunks = chunks_of(columns);
    const int g = LANE / 4, t = LANE % 4;
    UNROLLED for (int n = 0; n < SIGMA_CUDA_TILE_ROWS / 8; n++)
        UNROLLED for (int i = 0; i < 4; i++) totals[n][i] = 0.0f;
    for (int chunk = 0; chunk < chunks; chunk++) {
        const int count = blocks_in_chunk(columns, chunk);
        PackedChunk<TYPE> weights;
        if (active) weights.load(group, columns, chunk, count);
        sync_block();
        for (int item = (int)threadIdx.x; item < tile.count * 24; item += (int)blockDim.x) {
            const int row = item / 24, piece = item % 24;
            if (piece >= 3 * count) continue;
            const sigma_cuda_block *blocks = at<const sigma_cuda_block>(input.other) + (size_t)tile.input(row) * (columns / 32);
            staged[row * STAGED_STRIDE + piece] = ((const uint4 *)(blocks + 8 * chunk))[piece];
        }
        sync_block();
        if (!active) continue;
        float sums[SIGMA_CUDA_TILE_ROWS / 8][4];
        UNROLLED for (int n = 0; n < SIGMA_CUDA_TILE_ROWS / 8; n++)
            UNROLLED for (int i = 0; i < 4; i++) sums[n][i] = 0.0f;
        UNROLLED for (int b = 0; b < 8; b++) {
            if (b >= count) break;
            const PackedBlock<TYPE> w = weights.block(b);
            UNROLLED for (int n = 0; n < SIGMA_CUDA_TILE_ROWS / 8; n++) {
                if (8 * n >= tile.count) break;
                // Rows that do not exist repeat the last one.
                const uint4 *own = staged + min(8 * n + g, tile.count - 1) * STAGED_STRIDE + 3 * b;
                const uint4 *one = staged + min(8 * n + 2 * t, tile.count - 1) * STAGED_STRIDE + 3 * b;
                const uint4 *other = staged + min(8 * n + 2 * t + 1, tile.count - 1) * STAGED_STRIDE + 3 * b;
                const sigma_cuda_block *const pair[2] = {(const sigma_cuda_block *)one, (const sigma_cuda_block *)other};
                add_block(w, load_activations((const sigma_cuda_block *)own, pair), sums[n]);
            }
        }
        UNROLLED for (int n = 0; n < SIGMA_CUDA_TILE_ROWS / 8; n++)
            UNROLLED for (int i = 0; i < 4; i++) totals[n][i] += sums[n][i];
    }
}

DEVICE void write_output(const sigma_cuda_product &product, int row, int output, float total) {
    if (output >= product.matrix.rows) return;
    if (product.bias) total += at<const float>(product.bias)[output];
    float *y = at<float>(product.output) + (size_t)row * product.stride + output;
    *y = product.adds ? *y + total : total;
}

// Four outputs of float weights against eight rows of activations at a time.
DEVICE void multiply_floats(const sigma_cuda_product &product, const unsigned char *data, int group, const sigma_cuda_input &input,
                            const RowTile &tile) {
    const int type = product.matrix.type, columns = input.columns;
    const size_t row_bytes = (size_t)columns * float_bytes(type);
    const bool aligned = row_bytes % 16 == 0, aligned_input = columns % 4 == 0;
    for (int first = 16 * group; first < min(16 * group + 16, product.matrix.rows); first += 4) {
        const int outputs = min(4, product.matrix.rows - first);
        for (int row = 0; row < tile.count; row += 8) {
            const int rows = min(8, tile.count - row);
            float dots[8][4];
            UNROLLED for (int r = 0; r < 8; r++)
                UNROLLED for (int j = 0; j < 4; j++) dots[r][j] = 0.0f;
            for (int column = 8 * LANE; column < columns; column += SIGMA_CUDA_CHUNK) {
                float w[4][8];
                UNROLLED for (int j = 0; j < 4; j++)
                    load_eight(data + (size_t)(first + min(j, outputs - 1)) * row_bytes, type, column, columns, aligned, w[j]);
                UNROLLED for (int r = 0; r < 8; r++) {
                    if (r >= rows) break;
                    float x[8];
                    load_eight(at<const float>(input.values) + (size_t)tile.input(row + r) * columns, TYPE_F32, column, columns,
                               aligned_input, x);
                    UNROLLED for (int j = 0; j < 4; j++)
                        UNROLLED for (int i = 0; i < 8; i++) dots[r][j] = fmaf(w[j][i], x[i], dots[r][j]);
                }
            }
            UNROLLED for (int r = 0; r < 8; r++) {
                if (r >= rows) break;
                UNROLLED for (int j = 0; j < 4; j++) {
                    const float total = 0.0f + warp_sum(dots[r][j]);
                    if (LANE == 0 && j < outputs) write_output(product, tile.output(row + r), first + j, total);
                }
            }
        }
    }
}

SIGMA_KERNEL(sigma_multiply, sigma_cuda_multiply, 128, 2) {
    __shared__ uint4 staged[SIGMA_CUDA_TILE_ROWS * STAGED_STRIDE];
    int unit = (int)blockIdx.x, which = 0;
    for (;;) {
        const int units = ((p.products[which].matrix.rows + 15) / 16 + 3) / 4;
        if (unit < units) break;
        unit -= units;
        which++;
    }
    const sigma_cuda_product &product = p.products[which];
    RowTile tile;
    const unsigned char *data;
    if (p.records) {
        const sigma_cuda_expert_tile own = at<const sigma_cuda_expert_tile>(p.tiles)[blockIdx.y];
        if (own.count == 0) return;
        tile.first = own.first;
        tile.count = own.count;
        tile.order = at<const sigma_int>(p.order);
        tile.divisor = p.input_divisor;
        data = at<const unsigned char>(at<const sigma_device>(p.records)[own.expert]) + product.matrix.data;
    } else {
        tile.first = (int)blockIdx.y * SIGMA_CUDA_TILE_ROWS;
        tile.count = min((int)SIGMA_CUDA_TILE_ROWS, p.rows - tile.first);
        tile.order = nullptr;
        tile.divisor = 1;
        data = at<const unsigned char>(product.matrix.data);
    }
    const int group = 4 * unit + WARP;
    const bool active = 16 * group < product.matrix.rows;
    if (!is_packed(product.matrix.type)) {
        if (active) multiply_floats(product, data, group, p.input, tile);
        return;
    }
    float totals[SIGMA_CUDA_TILE_ROWS / 8][4];
    const unsigned char *own = data + (size_t)group * group_bytes(product.matrix.type, product.matrix.columns);
#define BODY(TYPE) multiply_packed<TYPE>(own, active, p.input, tile, staged, totals)
    FOR_PACKED_TYPE(product.matrix.type, BODY)
#undef BODY
    if (!active) return;
    const int g = LANE / 4, t = LANE % 4;
    UNROLLED for (int n = 0; n < SIGMA_CUDA_TILE_ROWS / 8; n++)
        UNROLLED for (int i = 0; i < 4; i++) {
            const int row = 8 * n + 2 * t + i % 2;
            if (row < tile.count) write_output(product, tile.output(row), 16 * group + 2 * g + i / 2, totals[n][i]);
        }
}
