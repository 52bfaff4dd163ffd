// fp16, packed weights and broadcast activations in 256-bit vectors: part of the levels with LANES 8.

static inline __m256 load_half(const uint16_t *p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)); }

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

static inline vw join_bit(vw low, vw bits, int column, int place) {
    const vw moved = column <= place ? _mm256_slli_epi16(bits, place - column) : _mm256_srli_epi16(bits, column - place);
    return _mm256_or_si256(low, _mm256_and_si256(moved, _mm256_set1_epi8((char)(1 << place))));
}
static inline vw lookup(const uint8_t *table, vw v) {
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)table)), v);
}

static inline vw two_bits(vw v, int field) { return _mm256_and_si256(_mm256_srli_epi16(v, 2 * field), _mm256_set1_epi8(3)); }
static inline __m256i dot_along(vw w, const int8_t *q) {
    const __m256i pairs = _mm256_maddubs_epi16(w, _mm256_loadu_si256((const __m256i *)q));  // at most 2 * 3 * 127
    return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}

static inline __m256i four(const int8_t *q) {
    int32_t bits;
    memcpy(&bits, q, 4);
    return _mm256_set1_epi32(bits);
}
