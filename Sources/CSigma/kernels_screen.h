// The planes that screen an output head (docs/model-file.md, "Screening planes"): part of kernels_body.h. Beside what kernels_packed.h lists, a
// level defines
//   two_bits(v, field)   bits 2 field and 2 field + 1 of each byte
//   dot_along(w, q)      vi: of each lane the sum of its four weights of two bits times q of the same place

// `rows` (a constant where it is called) states against the rows part * LANES ..< (part + 1) * LANES of a group.
INLINE void screen_tile(const uint8_t *group, size_t ahead, int part, int k, const sigma_screen_state *x, int rows, float *y,
                        size_t y_stride) {
    const uint8_t *values = group + 4 * LANES * part;
    const int8_t *q[8];
    vi sums[8];
    UNROLLED for (int i = 0; i < rows; i++) {
        q[i] = x[i].q;
        sums[i] = (vi){0};
    }
    for (int c = 0; c < k; c += 16, values += 64) {
        __builtin_prefetch(values + ahead, 0, 2);
        const vw all = load_weights(values);
        const vw w[4] = {two_bits(all, 0), two_bits(all, 1), two_bits(all, 2), two_bits(all, 3)};
        UNROLLED for (int i = 0; i < rows; i++) sums[i] += (vi)dot_six(w, q[i] + c, 0);
    }
    const uint8_t *numbers = group + 4 * k;
    const vf half_step = load((const float *)numbers + LANES * part);
    const vf error = load_half((const uint16_t *)(numbers + 64) + LANES * part);
    const vf norm = load_half((const uint16_t *)(numbers + 96) + LANES * part);
    UNROLLED for (int i = 0; i < rows; i++) {
        const vf margin = error * x[i].error_margin + (norm * x[i].norm_margin + x[i].offset);
        store(y + (size_t)i * y_stride + LANES * part, from_int(2 * sums[i] - 3 * x[i].sum) * (half_step * x[i].scale) + margin);
    }
}

INLINE void screen_group(const uint8_t *group, size_t ahead, int k, const sigma_screen_state *x, int m, float *y, size_t y_stride) {
    for (int part = 0; part < SIGMA_GROUP / LANES; part++) {
        int i = 0;
        for (; i + 8 <= m; i += 8) screen_tile(group, ahead, part, k, x + i, 8, y + (size_t)i * y_stride, y_stride);
        for (; i + 4 <= m; i += 4) screen_tile(group, ahead, part, k, x + i, 4, y + (size_t)i * y_stride, y_stride);
        for (; i + 2 <= m; i += 2) screen_tile(group, ahead, part, k, x + i, 2, y + (size_t)i * y_stride, y_stride);
        if (i < m) screen_tile(group, ahead, part, k, x + i, 1, y + (size_t)i * y_stride, y_stride);
    }
}

static void screen_rows(const void *groups, int n, int k, const sigma_screen_state *x, int m, float *y, size_t y_stride) {
    const size_t bytes = 4 * (size_t)k + 192;
    const uint8_t *group = groups;
    int j = 0;
    for (; j + SIGMA_GROUP <= n; j += SIGMA_GROUP, group += bytes) screen_group(group, bytes, k, x, m, y + j, y_stride);
    // The last group's missing rows must not be written to y.
    for (int i = 0; j < n && i < m; i++) {
        float whole[SIGMA_GROUP];
        screen_group(group, 0, k, x + i, 1, whole, SIGMA_GROUP);
        __builtin_memcpy(y + (size_t)i * y_stride + j, whole, (size_t)(n - j) * sizeof(float));
    }
}

static int32_t screen_fine(const void *row, int k, const int8_t *q) {
    const uint8_t *values = row;
    vi sums[4] = {{0}, {0}, {0}, {0}};
    for (int c = 0; c < k; c += 256, values += 64)
        UNROLLED for (int part = 0; part < 16 / LANES; part++) {
            const vw all = load_weights(values + 4 * LANES * part);
            const int8_t *at = q + c + 4 * LANES * part;
            sums[0] += (vi)dot_along(two_bits(all, 0), at);
            sums[1] += (vi)dot_along(two_bits(all, 1), at + 64);
            sums[2] += (vi)dot_along(two_bits(all, 2), at + 128);
            sums[3] += (vi)dot_along(two_bits(all, 3), at + 192);
        }
    return integer_lane_sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
}
