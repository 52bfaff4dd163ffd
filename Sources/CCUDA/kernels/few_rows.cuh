// Products for at most SIGMA_CUDA_FEW_ROWS rows: a block of threads has 16 rows of weights, its warps share the chunks of columns. A warp
// asks for its weights first and prepares its part of the input while they come.
#pragma once

// The dynamic shared memory of these kernels (sigma_cuda_few_shared).
struct FewRowsMemory {
    float *sums;               // [chunks][16][rows]
    float *squares;            // [rows][chunks]
    sigma_cuda_block *blocks;  // [warps][rows][8]
};

DEVICE FewRowsMemory few_rows_memory(int chunks, int rows) {
    DYNAMIC_SHARED(float, shared);
    FewRowsMemory memory;
    memory.sums = shared;
    memory.squares = shared + chunks * 16 * rows;
    // Blocks are read 16 bytes at a time.
    memory.blocks = (sigma_cuda_block *)(shared + ((chunks * 17 * rows + 3) & ~3));
    return memory;
}

// Sums of one chunk of a group with `rows` rows of blocks at `blocks`, `stride` blocks apart: sums [16][rows].
template <int TYPE>
DEVICE void few_rows_chunk(const PackedChunk<TYPE> &weights, int count, const sigma_cuda_block *blocks, int stride, int rows, float *sums) {
    const int g = LANE / 4, t = LANE % 4;
    // Rows that do not exist repeat the last one, and what comes of them is dropped.
    const sigma_cuda_block *own = blocks + (size_t)min(g, rows - 1) * stride;
    const sigma_cuda_block *pair[2];
    UNROLLED for (int i = 0; i < 2; i++) pair[i] = blocks + (size_t)min(2 * t + i, rows - 1) * stride;
    float sum[4] = {0, 0, 0, 0};
    UNROLLED for (int b = 0; b < 8; b++) {
        if (b >= count) break;
        const sigma_cuda_block *const two[2] = {pair[0] + b, pair[1] + b};
        add_block(weights.block(b), load_activations(own + b, two), sum);
    }
    UNROLLED for (int i = 0; i < 4; i++)
        if (2 * t + i % 2 < rows) sums[(2 * g + i / 2) * rows + 2 * t + i % 2] = sum[i];
}

DEVICE int blocks_in_chunk(int columns, int chunk) { return min(8, columns / 32 - 8 * chunk); }

// All chunks of one group. first_row: of the input. All threads of the block call it.
template <int TYPE>
DEVICE void few_rows_packed(const unsigned char *group, const sigma_cuda_input &input, int first_row, int rows, const FewRowsMemory &memory) {
    const int columns = input.columns, chunks = chunks_of(columns);
    PackedChunk<TYPE> weights;
    int chunk = WARP;
    if (chunk < chunks) weights.load(group, columns, chunk, blocks_in_chunk(columns, chunk));
    measure_rows(input, first_row, rows, memory.squares);
    while (chunk < chunks) {
        const sigma_cuda_block *blocks;
        int stride = 8;
        if (input.kind == SIGMA_CUDA_PREPARED) {
            stride = columns / 32;
            blocks = at<const sigma_cuda_block>(input.other) + (size_t)first_row * stride + 8 * chunk;
        } else {
            sigma_cuda_block *own = memory.blocks + WARP * rows * 8;
            for (int row = 0; row < rows; row++)
                quantize_input(input, first_row + row, chunk, norm_factor(input, memory.squares, row), own + row * 8);
            sync_warp();
            blocks = own;
        }
        few_rows_chunk(weights, blocks_in_chunk(columns, chunk), blocks, stride, rows, memory.sums + chunk * 16 * rows);
        chunk += WARPS;
        if (chunk < chunks) weights.load(group, columns, chunk, blocks_in_chunk(columns, chunk));
        sync_warp();
    }
}

// One row of float weights against `rows` rows of the input: a lane adds up its columns, then the lanes are added.
DEVICE void float_dots(const void *weights, int type, const sigma_cuda_input &input, int first_row, int rows, const float *factors,
                       float dots[SIGMA_CUDA_FEW_ROWS]) {
    const int columns = input.columns;
    const bool aligned = columns * float_bytes(type) % 16 == 0;
    UNROLLED for (int row = 0; row < SIGMA_CUDA_FEW_ROWS; row++) dots[row] = 0.0f;
    for (int first = 8 * LANE; first < columns; first += SIGMA_CUDA_CHUNK) {
        float w[8];
        load_eight(weights, type, first, columns, aligned, w);
        UNROLLED for (int row = 0; row < SIGMA_CUDA_FEW_ROWS; row++) {
            if (row >= rows) break;
            float x[8];
            input_eight(input, first_row + row, first, factors[row], x);
            UNROLLED for (int i = 0; i < 8; i++) dots[row] = fmaf(w[i], x[i], dots[row]);
        }
    }
    UNROLLED for (int row = 0; row < SIGMA_CUDA_FEW_ROWS; row++)
        if (row < rows) dots[row] = warp_sum(dots[row]);
}

