// The router's rules (scores, choice, weights), and slots sorted by expert.
#pragma once

// Order of scores as numbers: larger is preferred, whatever is no number comes last.
DEVICE unsigned ordered_score(float score) {
    if (!(score == score)) return 0;
    // Minus zero is zero.
    const unsigned bits = as_bits(score + 0.0f);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

// The choice of one row by one warp. scores: [experts] of shared memory.
DEVICE void choose_row(const sigma_cuda_choose &p, int row, float *scores) {
    const float *logits = at<const float>(p.logits) + (size_t)row * p.experts;
    if (p.softmax) {
        float most = as_float(0xff800000u), sum = 0.0f;
        for (int e = LANE; e < p.experts; e += 32) most = fmaxf(most, load_fresh(logits + e));
        most = warp_max(most);
        for (int e = LANE; e < p.experts; e += 32) {
            scores[e] = exponential(load_fresh(logits + e) - most);
            sum += scores[e];
        }
        sum = warp_sum(sum);
        for (int e = LANE; e < p.experts; e += 32) scores[e] = scores[e] / sum;
    } else {
        for (int e = LANE; e < p.experts; e += 32) {
            const float x = load_fresh(logits + e);
            scores[e] = 1.0f / (1.0f + exponential(-x > 88.0f ? 88.0f : -x));
        }
    }
    sync_warp();
    unsigned taken = 0;  // bit i: expert LANE + 32 i
    float sum = 0.0f;
    int *chosen = at<int>(p.chosen) + (size_t)row * p.choices;
    float *weights = at<float>(p.weights) + (size_t)row * p.choices;
    for (int choice = 0; choice < p.choices; choice++) {
        unsigned long long best = 0;
        for (int e = LANE, i = 0; e < p.experts; e += 32, i++) {
            if (taken >> i & 1) continue;
            const float score = scores[e] + (p.bias ? at<const float>(p.bias)[e] : 0.0f);
            const unsigned long long key = (unsigned long long)ordered_score(score) << 32 | (0xffffffffu - (unsigned)e);
            best = best > key ? best : key;
        }
        UNROLLED for (int distance = 16; distance > 0; distance /= 2) {
            const unsigned long long other = shuffle_xor(best, distance);
            best = best > other ? best : other;
        }
        const int expert = (int)(0xffffffffu - (unsigned)(best & 0xffffffffu));
        if (expert % 32 == LANE) taken |= 1u << expert / 32;
        sum += scores[expert];
        if (LANE == 0) {
            chosen[choice] = expert;
            weights[choice] = scores[expert];
        }
    }
    sync_warp();
    // The models' own code guards the division in the same way.
    const float factor = p.normalizes ? p.scale / (sum + 1e-20f) : p.scale;
    if (LANE == 0)
        for (int choice = 0; choice < p.choices; choice++) weights[choice] *= factor;
}

SIGMA_KERNEL(sigma_choose, sigma_cuda_choose, 128, 4) {
    DYNAMIC_SHARED(float, scores);
    const int row = (int)blockIdx.x * 4 + WARP;
    if (row < p.rows) choose_row(p, row, scores + WARP * p.experts);
}

SIGMA_KERNEL(sigma_route, sigma_cuda_route, 128, 4) {
    DYNAMIC_SHARED(float, shared);
    __shared__ int is_last;
    const int rows = p.choose.rows, expert = (int)blockIdx.x * 4 + WARP;
    float *squares = shared, *scores = shared + chunks_of(p.input.columns) * rows;
    measure_rows(p.input, 0, rows, squares);
    if (expert < p.router.rows) {
        float factors[SIGMA_CUDA_FEW_ROWS], dots[SIGMA_CUDA_FEW_ROWS];
        UNROLLED for (int row = 0; row < SIGMA_CUDA_FEW_ROWS; row++)
            factors[row] = row < rows ? norm_factor(p.input, squares, row) : 0.0f;
        const int type = p.router.type;
        const unsigned char *weights = at<const unsigned char>(p.router.data) + (size_t)expert * p.router.columns * float_bytes(type);
        float_dots(weights, type, p.input, 0, rows, factors, dots);
        if (LANE == 0) {
            UNROLLED for (int row = 0; row < SIGMA_CUDA_FEW_ROWS; row++)
                if (row < rows) at<float>(p.choose.logits)[(size_t)row * p.choose.experts + expert] = 0.0f + dots[row];
        }
    }
    fence();
    sync_block();
    if (threadIdx.x == 0) is_last = count_up(at<int>(p.counter)) == (int)gridDim.x - 1;
    sync_block();
    if (!is_last) return;
    fence();
    if (threadIdx.x == 0) *at<int>(p.counter) = 0;
    for (int row = WARP; row < rows; row += WARPS) choose_row(p.choose, row, scores + WARP * p.choose.experts);
}

// One block of threads; a warp looks for the slots of one expert after the other.
SIGMA_KERNEL(sigma_sort, sigma_cuda_sort, 1024, 1) {
    DYNAMIC_SHARED(int, shared);
    int *offsets = shared, *first_tiles = shared + p.experts + 1;
    const int *chosen = at<const int>(p.chosen);
    for (int expert = WARP; expert < p.experts; expert += WARPS) {
        int count = 0;
        for (int first = 0; first < p.slots; first += 32) {
            const int slot = first + LANE;
            count += __popc(ballot(slot < p.slots && chosen[slot] == expert));
        }
        if (LANE == 0) offsets[expert + 1] = count;
    }
    sync_block();
    if (threadIdx.x == 0) {
        offsets[0] = first_tiles[0] = 0;
        for (int expert = 0; expert < p.experts; expert++) {
            const int count = offsets[expert + 1];
            offsets[expert + 1] = offsets[expert] + count;
            first_tiles[expert + 1] = first_tiles[expert] + (count + SIGMA_CUDA_TILE_ROWS - 1) / SIGMA_CUDA_TILE_ROWS;
        }
    }
    sync_block();
    sigma_cuda_expert_tile *tiles = at<sigma_cuda_expert_tile>(p.tiles);
    for (int expert = WARP; expert < p.experts; expert += WARPS) {
        const int end = offsets[expert + 1];
        int next = offsets[expert];
        for (int tile = first_tiles[expert] + LANE; tile < first_tiles[expert + 1]; tile += 32) {
            const int first = next + (tile - first_tiles[expert]) * SIGMA_CUDA_TILE_ROWS;
            tiles[tile] = {expert, first, min((int)SIGMA_CUDA_TILE_ROWS, end - first), 0};
        }
        for (int first = 0; first < p.slots && next < end; first += 32) {
            const int slot = first + LANE;
            const bool is_own = slot < p.slots && chosen[slot] == expert;
            const unsigned lanes = ballot(is_own);
            if (is_own) at<int>(p.order)[next + __popc(lanes & ((1u << LANE) - 1))] = slot;
            next += __popc(lanes);
        }
    }
    for (int tile = first_tiles[p.experts] + (int)threadIdx.x; tile < p.tile_count; tile += (int)blockDim.x) tiles[tile] = {0, 0, 0, 0};
}
