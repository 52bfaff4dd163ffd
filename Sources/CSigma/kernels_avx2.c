// AVX2, FMA and F16C (Intel since Haswell, AMD since Zen).
#if defined(__x86_64__)
#include "half.h"
#include "sigma_kernels.h"

#include <immintrin.h>

#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)

#define LANES 8
#define LEVEL_NAME "avx2"
#define LEVEL_TABLE sigma_kernels_avx2

static inline __m256 load_half(const uint16_t *p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)); }

static inline void store_half(uint16_t *p, __m256 v) {
    _mm_storeu_si128((__m128i *)p, _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}

typedef __m256 q8_sums;
typedef struct {
    __m256i values, magnitudes;
    float scale;
} q8_weights;

static inline q8_sums q8_zero(void) { return _mm256_setzero_ps(); }

static inline q8_weights q8_load(const uint8_t *block) {
    uint16_t bits;
    memcpy(&bits, block, 2);
    const __m256i values = _mm256_loadu_si256((const __m256i *)(block + 2));
    return (q8_weights){values, _mm256_abs_epi8(values), _cvtsh_ss(bits)};
}

// |w| * (q with w's sign): the unsigned by signed product cannot saturate, since |q| <= 127 and |w| <= 128.
static inline q8_sums q8_accumulate(q8_sums sum, q8_weights w, const int8_t *q, float scale) {
    const __m256i signed_q = _mm256_sign_epi8(_mm256_loadu_si256((const __m256i *)q), w.values);
    const __m256i pairs = _mm256_maddubs_epi16(w.magnitudes, signed_q);
    const __m256i dots = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
    return _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots), _mm256_set1_ps(w.scale * scale), sum);
}

static inline float q8_total(q8_sums sum);

#include "kernels_body.h"

static inline float q8_total(q8_sums sum) { return lane_sum(sum); }

#pragma clang attribute pop
#endif
