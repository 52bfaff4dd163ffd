// Products of packed weights (docs/model-file.md, "Packed matrices") with 8-bit activations on tensor cores.
//
// A word of a group is four successive columns of one row, which is what a lane holds of the first operand of a product of bytes. A warp
// takes a group's 16 rows so that lane 4 g + t has rows 2 g and 2 g + 1, which lie side by side: every load is 8 bytes a lane, 64 a row of
// lanes, and nothing is moved afterwards. An output's sum runs over the blocks of 32 columns of a chunk of 256 in order; chunks are added in order.
#pragma once

DEVICE int value_bytes(int type) { return type == TYPE_Q8_0 ? 512 : type == TYPE_Q6_K ? 384 : 256; }
// Bytes of a group's scales for 256 columns, or for 32 where a block has its own.
DEVICE size_t scale_region(int type, int columns) {
    return type == TYPE_Q6_K ? (size_t)(columns / 256) * 288 : type == TYPE_Q4_K ? (size_t)(columns / 256) * 256 : (size_t)columns;
}
DEVICE size_t group_bytes(int type, int columns) {
    return ((size_t)(columns / 32) * value_bytes(type) + scale_region(type, columns) + 63) & ~(size_t)63;
}

DEVICE float low_half(unsigned word) { return half_to_float((unsigned short)(word & 0xffff)); }
DEVICE float high_half(unsigned word) { return half_to_float((unsigned short)(word >> 16)); }
DEVICE unsigned load_pair(const unsigned char *p) { return *(const unsigned short *)p; }

// One block of 32 columns of two rows, ready to be multiplied.
template <int TYPE>
struct PackedBlock {
    unsigned a[4];
    float factor[TYPE == TYPE_Q6_K ? 4 : 2];    // rows 2 g, 2 g + 1; of q6_k for either half
    float minimum[TYPE == TYPE_Q4_K ? 2 : 1];
};

// A chunk of a group as it lies in memory: what is asked for long before it is used.
template <int TYPE>
struct PackedChunk {
    static constexpr int VALUES = TYPE == TYPE_Q8_0 ? 2 : TYPE == TYPE_Q6_K ? 3 : 1;
    static constexpr int SCALES = TYPE == TYPE_Q4_K ? 14 : TYPE == TYPE_Q6_K ? 17 : 8;
    uint2 values[8][VALUES];
    unsigned scales[SCALES];

    // `count` blocks of 32 columns, from column 256 * chunk on. For k-quants count is 8.
    DEVICE_MEMBER void load(const unsigned char *group, int columns, int chunk, int count) {
        const int g = LANE / 4, t = LANE % 4;
        const unsigned char *v = group + (size_t)chunk * 8 * value_bytes(TYPE) + 8 * g;
        UNROLLED for (int b = 0; b < 8; b++, v += value_bytes(TYPE)) {
            if (b >= count) break;
            values[b][0] = load_weights2(v + 64 * t);
            if (TYPE == TYPE_Q8_0) values[b][VALUES > 1 ? 1 : 0] = load_weights2(v + 256 + 64 * t);
            if (TYPE == TYPE_Q6_K) {
                values[b][VALUES > 1 ? 1 : 0] = load_weights2(v + 256);
                values[b][VALUES > 2 ? 2 : 0] = load_weights2(v + 320);
            }
        }
        const unsigned char *s = group + (size_t)(columns / 32) * value_bytes(TYPE);
        if (TYPE == TYPE_Q4_K) {
            s += (size_t)chunk * 256;
            scales[0] = *(const unsigned *)(s + 4 * g);
            scales[1] = *(const unsigned *)(s + 32 + 4 * g);
            UNROLLED for (int i = 0; i < 12; i++) scales[SCALES > 12 ? 2 + i : 0] = load_pair(s + 64 + 16 * i + 2 * g);
        } else if (TYPE == TYPE_Q6_K) {
            s += (size_t)chunk * 288;
            scales[0] = *(const unsigned *)(s + 4 * g);
            UNROLLED for (int i = 0; i < 16; i++) scales[SCALES > 16 ? 1 + i : 0] = load_pair(s + 32 + 16 * i + 2 * g);
        } else {
            s += (size_t)chunk * 256;
            UNROLLED for (int b = 0; b < 8; b++)
                if (b < count) scales[b] = *(const unsigned *)(s + 32 * b + 4 * g);
        }
    }

