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

// Activations go through shared memory four blocks of 32 columns at a time, the next ones while these are multiplied. 14 times 16 bytes
// from row to row lead four rows to different banks.
enum { PIECE = 4, STAGED_STRIDE = 14, STAGED = SIGMA_CUDA_TILE_ROWS * STAGED_STRIDE };

// Asks for blocks PIECE * piece ... of all rows of the tile. Rows up to the next multiple of 8 repeat the last one.
DEVICE void stage_piece(const sigma_cuda_input &input, const RowTile &tile, int piece, uint4 *staged) {
    const int blocks = input.columns / 32, count = 3 * min((int)PIECE, blocks - PIECE * piece);
    for (int item = (int)threadIdx.x; item < ((tile.count + 7) & ~7) * 3 * PIECE; item += (int)blockDim.x) {
        const int row = item / (3 * PIECE), part = item % (3 * PIECE);
        if (part >= count) continue;
        const sigma_cuda_block *from = at<const sigma_cuda_block>(input.other) + (size_t)tile.input(min(row, tile.count - 1)) * blocks;
        copy_async(staged + row * STAGED_STRIDE + part, (const uint4 *)(from + PIECE * piece) + part);
    }
    end_copies();
}

// One group against a tile. `staged` has room for two pieces. All threads of the block call it; active: this warp has a group.
template <int TYPE>
DEVICE void multiply_packed(const unsigned char *group, bool active, const sigma_cuda_input &input, const RowTile &tile, uint4 *staged,
                            float totals[SIGMA_CUDA_TILE_ROWS / 8][4]) {
    const int columns = input.columns, blocks = columns / 32, pieces = (blocks + PIECE - 1) / PIECE;
    const int g = LANE / 4, t = LANE % 4;
    float sums[SIGMA_CUDA_TILE_ROWS / 8][4];
    UNROLLED for (int n = 0; n < SIGMA_CUDA_TILE_ROWS / 8; n++)
        UNROLLED for (int i = 0; i < 4; i++) totals[n][i] = sums[n][i] = 0.0f;
    // Weights come one block ahead.
    PackedWords<TYPE> next;
    if (active) next.load(group, columns, 0);
    stage_piece(input, tile, 0, staged);
    NOT_UNROLLED for (int piece = 0; piece < pieces; piece++) {
        if (piece + 1 < pieces) {
            stage_piece(input, tile, piece + 1, staged + (piece + 1) % 2 * STAGED);
            wait_for_copies<1>();
        } else {
            wait_for_copies<0>();
        }
        sync_block();
        const int end = min(blocks, PIECE * (piece + 1));
        NOT_UNROLLED for (int b = PIECE * piece; active && b < end; b++) {
            const PackedBlock<TYPE> w = next.block(b % 2);
            if (b + 1 < blocks) next.load(group, columns, b + 1);
            const uint4 *own = staged + piece % 2 * STAGED + b % PIECE * 3;
            UNROLLED for (int n = 0; n < SIGMA_CUDA_TILE_ROWS / 8; n++) {
                if (8 * n >= tile.count) break;
                const sigma_cuda_block *const pair[2] = {(const sigma_cuda_block *)(own + (8 * n + 2 * t) * STAGED_STRIDE),
                                                         (const sigma_cuda_block *)(own + (8 * n + 2 * t + 1) * STAGED_STRIDE)};
                add_block(w, load_activations((const sigma_cuda_block *)(own + (8 * n + g) * STAGED_STRIDE), pair), sums[n]);
            }
        }
        // A chunk ends.
        if (end % (SIGMA_CUDA_CHUNK / 32) == 0 || end == blocks) {
            UNROLLED for (int n = 0; n < SIGMA_CUDA_TILE_ROWS / 8; n++)
                UNROLLED for (int i = 0; i < 4; i++) {
                    totals[n][i] += sums[n][i];
                    sums[n][i] = 0.0f;
                }
        }
        sync_block();
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
    __shared__ uint4 staged[2 * STAGED];
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
