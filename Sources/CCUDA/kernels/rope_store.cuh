// RMSNorm per head, RoPE, and where queries, keys and values go: one warp for each row and head.
#pragma once

// One component of a key or value into its tile, as fp32 or fp16.
DEVICE void store_component(unsigned char *tile, const sigma_cuda_rope_store &p, bool is_value, int position, int component, float value) {
    unsigned char *place = tile + sigma_cuda_kv_offset(p.kv_type, p.head_dim, is_value, position, component);
    if (p.kv_type == TYPE_F32)
        *(float *)place = value;
    else
        *(unsigned short *)place = float_to_half(value);
}

// A head [head_dim] in 8 bits: scale max|x| / 127 per 32, rounded to nearest even.
DEVICE void store_bytes(unsigned char *tile, const sigma_cuda_rope_store &p, bool is_value, int position, const float *head) {
    for (int first = 0; first < p.head_dim; first += 32) {
        const int component = first + LANE;
        const float value = head[component];
        int most = (int)(as_bits(value) & 0x7fffffffu);
        UNROLLED for (int distance = 16; distance > 0; distance /= 2) most = max(most, shuffle_xor(most, distance));
        const float largest = as_float((unsigned)most);
        const float inverse = largest > 0.0f ? 127.0f / largest : 0.0f;
        const int q = (int)(as_bits(fmaf(value, inverse, 12582912.0f)) - 0x4b400000u);
        tile[sigma_cuda_kv_offset(TYPE_Q8_0, p.head_dim, is_value, position, component)] = (unsigned char)(q & 255);
        if (LANE == 0)
            *(unsigned short *)(tile + sigma_cuda_kv_scale_offset(p.head_dim, position, component)) = float_to_half(largest / 127.0f);
    }
}

SIGMA_KERNEL(sigma_rope_store, sigma_cuda_rope_store, 128, 4) {
    __shared__ float heads[4][SIGMA_CUDA_MAX_HEAD_DIM];
    const int index = (int)blockIdx.x * 4 + WARP, row = (int)blockIdx.y, d = p.head_dim;
    if (index >= p.heads + 2 * p.kv_heads) return;
    const bool is_query = index < p.heads, is_value = index >= p.heads + p.kv_heads;
    float *head = heads[WARP];
    const float *x = at<const float>(p.projections) + ((size_t)row * (p.heads + 2 * p.kv_heads) + index) * d;
    const sigma_cuda_row where = at<const sigma_cuda_row>(p.rows_address)[row];

    float squares = 0.0f;
    for (int i = LANE; i < d; i += 32) squares = fmaf(x[i], x[i], squares);
    const float *norm = is_value ? nullptr : at<const float>(is_query ? p.query_norm : p.key_norm);
    const float factor = norm ? 1.0f / sqrtf(warp_sum(squares) / (float)d + p.epsilon) : 1.0f;
    for (int i = LANE; i < d; i += 32) head[i] = norm ? x[i] * factor * norm[i] : x[i];
    sync_warp();
    if (!is_value) {
        const int half = d / 2;
        const float *cosines = at<const float>(p.cosines) + (size_t)where.position * half;
        const float *sines = at<const float>(p.sines) + (size_t)where.position * half;
        for (int i = LANE; i < half; i += 32) {
            const float first = head[i], second = head[i + half];
            head[i] = fmaf(first, cosines[i], -(second * sines[i]));
            head[i + half] = fmaf(second, cosines[i], first * sines[i]);
        }
        sync_warp();
    }

    const int padded = sigma_cuda_padded(d);
    if (is_query) {
        // Scores are powers of two: the logarithm's base goes into the scale.
        const float scale = 1.44269504f / sqrtf((float)d);
        const size_t first = ((size_t)row * p.heads + index) * padded;
        for (int i = LANE; i < padded; i += 32) {
            const float value = i < d ? head[i] * scale : 0.0f;
            if (p.kv_type == TYPE_F32)
                at<float>(p.queries)[first + i] = value;
            else
                at<unsigned short>(p.queries)[first + i] = float_to_half(value);
        }
        return;
    }
    const sigma_cuda_sequence sequence = at<const sigma_cuda_sequence>(p.sequences)[where.sequence];
    unsigned char *block = at<unsigned char>(at<const sigma_device>(sequence.blocks)[where.position / SIGMA_CUDA_SPLIT]);
    const int kv_head = index - p.heads - (is_value ? p.kv_heads : 0);
    const int tile_bytes = sigma_cuda_kv_tile_bytes(p.kv_type, d);
    unsigned char *tile = block + ((size_t)(p.layer * 2 + is_value) * p.kv_heads + kv_head) * (SIGMA_CUDA_SPLIT / 16) * tile_bytes
        + (size_t)(where.position % SIGMA_CUDA_SPLIT / 16) * tile_bytes;
    if (p.kv_type == TYPE_Q8_0) {
        store_bytes(tile, p, is_value, where.position % 16, head);
        return;
    }
    for (int i = LANE; i < padded; i += 32) store_component(tile, p, is_value, where.position % 16, i, i < d ? head[i] : 0.0f);
}
