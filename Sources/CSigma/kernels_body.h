// The kernels, written once in Clang's vector extensions. Each kernels_<level>.c defines LANES (fp32 values in a vector), LEVEL_NAME
// and LEVEL_TABLE, fp16 loads and stores, and the 8-bit dot products that kernels_packed.h names, sets the target attributes, and includes this file.
// Products and sums are written as a * b + c, which the compiler fuses where the level has FMA.

typedef float vf __attribute__((vector_size(LANES * 4), aligned(4)));
typedef int32_t vi __attribute__((vector_size(LANES * 4), aligned(4)));
typedef uint16_t vh __attribute__((vector_size(LANES * 2), aligned(2)));
typedef int8_t vb __attribute__((vector_size(LANES), aligned(1)));

#define INLINE static inline __attribute__((always_inline))

INLINE vf load(const float *p) { return *(const vf *)p; }
INLINE void store(float *p, vf v) { *(vf *)p = v; }
// Not 0 + x, which costs an addition: it has to turn -0 into 0.
INLINE vf splat(float x) {
#if LANES == 16
    return (vf){x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x};
#elif LANES == 8
    return (vf){x, x, x, x, x, x, x, x};
#else
    return (vf){x, x, x, x};
#endif
}

INLINE vf vmax(vf a, vf b) { return __builtin_elementwise_max(a, b); }

// Sum and maximum of the lanes, always as the same tree: the upper half to the lower one, again and again.
#if LANES == 16
#define FOLD(v, with) \
    v = with(v, __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15, 8, 9, 10, 11, 12, 13, 14, 15)); \
    v = with(v, __builtin_shufflevector(v, v, 4, 5, 6, 7, 4, 5, 6, 7, 4, 5, 6, 7, 4, 5, 6, 7)); \
    v = with(v, __builtin_shufflevector(v, v, 2, 3, 2, 3, 2, 3, 2, 3, 2, 3, 2, 3, 2, 3, 2, 3)); \
    v = with(v, __builtin_shufflevector(v, v, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1));
#elif LANES == 8
#define FOLD(v, with) \
    v = with(v, __builtin_shufflevector(v, v, 4, 5, 6, 7, 4, 5, 6, 7)); \
    v = with(v, __builtin_shufflevector(v, v, 2, 3, 2, 3, 2, 3, 2, 3)); \
    v = with(v, __builtin_shufflevector(v, v, 1, 1, 1, 1, 1, 1, 1, 1));
#else
#define FOLD(v, with) \
    v = with(v, __builtin_shufflevector(v, v, 2, 3, 2, 3)); \
    v = with(v, __builtin_shufflevector(v, v, 1, 1, 1, 1));
#endif

INLINE vf vadd(vf a, vf b) { return a + b; }

INLINE float lane_sum(vf v) {
    FOLD(v, vadd)
    return v[0];
}

INLINE float lane_max(vf v) {
    FOLD(v, vmax)
    return v[0];
}

