// A product's input: RMSNorm, silu(gate) * up, and 8-bit activations. Who needs it computes it, always with the same bits.
#pragma once

DEVICE int chunks_of(int columns) { return (columns + SIGMA_CUDA_CHUNK - 1) / SIGMA_CUDA_CHUNK; }

// Sum of squares of one chunk of a row. A lane has eight successive columns of a chunk.
DEVICE float chunk_squares(const float *row, int chunk, int columns) {
    float v[8];
    load_eight(row, TYPE_F32, chunk * SIGMA_CUDA_CHUNK + 8 * LANE, columns, columns % 4 == 0, v);
    float sum = 0.0f;
    UNROLLED for (int i = 0; i < 8; i++) sum = fmaf(v[i], v[i], sum);
    return warp_sum(sum);
}

// Of a normed input's rows: squares [rows, chunks] in shared memory. All threads of the block call it.
DEVICE void measure_rows(const sigma_cuda_input &input, int first_row, int rows, float *squares) {
    if (input.kind != SIGMA_CUDA_NORMED) return;
    const int chunks = chunks_of(input.columns);
    for (int item = WARP; item < rows * chunks; item += WARPS) {
        const float *row = at<const float>(input.values) + (size_t)(first_row + item / chunks) * input.columns;
        const float sum = chunk_squares(row, item % chunks, input.columns);
        if (LANE == 0) squares[item] = sum;
    }
    sync_block();
}

// 1 / rms of row `row` of those measured.
DEVICE float norm_factor(const sigma_cuda_input &input, const float *squares, int row) {
    if (input.kind != SIGMA_CUDA_NORMED) return 1.0f;
    const int chunks = chunks_of(input.columns);
    float total = 0.0f;
    for (int chunk = 0; chunk < chunks; chunk++) total += squares[row * chunks + chunk];
    return 1.0f / sqrtf(total / (float)input.columns + input.epsilon);
}

// Columns first ..< first + 8 of a row of the input, zeros after its end.
DEVICE void input_eight(const sigma_cuda_input &input, int row, int first, float factor, float v[8]) {
    const bool aligned = input.columns % 4 == 0;
    load_eight(at<const float>(input.values) + (size_t)row * input.columns, TYPE_F32, first, input.columns, aligned, v);
    if (input.kind == SIGMA_CUDA_NORMED) {
        float weight[8];
        load_eight(at<const float>(input.other), TYPE_F32, first, input.columns, aligned, weight);
        UNROLLED for (int i = 0; i < 8; i++) v[i] = v[i] * factor * weight[i];
    } else if (input.kind == SIGMA_CUDA_GATED) {
        float up[8];
        load_eight(at<const float>(input.other) + (size_t)row * input.columns, TYPE_F32, first, input.columns, aligned, up);
        UNROLLED for (int i = 0; i < 8; i++) v[i] = silu(v[i]) * up[i];
    }
}

// A warp's 256 values, eight a lane, to 8 blocks of 8 bits. Only the first `count` blocks are written.
DEVICE void quantize_chunk(const float v[8], int count, sigma_cuda_block *blocks) {
    // The maximum of magnitudes as integers has the same order, and not-a-number above all: it makes the scale so too.
    int most = 0;
    UNROLLED for (int i = 0; i < 8; i++) most = max(most, (int)(as_bits(v[i]) & 0x7fffffffu));
    most = max(most, shuffle_xor(most, 1));
    most = max(most, shuffle_xor(most, 2));
    const float largest = as_float((unsigned)most);
    const float inverse = largest > 0.0f ? 127.0f / largest : 0.0f;
    unsigned words[2] = {0, 0};
    int sum = 0;
    UNROLLED for (int i = 0; i < 8; i++) {
        const int q = (int)(as_bits(fmaf(v[i], inverse, 12582912.0f)) - 0x4b400000u);
        words[i / 4] |= ((unsigned)q & 255u) << 8 * (i % 4);
        sum += q;
    }
    sum += shuffle_xor(sum, 1);
    const int other = shuffle_xor(sum, 2);
    const int quarter = LANE % 4;
    sigma_cuda_block *block = blocks + LANE / 4;
    if (LANE / 4 >= count) return;
    unsigned *q = (unsigned *)block->q + quarter % 2 * 4 + quarter / 2;
    q[0] = words[0];
    q[2] = words[1];
    if (quarter == 0) {
        block->scale = largest / 127.0f;
        block->scaled_sum = block->scale * (float)(sum + other);
        block->sum = sum + other;
        block->first = sum;
    }
}

// One chunk of a row of the input as blocks. All lanes of a warp call it.
DEVICE void quantize_input(const sigma_cuda_input &input, int row, int chunk, float factor, sigma_cuda_block *blocks) {
    float v[8];
    input_eight(input, row, chunk * SIGMA_CUDA_CHUNK + 8 * LANE, factor, v);
    quantize_chunk(v, min(8, input.columns / 32 - 8 * chunk), blocks);
}
