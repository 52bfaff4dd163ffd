// Numbers: float types, exponentials, sums over a warp. Nothing here is contracted: a fused product is an fmaf.
#pragma once

// GGUF's numbers (sigma_kernels.h).
enum { TYPE_F32 = 0, TYPE_F16 = 1, TYPE_Q4_0 = 2, TYPE_Q8_0 = 8, TYPE_Q4_K = 12, TYPE_Q6_K = 14, TYPE_BF16 = 30 };

DEVICE bool is_packed(int type) { return type == TYPE_Q4_0 || type == TYPE_Q8_0 || type == TYPE_Q4_K || type == TYPE_Q6_K; }

// e^x with a relative error below 2^-22; 0 below -87.3, exactly 1 at 0. x <= 88. Not-a-number stays.
DEVICE float exponential(float x) {
    const float clamped = fmaxf(x, -87.3f);
    // Adding 1.5 * 2^23 rounds to the nearest integer and leaves it in the low bits.
    const float shifted = fmaf(clamped, 1.44269504f, 12582912.0f);
    const float n = shifted - 12582912.0f;
    float r = fmaf(n, -0.693359375f, clamped);
    r = fmaf(n, 2.12194440e-4f, r);
    float p = 1.9875691500e-4f;
    p = fmaf(p, r, 1.3981999507e-3f);
    p = fmaf(p, r, 8.3334519073e-3f);
    p = fmaf(p, r, 4.1665795894e-2f);
    p = fmaf(p, r, 1.6666665459e-1f);
    p = fmaf(p, r, 5.0000001201e-1f);
    p = fmaf(p, r * r, r) + 1.0f;
    const float result = p * as_float((as_bits(shifted) + (127u - 0x4b400000u)) << 23);
    return x >= -87.3f ? result : x == x ? 0.0f : x;
}

// fminf would give 88 for a gate that is not a number.
DEVICE float silu(float x) { return x / (1.0f + exponential(-x > 88.0f ? 88.0f : -x)); }

// The same sum in every lane: neighbours at a distance of 16, 8, 4, 2, 1.
DEVICE float warp_sum(float v) {
    UNROLLED for (int distance = 16; distance > 0; distance /= 2) v += shuffle_xor(v, distance);
    return v;
}
DEVICE float warp_max(float v) {
    UNROLLED for (int distance = 16; distance > 0; distance /= 2) v = fmaxf(v, shuffle_xor(v, distance));
    return v;
}

DEVICE int float_bytes(int type) { return type == TYPE_F32 ? 4 : 2; }

DEVICE float widen(unsigned short bits, int type) {
    return type == TYPE_BF16 ? as_float((unsigned)bits << 16) : half_to_float(bits);
}

// Element i of a row of floats.
DEVICE float float_at(const void *row, int type, int i) {
    return type == TYPE_F32 ? ((const float *)row)[i] : widen(((const unsigned short *)row)[i], type);
}

// Elements first ..< first + 8 of a row of `columns` floats, zeros after its end. aligned: rows begin at multiples of 16 bytes.
DEVICE void load_eight(const void *row, int type, int first, int columns, bool aligned, float v[8]) {
    if (!aligned || first + 8 > columns) {
        UNROLLED for (int i = 0; i < 8; i++) v[i] = first + i < columns ? float_at(row, type, first + i) : 0.0f;
        return;
    }
    if (type == TYPE_F32) {
        UNROLLED for (int half = 0; half < 2; half++) {
            const float4 x = ((const float4 *)row)[first / 4 + half];
            v[4 * half] = x.x;
            v[4 * half + 1] = x.y;
            v[4 * half + 2] = x.z;
            v[4 * half + 3] = x.w;
        }
        return;
    }
    const uint4 x = ((const uint4 *)row)[first / 8];
    const unsigned words[4] = {x.x, x.y, x.z, x.w};
    UNROLLED for (int i = 0; i < 4; i++) {
        v[2 * i] = widen((unsigned short)(words[i] & 0xffff), type);
        v[2 * i + 1] = widen((unsigned short)(words[i] >> 16), type);
    }
}
