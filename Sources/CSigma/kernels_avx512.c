// AVX-512 with VNNI (Intel since Ice Lake, AMD since Zen 4).
#if defined(__x86_64__)
#include "sigma_half.h"
#include "packed.h"
#include "sigma_kernels.h"
#include "sigma_packing.h"

#include <immintrin.h>

#pragma clang attribute push( \
    __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c"))), apply_to = function)

#define LANES 16
#define LEVEL_NAME "avx512"
#define LEVEL_TABLE sigma_kernels_avx512

static inline __m512 load_half(const uint16_t *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p)); }

typedef __m512i vw;

static inline vw load_weights(const uint8_t *p) { return _mm512_load_si512(p); }
static inline vw low_nibbles(vw v) { return _mm512_and_si512(v, _mm512_set1_epi8(15)); }
static inline vw high_nibbles(vw v) { return low_nibbles(_mm512_srli_epi16(v, 4)); }
static inline vw join_six(vw low, vw pairs, int field) {
    const vw high = field == 0   ? _mm512_slli_epi16(pairs, 4)
                    : field == 1 ? _mm512_slli_epi16(pairs, 2)
                    : field == 2 ? pairs
                                 : _mm512_srli_epi16(pairs, 2);
    return _mm512_ternarylogic_epi64(low, high, _mm512_set1_epi8(0x30), 0xf8);  // low | high & mask
}

static inline vw join_bit(vw low, vw bits, int column, int place) {
    const vw moved = column <= place ? _mm512_slli_epi16(bits, (unsigned)(place - column)) : _mm512_srli_epi16(bits, (unsigned)(column - place));
    return _mm512_ternarylogic_epi64(low, moved, _mm512_set1_epi8((char)(1 << place)), 0xf8);
}
static inline vw lookup(const uint8_t *table, vw v) {
    return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)table)), v);
}

static inline vw two_bits(vw v, int field) { return _mm512_and_si512(_mm512_srli_epi16(v, (unsigned)(2 * field)), _mm512_set1_epi8(3)); }
static inline __m512i dot_along(vw w, const int8_t *q) {
    return _mm512_dpbusd_epi32(_mm512_setzero_si512(), w, _mm512_loadu_si512(q));
}

static inline __m512i dot_columns(const vw *w, int count, const int8_t *q, __m512i sum) {
    for (int c = 0; c < count; c++) {
        int32_t four;
        memcpy(&four, q + 4 * c, 4);
        sum = _mm512_dpbusd_epi32(sum, w[c], _mm512_set1_epi32(four));
    }
    return sum;
}

static inline __m512i dot_nibbles(const vw w[8], const sigma_activation_block *b) {
    return dot_columns(w, 8, b->q, _mm512_set1_epi32(b->both));
}
static inline __m512i dot_nibbles_raw(const vw w[8], const sigma_activation_block *b) { return dot_columns(w, 8, b->q, _mm512_setzero_si512()); }
static inline __m512i dot_six(const vw w[4], const int8_t *q, int32_t sum) {
    return dot_columns(w, 4, q, _mm512_set1_epi32(sum));
}
static inline __m512i dot_bytes(const vw w[8], const sigma_activation_block *b) {
    return dot_columns(w, 8, b->q, _mm512_set1_epi32(16 * (b->both)));
}

static inline __m512i add_pairs(__m512i sums, __m512i w, int32_t pair) { return _mm512_dpwssd_epi32(sums, w, _mm512_set1_epi32(pair)); }

#include "kernels_body.h"

#pragma clang attribute pop
#endif
