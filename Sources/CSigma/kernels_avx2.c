// AVX2, FMA and F16C (Intel since Haswell, AMD since Zen).
#if defined(__x86_64__)
#include "sigma_half.h"
#include "packed.h"
#include "sigma_kernels.h"
#include "sigma_packing.h"

#include <immintrin.h>

#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)

#define LANES 8
#define LEVEL_NAME "avx2"
#define LEVEL_TABLE sigma_kernels_avx2

#include "primitives_256.h"

static inline __m256i widen_pairs(__m256i pairs) { return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)); }

// Eight products of 15 * 127 and their neighbours stay below 2^15.
static inline __m256i dot_nibbles_raw(const vw w[8], const sigma_activation_block *b) {
    __m256i pairs = _mm256_maddubs_epi16(w[0], four(b->q));
    for (int c = 1; c < 8; c++) pairs = _mm256_add_epi16(pairs, _mm256_maddubs_epi16(w[c], four(b->q + 4 * c)));
    return widen_pairs(pairs);
}
static inline __m256i dot_nibbles(const vw w[8], const sigma_activation_block *b) {
    return _mm256_add_epi32(dot_nibbles_raw(w, b), _mm256_set1_epi32(b->both));
}
// Two products of 63 * 127 and their neighbours stay below 2^15.
static inline __m256i dot_six(const vw w[4], const int8_t *q, int32_t sum) {
    const __m256i low = _mm256_add_epi16(_mm256_maddubs_epi16(w[0], four(q)), _mm256_maddubs_epi16(w[1], four(q + 4)));
    const __m256i high = _mm256_add_epi16(_mm256_maddubs_epi16(w[2], four(q + 8)), _mm256_maddubs_epi16(w[3], four(q + 12)));
    return _mm256_add_epi32(_mm256_add_epi32(widen_pairs(low), widen_pairs(high)), _mm256_set1_epi32(sum));
}
// |w| * (q with w's sign), with w's shift by 128 taken back: the unsigned by signed product cannot saturate, since |q| <= 127
// and |w| <= 128.
static inline __m256i dot_bytes(const vw w[8], const sigma_activation_block *b) {
    __m256i sum = _mm256_setzero_si256();
    for (int c = 0; c < 8; c++) {
        const __m256i weights = _mm256_xor_si256(w[c], _mm256_set1_epi8((char)128));
        const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(weights), _mm256_sign_epi8(four(b->q + 4 * c), weights));
        sum = _mm256_add_epi32(sum, widen_pairs(pairs));
    }
    return sum;
}

static inline __m256i add_pairs(__m256i sums, __m256i w, int32_t pair) {
    return _mm256_add_epi32(sums, _mm256_madd_epi16(w, _mm256_set1_epi32(pair)));
}

#include "kernels_body.h"

#pragma clang attribute pop
#endif
