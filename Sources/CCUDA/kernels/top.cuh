// The largest logits; and loops that measure what the device can do at most.
#pragma once

// Keys of a slice, sorted in shared memory; the first ones go out.
SIGMA_KERNEL(sigma_top, sigma_cuda_top, 256, 2) {
    DYNAMIC_SHARED(unsigned long long, keys);
    const int row = (int)blockIdx.y, first = (int)blockIdx.x * SIGMA_CUDA_TOP_SLICE;
    for (int i = (int)threadIdx.x; i < SIGMA_CUDA_TOP_SLICE; i += (int)blockDim.x) {
        const int id = first + i;
        unsigned long long key = 0;
        if (id < p.count && p.keys) {
            key = at<const unsigned long long>(p.keys)[(size_t)row * p.count + id];
        } else if (id < p.count) {
            const float logit = at<const float>(p.logits)[(size_t)row * p.stride + id];
            const bool is_allowed = !p.allowed || (at<const unsigned>(p.allowed)[id / 32] >> id % 32 & 1);
            if (is_allowed && logit == logit) key = (unsigned long long)ordered_score(logit) << 32 | (0xffffffffu - (unsigned)id);
        }
        keys[i] = key;
    }
    // Bitonic sort, largest first.
    for (int length = 2; length <= SIGMA_CUDA_TOP_SLICE; length *= 2)
        for (int distance = length / 2; distance > 0; distance /= 2) {
            sync_block();
            for (int i = (int)threadIdx.x; i < SIGMA_CUDA_TOP_SLICE / 2; i += (int)blockDim.x) {
                const int low = i / distance * 2 * distance + i % distance, high = low + distance;
                const unsigned long long a = keys[low], b = keys[high];
                if ((a < b) == ((low & length) == 0)) {
                    keys[low] = b;
                    keys[high] = a;
                }
            }
        }
    sync_block();
    unsigned long long *output = at<unsigned long long>(p.output) + ((size_t)row * gridDim.x + blockIdx.x) * p.top;
    for (int i = (int)threadIdx.x; i < p.top; i += (int)blockDim.x) output[i] = keys[i];
}

SIGMA_KERNEL(sigma_read, sigma_cuda_read, 256, 4) {
    const size_t count = p.byte_count / 16, stride = (size_t)gridDim.x * blockDim.x;
    const uint4 *source = at<const uint4>(p.source);
    unsigned total = 0;
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    for (; i + 3 * stride < count; i += 4 * stride) {
        uint4 v[4];
        UNROLLED for (int j = 0; j < 4; j++) v[j] = load_weights4(source + i + j * stride);
        UNROLLED for (int j = 0; j < 4; j++) total += v[j].x ^ v[j].y ^ v[j].z ^ v[j].w;
    }
    for (; i < count; i += stride) {
        const uint4 v = load_weights4(source + i);
        total += v.x ^ v.y ^ v.z ^ v.w;
    }
    // The sum is kept, so that the compiler keeps the loads.
    UNROLLED for (int distance = 16; distance > 0; distance /= 2) total += (unsigned)shuffle_xor((int)total, distance);
    if (threadIdx.x == 0) at<unsigned>(p.sink)[blockIdx.x] = total;
}

// Chains of products in registers, as many as hide their latency.
SIGMA_KERNEL(sigma_peak_int8, sigma_cuda_peak, 256, 4) {
    int sums[SIGMA_CUDA_PEAK_CHAINS][4];
    UNROLLED for (int chain = 0; chain < SIGMA_CUDA_PEAK_CHAINS; chain++)
        UNROLLED for (int i = 0; i < 4; i++) sums[chain][i] = 0;
    const unsigned a = threadIdx.x * 0x01030507u, b = threadIdx.x * 0x02010401u;
    for (int i = 0; i < p.iterations; i++)
        UNROLLED for (int chain = 0; chain < SIGMA_CUDA_PEAK_CHAINS; chain++) mma_bytes_32(sums[chain], a, a + 1, a + 2, a + 3, b, b + 1);
    int total = 0;
    UNROLLED for (int chain = 0; chain < SIGMA_CUDA_PEAK_CHAINS; chain++)
        UNROLLED for (int i = 0; i < 4; i++) total ^= sums[chain][i];
    at<int>(p.sink)[blockIdx.x * blockDim.x + threadIdx.x] = total;
}

SIGMA_KERNEL(sigma_peak_fp32, sigma_cuda_peak, 256, 4) {
    float sums[SIGMA_CUDA_PEAK_CHAINS];
    UNROLLED for (int chain = 0; chain < SIGMA_CUDA_PEAK_CHAINS; chain++) sums[chain] = (float)chain;
    const float a = 1.0f - 0.0001f * (float)(int)threadIdx.x;
    for (int i = 0; i < p.iterations; i++)
        UNROLLED for (int chain = 0; chain < SIGMA_CUDA_PEAK_CHAINS; chain++) sums[chain] = fmaf(sums[chain], a, 0.5f);
    float total = 0.0f;
    UNROLLED for (int chain = 0; chain < SIGMA_CUDA_PEAK_CHAINS; chain++) total += sums[chain];
    at<float>(p.sink)[blockIdx.x * blockDim.x + threadIdx.x] = total;
}
