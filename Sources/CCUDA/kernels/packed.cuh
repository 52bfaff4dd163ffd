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
    float factor[TYPE == TYPE_Q6_K ? 4 : 2];  // rows 2 g, 2 g + 1; of q6_k of the first 16 columns, then of the others
    float minimum[TYPE == TYPE_Q4_K ? 2 : 1];
};

// The same as it lies in memory: what is asked for before it is used.
template <int TYPE>
struct PackedWords {
    uint2 values[TYPE == TYPE_Q8_0 ? 2 : TYPE == TYPE_Q6_K ? 3 : 1];
    unsigned scales[TYPE == TYPE_Q4_K ? 4 : TYPE == TYPE_Q6_K ? 3 : 1];

    // Block `b` of a group's row.
    DEVICE_MEMBER void load(const unsigned char *group, int columns, int b) {
        const int g = LANE / 4, t = LANE % 4;
        const unsigned char *v = group + (size_t)b * value_bytes(TYPE) + 8 * g;
        const unsigned char *s = group + (size_t)(columns / 32) * value_bytes(TYPE);
        values[0] = load_weights2(v + 64 * t);
        if constexpr (TYPE == TYPE_Q8_0) values[1] = load_weights2(v + 256 + 64 * t);
        if constexpr (TYPE == TYPE_Q6_K) {
            values[1] = load_weights2(v + 256);
            values[2] = load_weights2(v + 320);
        }
        if constexpr (TYPE == TYPE_Q4_K) {
            s += (size_t)(b / 8) * 256;
            const unsigned char *pair = s + 64 + b % 8 / 2 * 48 + 2 * g;
            scales[0] = *(const unsigned *)(s + 4 * g);
            scales[1] = *(const unsigned *)(s + 32 + 4 * g);
            scales[2] = load_pair(pair + b % 2 * 16);
            scales[3] = load_pair(pair + 32);
        } else if constexpr (TYPE == TYPE_Q6_K) {
            s += (size_t)(b / 8) * 288;
            scales[0] = *(const unsigned *)(s + 4 * g);
            UNROLLED for (int half = 0; half < 2; half++) scales[1 + half] = load_pair(s + 32 + 16 * (2 * (b % 8) + half) + 2 * g);
        } else {
            scales[0] = *(const unsigned *)(s + (size_t)32 * b + 4 * g);
        }
    }

    // is_odd: of the block's number.
    DEVICE_MEMBER PackedBlock<TYPE> block(int is_odd) const {
        PackedBlock<TYPE> w;
        const unsigned x = values[0].x, y = values[0].y;
        if constexpr (TYPE == TYPE_Q8_0) {
            w.a[0] = x;
            w.a[1] = y;
            w.a[2] = values[1].x;
            w.a[3] = values[1].y;
        } else {
            w.a[0] = x & 0x0f0f0f0fu;
            w.a[1] = y & 0x0f0f0f0fu;
            w.a[2] = x >> 4 & 0x0f0f0f0fu;
            w.a[3] = y >> 4 & 0x0f0f0f0fu;
        }
        if constexpr (TYPE == TYPE_Q6_K) {
            const int field = 2 * (LANE % 4);
            w.a[0] |= (values[1].x >> field & 0x03030303u) << 4;
            w.a[1] |= (values[1].y >> field & 0x03030303u) << 4;
            w.a[2] |= (values[2].x >> field & 0x03030303u) << 4;
            w.a[3] |= (values[2].y >> field & 0x03030303u) << 4;
        }
        const float d[2] = {low_half(scales[0]), high_half(scales[0])};
        if constexpr (TYPE == TYPE_Q4_K) {
            const float m[2] = {low_half(scales[1]), high_half(scales[1])};
            UNROLLED for (int r = 0; r < 2; r++) {
                const unsigned low = scales[2] >> 8 * r, high = scales[3] >> (8 * r + 4 * is_odd);
                w.factor[r] = (float)(int)((low & 15) | (high & 3) << 4) * d[r];
                w.minimum[r] = (float)(int)((low >> 4 & 15) | (high >> 2 & 3) << 4) * m[r];
            }
        } else if constexpr (TYPE == TYPE_Q6_K) {
            UNROLLED for (int half = 0; half < 2; half++) {
                w.factor[2 * half] = d[0] * (float)(signed char)(scales[1 + half] & 255);
                w.factor[2 * half + 1] = d[1] * (float)(signed char)(scales[1 + half] >> 8);
            }
        } else {
            w.factor[0] = d[0];
            w.factor[1] = d[1];
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
    if constexpr (TYPE == TYPE_Q6_K) {
        UNROLLED for (int half = 0; half < 2; half++) {
            int c[4];
            UNROLLED for (int i = 0; i < 4; i++) c[i] = -zero * (half ? x.sum[i % 2] - x.first[i % 2] : x.first[i % 2]);
            mma_bytes_16(c, w.a[2 * half], w.a[2 * half + 1], half ? x.b1 : x.b0);
            UNROLLED for (int i = 0; i < 4; i++) sums[i] = fmaf((float)c[i], w.factor[2 * half + i / 2] * x.scale[i % 2], sums[i]);
        }
    } else {
        int c[4];
        UNROLLED for (int i = 0; i < 4; i++) c[i] = -zero * x.sum[i % 2];
        mma_bytes_32(c, w.a[0], w.a[1], w.a[2], w.a[3], x.b0, x.b1);
        UNROLLED for (int i = 0; i < 4; i++) {
            sums[i] = fmaf((float)c[i], w.factor[i / 2] * x.scale[i % 2], sums[i]);
            if constexpr (TYPE == TYPE_Q4_K) sums[i] = fmaf(-w.minimum[i / 2], x.scaled_sum[i % 2], sums[i]);
        }
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
