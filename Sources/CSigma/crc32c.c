#include "sigma_files.h"

#include <pthread.h>
#include <string.h>

static uint32_t table[8][256];
static pthread_once_t table_once = PTHREAD_ONCE_INIT;

static void make_table(void) {
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t crc = i;
        for (int bit = 0; bit < 8; bit++) crc = (crc >> 1) ^ (0x82f63b78u & (0u - (crc & 1)));
        table[0][i] = crc;
    }
    for (int k = 1; k < 8; k++)
        for (int i = 0; i < 256; i++) table[k][i] = (table[k - 1][i] >> 8) ^ table[0][table[k - 1][i] & 0xff];
}

// Eight bytes a step through eight tables.
static uint32_t crc_portable(uint32_t crc, const uint8_t *p, size_t n) {
    pthread_once(&table_once, make_table);
    for (; n >= 8; n -= 8, p += 8) {
        uint64_t word;
        memcpy(&word, p, 8);
        word ^= crc;
        crc = 0;
        for (int k = 0; k < 8; k++) crc ^= table[7 - k][(word >> (8 * k)) & 0xff];
    }
    for (; n > 0; n--) crc = (crc >> 8) ^ table[0][(crc ^ *p++) & 0xff];
    return crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) static uint32_t crc_hardware(uint32_t crc, const uint8_t *p, size_t n) {
    uint64_t wide = crc;
    for (; n >= 8; n -= 8, p += 8) {
        uint64_t word;
        memcpy(&word, p, 8);
        wide = __builtin_ia32_crc32di(wide, word);
    }
    crc = (uint32_t)wide;
    for (; n > 0; n--) crc = __builtin_ia32_crc32qi(crc, *p++);
    return crc;
}

// Carry-less products move 16 bytes of a message forward by D bits: its remainder stays the same if the lower and the upper half are
// multiplied with x^(D + 32) and x^(D - 32) mod P (reflected, times x) and added to what is there. 16 bytes are left in the end, and their
// remainder is that of the whole message.
#include <immintrin.h>

#define FOLD_TARGET __attribute__((target("avx512f,avx512bw,avx512vl,vpclmulqdq,pclmul,sse4.2")))

FOLD_TARGET static inline __m512i fold(__m512i v, __m512i factors, __m512i next) {
    const __m512i low = _mm512_clmulepi64_epi128(v, factors, 0x00), high = _mm512_clmulepi64_epi128(v, factors, 0x11);
    return _mm512_ternarylogic_epi64(low, high, next, 0x96);  // xor of three
}

FOLD_TARGET static inline __m512i factors(long long upper, long long lower) {
    return _mm512_broadcast_i32x4(_mm_set_epi64x(upper, lower));
}

FOLD_TARGET static uint32_t crc_folding(uint32_t crc, const uint8_t *p, size_t n) {
    if (n < 512) return crc_hardware(crc, p, n);
    __m512i v[4];
    for (int i = 0; i < 4; i++) v[i] = _mm512_loadu_si512(p + 64 * i);
    v[0] = _mm512_xor_si512(v[0], _mm512_zextsi128_si512(_mm_cvtsi32_si128((int)crc)));
    p += 256, n -= 256;
    const __m512i by2048 = factors(0xb9e02b86, 0xdcb17aa4);
    for (; n >= 256; n -= 256, p += 256)
        for (int i = 0; i < 4; i++) v[i] = fold(v[i], by2048, _mm512_loadu_si512(p + 64 * i));
    const __m512i by512 = factors(0x9e4addf8, 0x740eef02);
    __m512i sum = v[0];
    for (int i = 1; i < 4; i++) sum = fold(sum, by512, v[i]);
    const __m128i by128 = _mm_set_epi64x(0x14cd00bd6, 0xf20c0dfe);
    __m128i last = _mm512_castsi512_si128(sum);
    const __m128i rest[3] = {_mm512_extracti32x4_epi32(sum, 1), _mm512_extracti32x4_epi32(sum, 2), _mm512_extracti32x4_epi32(sum, 3)};
    for (int i = 0; i < 3; i++)
        last = _mm_xor_si128(_mm_xor_si128(_mm_clmulepi64_si128(last, by128, 0x00), _mm_clmulepi64_si128(last, by128, 0x11)), rest[i]);
    uint8_t remainder[16];
    _mm_storeu_si128((__m128i *)remainder, last);
    return crc_hardware(crc_hardware(0, remainder, 16), p, n);
}
#endif

uint32_t sigma_crc32c(uint32_t crc, const void *bytes, size_t length) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("vpclmulqdq"))
        return ~crc_folding(~crc, bytes, length);
    if (__builtin_cpu_supports("sse4.2")) return ~crc_hardware(~crc, bytes, length);
#endif
    return ~crc_portable(~crc, bytes, length);
}