// The 16 rows of float weights of one group, of which `outputs` exist: sums [16][rows], as if of one chunk.
DEVICE void few_rows_floats(const unsigned char *group, int type, int outputs, const sigma_cuda_input &input, int first_row, int rows,
                            const FewRowsMemory &memory) {
    measure_rows(input, first_row, rows, memory.squares);
    float factors[SIGMA_CUDA_FEW_ROWS], dots[SIGMA_CUDA_FEW_ROWS];
    UNROLLED for (int row = 0; row < SIGMA_CUDA_FEW_ROWS; row++)
        factors[row] = row < rows ? norm_factor(input, memory.squares, row) : 0.0f;
    for (int output = WARP; output < outputs; output += WARPS) {
        float_dots(group + (size_t)output * input.columns * float_bytes(type), type, input, first_row, rows, factors, dots);
        if (LANE == 0) {
            UNROLLED for (int row = 0; row < SIGMA_CUDA_FEW_ROWS; row++)
                if (row < rows) memory.sums[output * rows + row] = dots[row];
        }
    }
}

// Sums of a group of a matrix, whatever its type; returns the number of chunks that they are in.
DEVICE int few_rows_group(const sigma_cuda_matrix &matrix, const unsigned char *data, int group, const sigma_cuda_input &input, int first_row,
                          int rows, const FewRowsMemory &memory) {
    if (is_packed(matrix.type)) {
        const unsigned char *own = data + (size_t)group * group_bytes(matrix.type, matrix.columns);
#define BODY(TYPE) few_rows_packed<TYPE>(own, input, first_row, rows, memory)
        FOR_PACKED_TYPE(matrix.type, BODY)
#undef BODY
        return chunks_of(matrix.columns);
    }
    const unsigned char *own = data + (size_t)group * 16 * matrix.columns * float_bytes(matrix.type);
    few_rows_floats(own, matrix.type, min(16, matrix.rows - 16 * group), input, first_row, rows, memory);
    return 1;
}

// Output j of a group and a row: chunks in order.
DEVICE float sum_of_chunks(const float *sums, int chunks, int rows, int j, int row) {
    float total = 0.0f;
    for (int chunk = 0; chunk < chunks; chunk++) total += sums[(chunk * 16 + j) * rows + row];
    return total;
}

SIGMA_KERNEL(sigma_project, sigma_cuda_project, 256, 2) {
    int group = (int)blockIdx.x, which = 0;
    for (;;) {
        const int groups = (p.products[which].matrix.rows + 15) / 16;
        if (group < groups) break;
        group -= groups;
        which++;
    }
    const sigma_cuda_product &product = p.products[which];
    const FewRowsMemory memory = few_rows_memory(chunks_of(p.input.columns), p.rows);
    sigma_cuda_input input = p.input;
    if (input.kind == SIGMA_CUDA_PREPARED && !is_packed(product.matrix.type)) input.kind = SIGMA_CUDA_FLOATS;
    const int chunks = few_rows_group(product.matrix, at<const unsigned char>(product.matrix.data), group, input, 0, p.rows, memory);
    sync_block();
    for (int item = (int)threadIdx.x; item < 16 * p.rows; item += (int)blockDim.x) {
        const int j = item % 16, row = item / 16, output = 16 * group + j;
        if (output >= product.matrix.rows) continue;
        float total = sum_of_chunks(memory.sums, chunks, p.rows, j, row);
        if (product.bias) total += at<const float>(product.bias)[output];
        float *y = at<float>(product.output) + (size_t)row * product.stride + output;
        *y = product.adds ? *y + total : total;
    }
}

SIGMA_KERNEL(sigma_expert_gate, sigma_cuda_expert_gate, 256, 2) {
    const int slot = (int)blockIdx.y, groups = (p.gate_matrix.rows + 15) / 16;
    const bool is_up = (int)blockIdx.x >= groups;
    const sigma_cuda_matrix &matrix = is_up ? p.up_matrix : p.gate_matrix;
    const int group = (int)blockIdx.x - (is_up ? groups : 0);
    const FewRowsMemory memory = few_rows_memory(chunks_of(p.input.columns), 1);
    sigma_cuda_input input = p.input;
    if (input.kind == SIGMA_CUDA_PREPARED && !is_packed(matrix.type)) input.kind = SIGMA_CUDA_FLOATS;
    const unsigned char *record = at<const unsigned char>(at<const sigma_device>(p.records)[at<const sigma_int>(p.chosen)[slot]]);
    const int chunks = few_rows_group(matrix, record + matrix.data, group, input, slot / p.choices, 1, memory);
    sync_block();
    const int output = 16 * group + (int)threadIdx.x;
    if (threadIdx.x < 16 && output < matrix.rows)
        at<float>(is_up ? p.up : p.gate)[(size_t)slot * matrix.rows + output] =
            sum_of_chunks(memory.sums, chunks, 1, (int)threadIdx.x, 0);
}

