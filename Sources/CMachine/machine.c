#include "machine.h"

#include <string.h>

// Every loop works on CHAINS independent vectors, so that it waits for the units and not for results. The empty asm keeps the compiler from
// computing anything beforehand, and the vectors in registers.
#define CHAINS 12
#if defined(__x86_64__)
#define KEEP(x) __asm__ volatile("" : "+v"(x))
#else
#define KEEP(x) __asm__ volatile("" : "+w"(x))
#endif

typedef uint64_t u64x4 __attribute__((vector_size(32)));
typedef float f32x4 __attribute__((vector_size(16)));
typedef int16_t i16x8 __attribute__((vector_size(16)));

static uint64_t portable_read(const void *bytes, size_t length) {
    const u64x4 *p = bytes;
    u64x4 sums[4] = {{0}};
    for (size_t i = 0; i < length / 32; i += 4)
        for (int c = 0; c < 4; c++) sums[c] += p[i + (size_t)c];
    const u64x4 sum = sums[0] + sums[1] + sums[2] + sums[3];
    return sum[0] + sum[1] + sum[2] + sum[3];
}

static uint64_t portable_int8(uint64_t rounds, uint64_t *sink) {
    i16x8 sums[CHAINS] = {{0}}, x = {1, 2, 3, 4, 5, 6, 7, 8};
    for (uint64_t r = 0; r < rounds; r++) {
        for (int c = 0; c < CHAINS; c++) {
            KEEP(x);
            sums[c] += x * x;
        }
    }
    for (int c = 0; c < CHAINS; c++) *sink += (uint64_t)sums[c][0];
    return rounds * CHAINS * 8;
}

static uint64_t portable_fp32(uint64_t rounds, uint64_t *sink) {
    f32x4 sums[CHAINS] = {{0}}, x = {1, 2, 3, 4};
    for (uint64_t r = 0; r < rounds; r++) {
        for (int c = 0; c < CHAINS; c++) {
            KEEP(x);
            sums[c] += x * x;
        }
    }
    for (int c = 0; c < CHAINS; c++) *sink += (uint64_t)sums[c][0];
    return rounds * CHAINS * 4;
}

static const machine_loops portable = {portable_read, portable_int8, portable_fp32};

// Multiply-adds on CHAINS accumulators; `step` is one of them on accumulator s with the operand x.
#define LOOP(vector, zero, start, step) \
    vector s[CHAINS], x = start; \
    _Pragma("clang loop unroll(full)") for (int c = 0; c < CHAINS; c++) s[c] = zero; \
    for (uint64_t r = 0; r < rounds; r++) { \
        _Pragma("clang loop unroll(full)") for (int c = 0; c < CHAINS; c++) { \
            KEEP(x); \
            s[c] = step; \
        } \
    } \
    _Pragma("clang loop unroll(full)") for (int c = 0; c < CHAINS; c++) { \
        uint64_t word; \
        memcpy(&word, &s[c], sizeof word); \
        *sink += word; \
    }

#if defined(__x86_64__)
#include <immintrin.h>

#define READ(vector, load, add, zero) \
    vector s0 = zero(), s1 = zero(), s2 = zero(), s3 = zero(); \
    const char *p = bytes; \
    for (size_t i = 0; i < length; i += 4 * sizeof(vector)) { \
        s0 = add(s0, load((const void *)(p + i))); \
        s1 = add(s1, load((const void *)(p + i + sizeof(vector)))); \
        s2 = add(s2, load((const void *)(p + i + 2 * sizeof(vector)))); \
        s3 = add(s3, load((const void *)(p + i + 3 * sizeof(vector)))); \
    } \
    s0 = add(add(s0, s1), add(s2, s3)); \
    uint64_t words[sizeof(vector) / 8], total = 0; \
    memcpy(words, &s0, sizeof words); \
    for (size_t i = 0; i < sizeof(vector) / 8; i++) total += words[i]; \
    return total;