// e^x with a relative error below 2^-22 (about 2 ulp); 0 below -87.3, exactly 1 at 0. x <= 88. Not-a-number stays.
INLINE vf vexp(vf x) {
    const vf clamped = vmax(x, splat(-87.3f));
    // Adding 1.5 * 2^23 rounds to the nearest integer and leaves it in the low bits.
    const vf shifted = clamped * 1.44269504f + splat(12582912.0f);
    const vf n = shifted - 12582912.0f;
    vf r = clamped - n * 0.693359375f;
    r = r - n * -2.12194440e-4f;
    vf p = splat(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    vi bits, power;
    __builtin_memcpy(&bits, &shifted, sizeof bits);
    power = (bits + (127 - 0x4b400000)) << 23;
    vf scale;
    __builtin_memcpy(&scale, &power, sizeof scale);
    const vi keep = x >= splat(-87.3f);
    vf result = p * scale;
    vi masked;
    __builtin_memcpy(&masked, &result, sizeof masked);
    const vi is_number = x == x;
    vi bits_of_x;
    __builtin_memcpy(&bits_of_x, &x, sizeof bits_of_x);
    masked = (masked & keep & is_number) | (bits_of_x & ~is_number);
    __builtin_memcpy(&result, &masked, sizeof result);
    return result;
}

INLINE float exp1(float x) { return vexp(splat(x))[0]; }

#define UNROLLED _Pragma("clang loop unroll(full)")

// LANES values of a float type.
INLINE vf load_float(const void *p, int type, ptrdiff_t i) {
    if (type == SIGMA_F32) return load((const float *)p + i);
    if (type == SIGMA_BF16) {
        const vi bits = __builtin_convertvector(*(const vh *)((const uint16_t *)p + i), vi) << 16;
        vf v;
        __builtin_memcpy(&v, &bits, sizeof v);
        return v;
    }
    return load_half((const uint16_t *)p + i);
}

INLINE float load_float1(const void *p, int type, ptrdiff_t i) {
    if (type == SIGMA_F32) return ((const float *)p)[i];
    const uint16_t bits = ((const uint16_t *)p)[i];
    if (type == SIGMA_BF16) {
        const uint32_t wide = (uint32_t)bits << 16;
        float v;
        __builtin_memcpy(&v, &wide, sizeof v);
        return v;
    }
    return sigma_half_to_float(bits);
}

INLINE vi integer_max(vi a, vi b) { return __builtin_elementwise_max(a, b); }
INLINE vi integer_add(vi a, vi b) { return a + b; }

INLINE int32_t largest_lane(vi v) {
    FOLD(v, integer_max)
    return v[0];
}

INLINE int32_t integer_lane_sum(vi v) {
    FOLD(v, integer_add)
    return v[0];
}

// Magnitudes as integers have the same order, and not-a-number is above all: a scale made of the largest is so too.
INLINE vi magnitude(vf x) {
    vi bits;
    __builtin_memcpy(&bits, &x, sizeof bits);
    return bits & 0x7fffffff;
}

INLINE float largest_magnitude(vi magnitudes) {
    const int32_t bits = largest_lane(magnitudes);
    float x;
    __builtin_memcpy(&x, &bits, sizeof x);
    return x;
}

// 32 values to 8 bits, and the sums of their halves; returns their scale.
INLINE float quantize_block(const float *x, int8_t *quants, int32_t halves[2]) {
    vi most = {0};
    UNROLLED for (int i = 0; i < 32; i += LANES) most = integer_max(most, magnitude(load(x + i)));
    const float amax = largest_magnitude(most);
    const float inverse = amax > 0 ? 127.0f / amax : 0.0f;
    UNROLLED for (int half = 0; half < 2; half++) {
        vi sum = {0};
        UNROLLED for (int i = 16 * half; i < 16 * half + 16; i += LANES) {
            const vf shifted = load(x + i) * inverse + splat(12582912.0f);
            vi bits;
            __builtin_memcpy(&bits, &shifted, sizeof bits);
            bits -= 0x4b400000;
            *(vb *)(quants + i) = __builtin_convertvector(bits, vb);
            sum += bits;
        }
        halves[half] = integer_lane_sum(sum);
    }
    return amax / 127.0f;
}

static void quantize_activations(const float *x, sigma_activation_block *blocks, int k) {
    for (int b = 0; b < k / 32; b++, x += 32, blocks++) {
        int32_t sums[2];
        const float scale = quantize_block(x, blocks->q, sums);
        // Of not-a-number the sums are anything, and may wrap around.
        const uint32_t first = (uint32_t)sums[0], both = first + (uint32_t)sums[1];
        blocks->scale = scale;
        blocks->scaled_sum = scale * (float)(int32_t)both;
        blocks->both = (int32_t)(-8 * both);
        blocks->first = (int32_t)(-8 * first);
    }
}

INLINE size_t activation_row(const sigma_activations *a, int i) { return a->index ? (size_t)a->index[i] : (size_t)i; }

#include "kernels_packed.h"
#include "kernels_screen.h"

// `outputs` rows of weights against `rows` activation rows: of each pair two chains of vector sums, then the tail.
INLINE void float_tile(const char *w, int type, size_t row_bytes, int outputs, int k, const float *const *x, int rows, float *y,
                       size_t y_stride) {
    vf sums[4][4][2];
    UNROLLED for (int i = 0; i < rows; i++)
        UNROLLED for (int j = 0; j < outputs; j++) sums[i][j][0] = sums[i][j][1] = splat(0);
    int c = 0;
    for (; c + 2 * LANES <= k; c += 2 * LANES) {
        UNROLLED for (int half = 0; half < 2; half++) {
            vf values[4];
            UNROLLED for (int i = 0; i < rows; i++) values[i] = load(x[i] + c + half * LANES);
            UNROLLED for (int j = 0; j < outputs; j++) {
                const vf weight = load_float(w + (size_t)j * row_bytes, type, c + half * LANES);
                UNROLLED for (int i = 0; i < rows; i++) sums[i][j][half] = weight * values[i] + sums[i][j][half];
            }
        }
    }
    UNROLLED for (int i = 0; i < rows; i++)
        UNROLLED for (int j = 0; j < outputs; j++) {
            float total = lane_sum(sums[i][j][0] + sums[i][j][1]);
            for (int r = c; r < k; r++) total = load_float1(w + (size_t)j * row_bytes, type, r) * x[i][r] + total;
            y[(size_t)i * y_stride + (size_t)j] = total;
        }
}

// Tiles whose sums fit the registers: of several activation rows, and of one.
enum { FLOAT_ROWS = LANES == 16 ? 4 : 2, FLOAT_OUTPUTS = LANES == 16 ? 3 : 2 };

INLINE void matmul_float_typed(const char *w, int type, int n, int k, const sigma_activations *a, int m, float *y,
                               size_t y_stride) {
    const size_t row_bytes = (size_t)k * (type == SIGMA_F32 ? 4 : 2);
    const float *x[FLOAT_ROWS];
    int i = 0;
    for (; i + FLOAT_ROWS <= m; i += FLOAT_ROWS) {
        for (int r = 0; r < FLOAT_ROWS; r++) x[r] = a->values + activation_row(a, i + r) * a->value_stride;
        float *out = y + (size_t)i * y_stride;
        int j = 0;
        for (; j + FLOAT_OUTPUTS <= n; j += FLOAT_OUTPUTS)
            float_tile(w + (size_t)j * row_bytes, type, row_bytes, FLOAT_OUTPUTS, k, x, FLOAT_ROWS, out + j, y_stride);
        for (; j < n; j++) float_tile(w + (size_t)j * row_bytes, type, row_bytes, 1, k, x, FLOAT_ROWS, out + j, y_stride);
    }
    for (; i < m; i++) {
        x[0] = a->values + activation_row(a, i) * a->value_stride;
        float *out = y + (size_t)i * y_stride;
        int j = 0;
        for (; j + 4 <= n; j += 4) float_tile(w + (size_t)j * row_bytes, type, row_bytes, 4, k, x, 1, out + j, y_stride);
        for (; j < n; j++) float_tile(w + (size_t)j * row_bytes, type, row_bytes, 1, k, x, 1, out + j, y_stride);
    }
}

static void matmul_float(const void *w, int type, int n, int k, const sigma_activations *a, int m, float *y, size_t y_stride) {
    switch (type) {
    case SIGMA_F32: matmul_float_typed(w, SIGMA_F32, n, k, a, m, y, y_stride); break;
    case SIGMA_F16: matmul_float_typed(w, SIGMA_F16, n, k, a, m, y, y_stride); break;
    default: matmul_float_typed(w, SIGMA_BF16, n, k, a, m, y, y_stride); break;
    }
}

static void widen(const void *source, int type, float *out, int n) {
    int i = 0;
    if (type == SIGMA_F32) {
        __builtin_memcpy(out, source, (size_t)n * 4);
        return;
    }
    if (type == SIGMA_BF16)
        for (; i + LANES <= n; i += LANES) store(out + i, load_float(source, SIGMA_BF16, i));
    else
        for (; i + LANES <= n; i += LANES) store(out + i, load_float(source, SIGMA_F16, i));
    for (; i < n; i++) out[i] = load_float1(source, type, i);
}

static void rms_norm(const float *x, const float *weight, float eps, float *y, int n) {
    vf squares = splat(0);
    int i = 0;
    for (; i + LANES <= n; i += LANES) squares = load(x + i) * load(x + i) + squares;
    float total = lane_sum(squares);
    for (; i < n; i++) total = x[i] * x[i] + total;
    const float factor = 1.0f / __builtin_sqrtf(total / (float)n + eps);
    for (i = 0; i + LANES <= n; i += LANES) store(y + i, load(x + i) * factor * load(weight + i));
    for (; i < n; i++) y[i] = x[i] * factor * weight[i];
}

static void rope(float *x, const float *cosines, const float *sines, int half) {
    int i = 0;
    for (; i + LANES <= half; i += LANES) {
        const vf x1 = load(x + i), x2 = load(x + i + half), cosine = load(cosines + i), sine = load(sines + i);
        store(x + i, x1 * cosine - x2 * sine);
        store(x + i + half, x2 * cosine + x1 * sine);
    }
    for (; i < half; i++) {
        const float x1 = x[i], x2 = x[i + half];
        x[i] = x1 * cosines[i] - x2 * sines[i];
        x[i + half] = x2 * cosines[i] + x1 * sines[i];
    }
}

INLINE vf silu(vf x) { return x / (1.0f + vexp(__builtin_elementwise_min(-x, splat(88.0f)))); }

static void silu_multiply(const float *gate, const float *up, float *y, int n) {
    int i = 0;
    for (; i + LANES <= n; i += LANES) store(y + i, silu(load(gate + i)) * load(up + i));
    for (; i < n; i++) y[i] = silu(splat(gate[i]))[0] * up[i];
}

static void add_scaled(float *y, float a, const float *x, int n) {
    int i = 0;
    for (; i + LANES <= n; i += LANES) store(y + i, load(x + i) * a + load(y + i));
    for (; i < n; i++) y[i] = x[i] * a + y[i];
}

// Eight lanes at every level, so that sums have the same order. No function takes or returns them: on shorter vectors that has no settled ABI.
typedef double vd __attribute__((vector_size(64), aligned(8)));
typedef int64_t vl __attribute__((vector_size(64), aligned(8)));
typedef float vf8 __attribute__((vector_size(32), aligned(4)));

static double log_sum_exp(const float *x, int n) {
    float most = -__builtin_inff();
    for (int i = 0; i < n; i++) most = x[i] > most ? x[i] : most;
    if (!__builtin_isfinite(most)) return most;
    // Taylor's series to r^13: |r| is at most ln(2) / 2, and the error of e^x a few 2^-53.
    static const double factors[] = {1 / 6227020800.0, 1 / 479001600.0, 1 / 39916800.0, 1 / 3628800.0, 1 / 362880.0, 1 / 40320.0,
                                     1 / 5040.0, 1 / 720.0, 1 / 120.0, 1 / 24.0, 1 / 6.0, 1 / 2.0, 1, 1};
    const vd zero = {0}, least = zero - 708;
    vd sums = zero;
    for (int i = 0; i < n; i += 8) {
        vf8 piece;
        if (i + 8 <= n)
            __builtin_memcpy(&piece, x + i, sizeof piece);
        else
            for (int j = 0; j < 8; j++) piece[j] = i + j < n ? x[i + j] : -__builtin_inff();
        // What is smaller, or not a number, adds 3e-308.
        const vd clamped = __builtin_elementwise_max(__builtin_convertvector(piece, vd) - (double)most, least);
        // Adding 1.5 * 2^52 rounds to the nearest integer and leaves it in the low bits.
        const vd shifted = clamped * 0x1.71547652b82fep0 + 0x1.8p52;
        const vd integer = shifted - 0x1.8p52;
        vd r = clamped - integer * 0x1.62e42fee00000p-1;
        r = r - integer * 0x1.a39ef35793c76p-33;
        vd p = zero + factors[0];
        for (int f = 1; f < 14; f++) p = p * r + factors[f];
        vl power;
        __builtin_memcpy(&power, &shifted, sizeof power);
        power = (power - 0x4338000000000000 + 1023) << 52;
        vd scale;
        __builtin_memcpy(&scale, &power, sizeof scale);
        sums = sums + p * scale;
    }
    const double sum = ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
    return most + __builtin_log(sum);
}

static void divide(const float *x, float divisor, float *y, int n) {
    int i = 0;
    for (; i + LANES <= n; i += LANES) store(y + i, load(x + i) / divisor);
    for (; i < n; i++) y[i] = x[i] / divisor;
}

#include "kernels_attention.h"

const sigma_kernels LEVEL_TABLE = {
    .name = LEVEL_NAME,
    .quantize_activations = quantize_activations,
    .matmul_packed = matmul_packed,
    .matmul_float = matmul_float,
    .screen_rows = screen_rows,
    .screen_fine = screen_fine,
    .widen = widen,
    .rms_norm = rms_norm,
    .rope = rope,
    .silu_multiply = silu_multiply,
    .add_scaled = add_scaled,
    .divide = divide,
    .log_sum_exp = log_sum_exp,
    .store_kv = store_kv,
    .attend = attend,
    .merge_attention = merge_attention,
};