    DEVICE_MEMBER PackedBlock<TYPE> block(int b) const {
        PackedBlock<TYPE> w;
        const unsigned x = values[b][0].x, y = values[b][0].y;
        if (TYPE == TYPE_Q8_0) {
            w.a[0] = x;
            w.a[1] = y;
            w.a[2] = values[b][VALUES > 1 ? 1 : 0].x;
            w.a[3] = values[b][VALUES > 1 ? 1 : 0].y;
        } else {
            w.a[0] = x & 0x0f0f0f0fu;
            w.a[1] = y & 0x0f0f0f0fu;
            w.a[2] = x >> 4 & 0x0f0f0f0fu;
            w.a[3] = y >> 4 & 0x0f0f0f0fu;
        }
        if (TYPE == TYPE_Q6_K) {
            const int field = 2 * (LANE % 4);
            const uint2 first = values[b][VALUES > 1 ? 1 : 0], second = values[b][VALUES > 2 ? 2 : 0];
            w.a[0] |= (first.x >> field & 0x03030303u) << 4;
            w.a[1] |= (first.y >> field & 0x03030303u) << 4;
            w.a[2] |= (second.x >> field & 0x03030303u) << 4;
            w.a[3] |= (second.y >> field & 0x03030303u) << 4;
        }
        if (TYPE == TYPE_Q4_K) {
            const unsigned low = scales[SCALES > 12 ? 2 + b / 2 * 3 + b % 2 : 0];
            const unsigned high = scales[SCALES > 12 ? 2 + b / 2 * 3 + 2 : 0] >> 4 * (b % 2);
            UNROLLED for (int r = 0; r < 2; r++) {
                const unsigned l = low >> 8 * r, h = high >> 8 * r;
                const float d = r ? high_half(scales[0]) : low_half(scales[0]);
                const float m = r ? high_half(scales[1]) : low_half(scales[1]);
                w.factor[r] = (float)(int)((l & 15) | (h & 3) << 4) * d;
                w.minimum[TYPE == TYPE_Q4_K ? r : 0] = (float)(int)((l >> 4 & 15) | (h >> 2 & 3) << 4) * m;
            }
        } else if (TYPE == TYPE_Q6_K) {
            UNROLLED for (int half = 0; half < 2; half++) {
                const unsigned pair = scales[SCALES > 16 ? 1 + 2 * b + half : 0];
                w.factor[TYPE == TYPE_Q6_K ? 2 * half : 0] = low_half(scales[0]) * (float)(signed char)(pair & 255);
                w.factor[TYPE == TYPE_Q6_K ? 2 * half + 1 : 1] = high_half(scales[0]) * (float)(signed char)(pair >> 8);
            }
        } else {
            w.factor[0] = low_half(scales[b]);
            w.factor[1] = high_half(scales[b]);
        }
        return w;
    }
};

// What a lane needs of 8 rows of activations: of row g its bytes, of rows 2 t and 2 t + 1 the numbers beside them.
struct ActivationFragment {
    unsigned b0, b1;
    float scale[2], scaled_sum[2];
    int sum[2], first[2];
};

// own: the block of row g; pair: those of rows 2 t and 2 t + 1.
DEVICE ActivationFragment load_activations(const sigma_cuda_block *own, const sigma_cuda_block *const pair[2]) {
    ActivationFragment f;
    const uint2 bytes = *(const uint2 *)(own->q + 8 * (LANE % 4));
    f.b0 = bytes.x;
    f.b1 = bytes.y;
    UNROLLED for (int i = 0; i < 2; i++) {
        const uint4 numbers = *(const uint4 *)&pair[i]->scale;
        f.scale[i] = as_float(numbers.x);
        f.scaled_sum[i] = as_float(numbers.y);
        f.sum[i] = (int)numbers.z;
        f.first[i] = (int)numbers.w;
    }
    return f;
}

// sums: rows 2 g (activations 2 t, 2 t + 1), then 2 g + 1.
template <int TYPE>
DEVICE void add_block(const PackedBlock<TYPE> &w, const ActivationFragment &x, float sums[4]) {
    // What the weights' zero point takes off is where the exact sum begins.
    constexpr int zero = TYPE == TYPE_Q8_0 ? 128 : TYPE == TYPE_Q4_0 ? 8 : TYPE == TYPE_Q6_K ? 32 : 0;
    if (TYPE == TYPE_Q6_K) {
        UNROLLED for (int half = 0; half < 2; half++) {
            int c[4];
            UNROLLED for (int i = 0; i < 4; i++) c[i] = -zero * (half ? x.sum[i % 2] - x.first[i % 2] : x.first[i % 2]);
            mma_bytes_16(c, w.a[2 * half], w.a[2 * half + 1], half ? x.b1 : x.b0);
            UNROLLED for (int i = 0; i < 4; i++)
                sums[i] = fmaf((float)c[i], w.factor[TYPE == TYPE_Q6_K ? 2 * half + i / 2 : i / 2] * x.scale[i % 2], sums[i]);
        }
        return;
    }
    int c[4];
    UNROLLED for (int i = 0; i < 4; i++) c[i] = -zero * x.sum[i % 2];
    mma_bytes_32(c, w.a[0], w.a[1], w.a[2], w.a[3], x.b0, x.b1);
    UNROLLED for (int i = 0; i < 4; i++) {
        sums[i] = fmaf((float)c[i], w.factor[i / 2] * x.scale[i % 2], sums[i]);
        if (TYPE == TYPE_Q4_K) sums[i] = fmaf(-w.minimum[TYPE == TYPE_Q4_K ? i / 2 : 0], x.scaled_sum[i % 2], sums[i]);
    }
}

// Runs `body<TYPE>` for the type of packed weights.
#define FOR_PACKED_TYPE(type, body) \
    switch (type) { \
    case TYPE_Q8_0: body(TYPE_Q8_0); break; \
    case TYPE_Q4_0: body(TYPE_Q4_0); break; \
    case TYPE_Q4_K: body(TYPE_Q4_K); break; \
    default: body(TYPE_Q6_K); break; \
    }
