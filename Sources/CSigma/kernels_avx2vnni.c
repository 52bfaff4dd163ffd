// AVX2 with AVX-VNNI: unsigned by signed bytes summed in fours by one instruction, without AVX-512 (Intel since Alder Lake, AMD
// since Zen 5).
#if defined(__x86_64__)
#include "sigma_half.h"
#include "packed.h"
#include "sigma_kernels.h"
#include "sigma_packing.h"

#include <immintrin.h>

#pragma clang attribute push(__attribute__((target("avx2,fma,f16c,avxvnni"))), apply_to = function)

#define LANES 8
#define LEVEL_NAME "avx2vnni"
#define LEVEL_TABLE sigma_kernels_avx2vnni

#include "primitives_256.h"

static inline __m256i dot_columns(const vw *w, int count, const int8_t *q, __m256i sum) {
    for (int c = 0; c < count; c++) sum = _mm256_dpbusd_avx_epi32(sum, w[c], four(q + 4 * c));
    return sum;
}

static inline __m256i dot_nibbles(const vw w[8], const sigma_activation_block *b) {
    return dot_columns(w, 8, b->q, _mm256_set1_epi32(b->both));
}
static inline __m256i dot_nibbles_raw(const vw w[8], const sigma_activation_block *b) {
    return dot_columns(w, 8, b->q, _mm256_setzero_si256());
}
static inline __m256i dot_six(const vw w[4], const int8_t *q, int32_t sum) {
    return dot_columns(w, 4, q, _mm256_set1_epi32(sum));
}
static inline __m256i dot_bytes(const vw w[8], const sigma_activation_block *b) {
    return dot_columns(w, 8, b->q, _mm256_set1_epi32(16 * b->both));
}

static inline __m256i add_pairs(__m256i sums, __m256i w, int32_t pair) { return _mm256_dpwssd_avx_epi32(sums, w, _mm256_set1_epi32(pair)); }

#include "kernels_body.h"

#pragma clang attribute pop
#endif
