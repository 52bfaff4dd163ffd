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

static inline __m256 load_half(const uint16_t *p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)); }

static inline void store_half(uint16_t *p, __m256 v) {
    _mm_storeu_si128((__m128i *)p, _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}

typedef __m256i vw;

static inline vw load_weights(const uint8_t *p) { return _mm256_load_si256((const __m256i *)p); }
static inline vw low_nibbles(vw v) { return _mm256_and_si256(v, _mm256_set1_epi8(15)); }
static inline vw high_nibbles(vw v) { return low_nibbles(_mm256_srli_epi16(v, 4)); }
static inline vw join_six(vw low, vw pairs, int field) {
    const vw high = field == 0   ? _mm256_slli_epi16(pairs, 4)
                    : field == 1 ? _mm256_slli_epi16(pairs, 2)
                    : field == 2 ? pairs
                                 : _mm256_srli_epi16(pairs, 2);
    return _mm256_or_si256(low, _mm256_and_si256(high, _mm256_set1_epi8(0x30)));
}

static inline __m256i four(const int8_t *q) {
    int32_t bits;
    memcpy(&bits, q, 4);
    return _mm256_set1_epi32(bits);
}

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
static inline __m256i dot_six(const vw w[4], const int8_t *q, int32_t offset) {
    const __m256i low = _mm256_add_epi16(_mm256_maddubs_epi16(w[0], four(q)), _mm256_maddubs_epi16(w[1], four(q + 4)));
    const __m256i high = _mm256_add_epi16(_mm256_maddubs_epi16(w[2], four(q + 8)), _mm256_maddubs_epi16(w[3], four(q + 12)));
    return _mm256_add_epi32(_mm256_add_epi32(widen_pairs(low), widen_pairs(high)), _mm256_set1_epi32(4 * offset));
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

#include "kernels_body.h"

#pragma clang attribute pop
#endif
