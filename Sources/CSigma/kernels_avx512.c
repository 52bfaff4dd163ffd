// AVX-512 with VNNI (Intel since Ice Lake, AMD since Zen 4).
#if defined(__x86_64__)
#include "half.h"
#include "sigma_kernels.h"

#include <immintrin.h>

#pragma clang attribute push( \
    __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c"))), apply_to = function)

#define LANES 16
#define LEVEL_NAME "avx512"
#define LEVEL_TABLE sigma_kernels_avx512

static inline __m512 load_half(const uint16_t *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p)); }

static inline void store_half(uint16_t *p, __m512 v) {
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}

// A q8_0 block is 32 weights: half a vector. The instruction multiplies unsigned by signed bytes, so activations are
// shifted to q + 128, and what that adds, 128 times the sum of the weights, is taken off beforehand.
typedef __m256 q8_sums;
typedef struct {
    __m256i values, correction;
    __m256 scale;
} q8_weights;

static inline q8_sums q8_zero(void) { return _mm256_setzero_ps(); }

static inline q8_weights q8_load(const uint8_t *block) {
    int16_t bits;
    memcpy(&bits, block, 2);
    const __m256i values = _mm256_loadu_si256((const __m256i *)(block + 2));
    const __m256i sums = _mm256_dpbusd_epi32(_mm256_setzero_si256(), _mm256_set1_epi8((char)128), values);
    return (q8_weights){values, _mm256_sub_epi32(_mm256_setzero_si256(), sums), _mm256_cvtph_ps(_mm_set1_epi16(bits))};
}

static inline q8_sums q8_accumulate(q8_sums sum, q8_weights w, const int8_t *q, float scale) {
    const __m256i shifted = _mm256_xor_si256(_mm256_loadu_si256((const __m256i *)q), _mm256_set1_epi8((char)128));
    const __m256i dots = _mm256_dpbusd_epi32(w.correction, shifted, w.values);
    return _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots), _mm256_mul_ps(w.scale, _mm256_set1_ps(scale)), sum);
}

static inline float q8_total(q8_sums sum) {
    __m128 half = _mm_add_ps(_mm256_castps256_ps128(sum), _mm256_extractf128_ps(sum, 1));
    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
}

#include "kernels_body.h"

#pragma clang attribute pop
#endif
