// fp16, packed weights and their 8-bit dot products in 128-bit vectors: part of the levels for aarch64, whose baseline has the conversions. A
// level defines DOT(sum, w, q, lane): sums of products of four columns' weights of up to six bits with the four bytes of one lane of q.

static inline float32x4_t load_half(const uint16_t *p) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))); }

typedef uint8x16_t vw;

static inline vw load_weights(const uint8_t *p) { return vld1q_u8(p); }
static inline vw low_nibbles(vw v) { return vandq_u8(v, vdupq_n_u8(15)); }
static inline vw high_nibbles(vw v) { return vshrq_n_u8(v, 4); }
// Shift-left-and-insert takes all of its operand's lower four bits, so that other fields must be gone from them.
static inline vw join_six(vw low, vw pairs, int field) {
    switch (field) {
    case 0: return vsliq_n_u8(low, vandq_u8(pairs, vdupq_n_u8(3)), 4);
    case 1: return vorrq_u8(low, vandq_u8(vshlq_n_u8(pairs, 2), vdupq_n_u8(0x30)));
    case 2: return vorrq_u8(low, vandq_u8(pairs, vdupq_n_u8(0x30)));
    default: return vsliq_n_u8(low, vshrq_n_u8(pairs, 6), 4);
    }
}

static inline vw join_bit(vw low, vw bits, int column, int place) {
    const vw moved = vshlq_u8(bits, vdupq_n_s8((int8_t)(place - column)));
    return vorrq_u8(low, vandq_u8(moved, vdupq_n_u8((uint8_t)(1 << place))));
}
static inline vw lookup(const uint8_t *table, vw v) { return vqtbl1q_u8(vld1q_u8(table), v); }

static inline vw two_bits(vw v, int field) {
    return field == 0 ? vandq_u8(v, vdupq_n_u8(3)) : field == 3 ? vshrq_n_u8(v, 6) : vandq_u8(field == 1 ? vshrq_n_u8(v, 2) : vshrq_n_u8(v, 4), vdupq_n_u8(3));
}
static inline int32x4_t dot_along(vw w, const int8_t *q) { return vdotq_s32(vdupq_n_s32(0), vreinterpretq_s8_u8(w), vld1q_s8(q)); }

// Over 16 columns.
#define DOT_16(sum, w, q) DOT(DOT(DOT(DOT(sum, (w)[0], q, 0), (w)[1], q, 1), (w)[2], q, 2), (w)[3], q, 3)

static inline int32x4_t dot_32(const vw w[8], const int8_t *q, int32_t offset) {
    const int8x16_t first = vld1q_s8(q), second = vld1q_s8(q + 16);
    const int32x4_t half = DOT_16(vdupq_n_s32(offset), w, first);
    return DOT_16(half, w + 4, second);
}

static inline int32x4_t dot_nibbles(const vw w[8], const sigma_activation_block *b) { return dot_32(w, b->q, b->both); }
static inline int32x4_t dot_nibbles_raw(const vw w[8], const sigma_activation_block *b) { return dot_32(w, b->q, 0); }
static inline int32x4_t dot_six(const vw w[4], const int8_t *q, int32_t sum) {
    const int8x16_t activations = vld1q_s8(q);
    return DOT_16(vdupq_n_s32(sum), w, activations);
}

// The halves of the pairs are taken apart once for all queries.
static inline int32x4_t add_pairs(int32x4_t sums, int16x8_t w, int32_t pair) {
    const int16x4_t both = vreinterpret_s16_s32(vdup_n_s32(pair));
    const int16x4_t first = vget_low_s16(vuzp1q_s16(w, w)), second = vget_low_s16(vuzp2q_s16(w, w));
    return vmlal_lane_s16(vmlal_lane_s16(sums, first, both, 0), second, both, 1);
}
