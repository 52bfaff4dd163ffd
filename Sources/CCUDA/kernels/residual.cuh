// Kernels on rows of the residual stream: embedding, inputs of products, and the sum over a row's experts.
#pragma once

// Column `column` of row `r` of a group, rounded step by step as the file's description has it.
DEVICE float dequantize(int type, const unsigned char *group, int r, int columns, int column) {
    const int b = column / 32, c = column % 32;
    const unsigned char *v = group + (size_t)b * value_bytes(type);
    const unsigned char *s = group + (size_t)(columns / 32) * value_bytes(type);
    if (type == TYPE_Q8_0) {
        const float d = half_to_float(*(const unsigned short *)(s + 32 * b + 2 * r));
        return d * (float)((int)v[64 * (c / 4) + 4 * r + c % 4] - 128);
    }
    int q = v[64 * (c % 16 / 4) + 4 * r + c % 4];
    q = c < 16 ? q & 15 : q >> 4;
    if (type == TYPE_Q4_0) return half_to_float(*(const unsigned short *)(s + 32 * b + 2 * r)) * (float)(q - 8);
    if (type == TYPE_Q4_K) {
        s += (size_t)(b / 8) * 256;
        const unsigned char *pair = s + 64 + 48 * (b % 8 / 2) + r;
        const int low = pair[16 * (b % 2)], high = pair[32] >> 4 * (b % 2);
        const float d = half_to_float(*(const unsigned short *)(s + 2 * r)) * (float)((low & 15) | (high & 3) << 4);
        const float m = half_to_float(*(const unsigned short *)(s + 32 + 2 * r)) * (float)(low >> 4 | (high >> 2 & 3) << 4);
        return d * (float)q - m;
    }
    const int pairs = v[256 + 64 * (c / 16) + 4 * r + c % 4];
    q |= (pairs >> 2 * (c % 16 / 4) & 3) << 4;
    s += (size_t)(b / 8) * 288;
    const float scale = (float)(signed char)s[32 + 16 * (2 * (b % 8) + c / 16) + r];
    return half_to_float(*(const unsigned short *)(s + 2 * r)) * scale * (float)(q - 32);
}

SIGMA_KERNEL(sigma_embed, sigma_cuda_embed, 256, 4) {
    const int columns = p.embedding.columns, type = p.embedding.type;
    const int token = at<const sigma_cuda_row>(p.rows_address)[blockIdx.x].token;
    const unsigned char *data = at<const unsigned char>(p.embedding.data);
    float *y = at<float>(p.residual) + (size_t)blockIdx.x * columns;
    for (int column = (int)threadIdx.x; column < columns; column += (int)blockDim.x)
        y[column] = is_packed(type) ? dequantize(type, data + (size_t)(token / 16) * group_bytes(type, columns), token % 16, columns, column)
                                    : float_at(data + (size_t)token * columns * float_bytes(type), type, column);
}

SIGMA_KERNEL(sigma_prepare, sigma_cuda_prepare, 256, 4) {
    DYNAMIC_SHARED(float, squares);
    const int row = (int)blockIdx.x, columns = p.input.columns;
    measure_rows(p.input, row, 1, squares);
    const float factor = norm_factor(p.input, squares, 0);
    for (int chunk = WARP; chunk < chunks_of(columns); chunk += WARPS) {
        float v[8];
        const int first = chunk * SIGMA_CUDA_CHUNK + 8 * LANE;
        input_eight(p.input, row, first, factor, v);
        if (p.floats) {
            UNROLLED for (int i = 0; i < 8; i++)
                if (first + i < columns) at<float>(p.floats)[(size_t)row * columns + first + i] = v[i];
        }
        if (p.blocks)
            quantize_chunk(v, min(8, columns / 32 - 8 * chunk),
                           at<sigma_cuda_block>(p.blocks) + (size_t)row * (columns / 32) + 8 * chunk);
    }
}

SIGMA_KERNEL(sigma_combine, sigma_cuda_combine, 256, 4) {
    const int column = (int)(blockIdx.x * blockDim.x + threadIdx.x), row = (int)blockIdx.y;
    if (column >= p.hidden) return;
    float sum = 0.0f;
    for (int slot = row * p.choices; slot < (row + 1) * p.choices; slot++)
        sum = fmaf(at<const float>(p.weights)[slot], at<const float>(p.outputs)[(size_t)slot * p.hidden + column], sum);
    if (p.shared) sum += at<const float>(p.shared)[(size_t)row * p.hidden + column];
    at<float>(p.residual)[(size_t)row * p.hidden + column] += sum;
}