__attribute__((target("avx2"))) static __m256i avx2_load(const void *p) { return _mm256_load_si256(p); }
__attribute__((target("avx2"))) static uint64_t avx2_read(const void *bytes, size_t length) {
    READ(__m256i, avx2_load, _mm256_add_epi64, _mm256_setzero_si256)
}
__attribute__((target("avx512f"))) static uint64_t avx512_read(const void *bytes, size_t length) {
    READ(__m512i, _mm512_load_si512, _mm512_add_epi64, _mm512_setzero_si512)
}

// Products of bytes in pairs, and their 16-bit sum: what AVX2 has instead of one instruction.
__attribute__((target("avx2"))) static uint64_t avx2_int8(uint64_t rounds, uint64_t *sink) {
    LOOP(__m256i, _mm256_setzero_si256(), _mm256_set1_epi8(1), _mm256_add_epi16(s[c], _mm256_maddubs_epi16(x, x)))
    return rounds * CHAINS * 32;
}
__attribute__((target("avx2,avxvnni"))) static uint64_t avx2vnni_int8(uint64_t rounds, uint64_t *sink) {
    LOOP(__m256i, _mm256_setzero_si256(), _mm256_set1_epi8(1), _mm256_dpbusd_avx_epi32(s[c], x, x))
    return rounds * CHAINS * 32;
}
__attribute__((target("avx2,fma"))) static uint64_t avx2_fp32(uint64_t rounds, uint64_t *sink) {
    LOOP(__m256, _mm256_setzero_ps(), _mm256_set1_ps(0.5f), _mm256_fmadd_ps(x, x, s[c]))
    return rounds * CHAINS * 8;
}
__attribute__((target("avx512f,avx512vnni"))) static uint64_t avx512_int8(uint64_t rounds, uint64_t *sink) {
    LOOP(__m512i, _mm512_setzero_si512(), _mm512_set1_epi8(1), _mm512_dpbusd_epi32(s[c], x, x))
    return rounds * CHAINS * 64;
}
__attribute__((target("avx512f"))) static uint64_t avx512_fp32(uint64_t rounds, uint64_t *sink) {
    LOOP(__m512, _mm512_setzero_ps(), _mm512_set1_ps(0.5f), _mm512_fmadd_ps(x, x, s[c]))
    return rounds * CHAINS * 16;
}

static const machine_loops avx2 = {avx2_read, avx2_int8, avx2_fp32}, avx2vnni = {avx2_read, avx2vnni_int8, avx2_fp32},
                           avx512 = {avx512_read, avx512_int8, avx512_fp32};
#elif defined(__aarch64__)
#include <arm_neon.h>

__attribute__((target("dotprod"))) static uint64_t neon_int8(uint64_t rounds, uint64_t *sink) {
    LOOP(int32x4_t, vdupq_n_s32(0), (int32x4_t)vdupq_n_s8(1), vdotq_s32(s[c], (int8x16_t)x, (int8x16_t)x))
    return rounds * CHAINS * 16;
}
// Two rows of eight by two columns of eight.
__attribute__((target("i8mm"))) static uint64_t i8mm_int8(uint64_t rounds, uint64_t *sink) {
    LOOP(int32x4_t, vdupq_n_s32(0), (int32x4_t)vdupq_n_s8(1), vmmlaq_s32(s[c], (int8x16_t)x, (int8x16_t)x))
    return rounds * CHAINS * 32;
}

// The baseline's loads and fused products are the best there are.
static const machine_loops neon = {portable_read, neon_int8, portable_fp32}, i8mm = {portable_read, i8mm_int8, portable_fp32};
#endif

const machine_loops *machine_loops_named(const char *level) {
#if defined(__x86_64__)
    if (strcmp(level, "avx2") == 0) return &avx2;
    if (strcmp(level, "avx2vnni") == 0) return &avx2vnni;
    if (strcmp(level, "avx512") == 0) return &avx512;
#elif defined(__aarch64__)
    if (strcmp(level, "neon") == 0) return &neon;
    if (strcmp(level, "i8mm") == 0) return &i8mm;
#endif
    (void)level;
    return &portable;
}