// One of the MLPs that are added up for a row.
struct DownTask {
    sigma_cuda_input input;
    const unsigned char *data;
    int row;  // of the input
};

DEVICE DownTask down_task(const sigma_cuda_expert_down &p, int row, int choice) {
    DownTask task;
    const bool is_shared = choice == p.choices;
    const int slot = row * p.choices + choice;
    task.input.kind = SIGMA_CUDA_GATED;
    task.input.columns = is_shared ? p.shared.columns : p.down.columns;
    task.input.values = is_shared ? p.shared_gate : p.gate;
    task.input.other = is_shared ? p.shared_up : p.up;
    task.input.epsilon = 0.0f;
    task.row = is_shared ? row : slot;
    task.data = is_shared ? at<const unsigned char>(p.shared.data)
                          : at<const unsigned char>(at<const sigma_device>(p.records)[at<const sigma_int>(p.chosen)[slot]]) + p.down.data;
    return task;
}

// The chunk `chunk` of `task`, of a group of a packed matrix.
template <int TYPE>
DEVICE void down_chunk(const DownTask &task, int group, int chunk, sigma_cuda_block *blocks, float *sums) {
    const int columns = task.input.columns, count = blocks_in_chunk(columns, chunk);
    PackedChunk<TYPE> weights;
    weights.load(task.data + (size_t)group * group_bytes(TYPE, columns), columns, chunk, count);
    quantize_input(task.input, task.row, chunk, 1.0f, blocks);
    sync_warp();
    few_rows_chunk(weights, count, blocks, 8, 1, sums);
    sync_warp();
}

SIGMA_KERNEL(sigma_expert_down, sigma_cuda_expert_down, 256, 2) {
    const int group = (int)blockIdx.x, row = (int)blockIdx.y;
    const int hidden = p.choices ? p.down.rows : p.shared.rows;
    const int each = p.choices ? chunks_of(p.down.columns) : 0, of_shared = p.shared.data ? chunks_of(p.shared.columns) : 0;
    const int total = p.choices * each + of_shared;
    const FewRowsMemory memory = few_rows_memory(total, 1);
    const int outputs = min(16, hidden - 16 * group);
    // Packed matrices chunk by chunk; float ones output by output, as if of one chunk. The sums of an MLP begin at its first chunk's.
    for (int item = WARP; item < total; item += WARPS) {
        const int choice = each && item < p.choices * each ? item / each : p.choices;
        const sigma_cuda_matrix &matrix = choice < p.choices ? p.down : p.shared;
        if (!is_packed(matrix.type)) continue;
        const DownTask task = down_task(p, row, choice);
#define BODY(TYPE) down_chunk<TYPE>(task, group, item - choice * each, memory.blocks + WARP * 8, memory.sums + item * 16)
        FOR_PACKED_TYPE(matrix.type, BODY)
#undef BODY
    }
    for (int choice = 0; choice <= p.choices; choice++) {
        const bool is_shared = choice == p.choices;
        const sigma_cuda_matrix &matrix = is_shared ? p.shared : p.down;
        if ((is_shared && !of_shared) || is_packed(matrix.type)) continue;
        const DownTask task = down_task(p, row, choice);
        const float factors[SIGMA_CUDA_FEW_ROWS] = {1.0f};
        for (int j = WARP; j < outputs; j += WARPS) {
            float dots[SIGMA_CUDA_FEW_ROWS];
            const unsigned char *w = task.data + (size_t)(16 * group + j) * matrix.columns * float_bytes(matrix.type);
            float_dots(w, matrix.type, task.input, task.row, 1, factors, dots);
            if (LANE == 0) memory.sums[choice * each * 16 + j] = dots[0];
        }
    }
    sync_block();
    const int j = (int)threadIdx.x;
    if (j >= outputs) return;
    float sum = 0.0f;
    for (int choice = 0; choice < p.choices; choice++) {
        const float y = sum_of_chunks(memory.sums + choice * each * 16, is_packed(p.down.type) ? each : 1, 1, j, 0);
        sum = fmaf(at<const float>(p.weights)[row * p.choices + choice], y, sum);
    }
    if (of_shared)
        sum += sum_of_chunks(memory.sums + p.choices * each * 16, is_packed(p.shared.type) ? of_shared : 1, 1, j, 0);
    at<float>(p.residual)[(size_t)row * hidden + 16 * group + j] += sum;
}
