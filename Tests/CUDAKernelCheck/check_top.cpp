// The largest logits against a sort; and the measuring loops, whose results are known.
#include <algorithm>

#include "check.h"

namespace {

void check_selection(int count, int rows, int top, bool masked, uint64_t seed) {
    const int stride = count + 5;
    Memory<float> logits((size_t)rows * stride);
    for (size_t i = 0; i < logits.count; i++) {
        // Few different values, so that many are equal.
        const uint64_t bits = next_random(seed);
        logits[i] = bits % 97 == 0 ? NAN : bits % 89 == 0 ? -INFINITY : bits % 13 == 0 ? -0.0f : (float)(int)(bits % (count < 100 ? 5 : 200)) - (count < 100 ? 2 : 100);
    }
    Memory<uint32_t> allowed((size_t)(count + 31) / 32);
    for (size_t i = 0; i < allowed.count; i++) allowed[i] = (uint32_t)(next_random(seed) | next_random(seed));
    std::vector<Memory<uint64_t> *> levels;
    sigma_cuda_top p = {logits.address(), 0, masked ? allowed.address() : 0, 0, rows, count, stride, top};
    for (;;) {
        const int slices = sigma_cuda_slices(p.count);
        levels.push_back(new Memory<uint64_t>((size_t)rows * slices * top));
        p.output = levels.back()->address();
        LAUNCH(top, p);
        if (slices == 1) break;
        p.keys = p.output;
        p.count = slices * top;
    }
    for (int row = 0; row < rows; row++) {
        std::vector<int> ids;
        for (int id = 0; id < count; id++)
            if (!isnan(logits[(size_t)row * stride + id]) && (!masked || (allowed[id / 32] >> id % 32 & 1))) ids.push_back(id);
        std::sort(ids.begin(), ids.end(), [&](int a, int b) {
            const float x = logits[(size_t)row * stride + a], y = logits[(size_t)row * stride + b];
            return x > y || (x == y && a < b);
        });
        for (int i = 0; i < top; i++) {
            const uint64_t key = (*levels.back())[(size_t)row * top + i];
            if (i >= (int)ids.size()) {
                expect(key == 0, "no more", row, i);
                continue;
            }
            expect(sigma_cuda_key_id(key) == ids[i], "id", row, i, sigma_cuda_key_id(key));
            expect(sigma_cuda_key_logit(key) == logits[(size_t)row * stride + ids[i]], "logit", row, i);
        }
    }
    for (auto *level : levels) delete level;
}

}  // namespace

void check_top() {
    begin("top");
    check_selection(1, 1, 1, false, 1);
    check_selection(50, 2, 64, true, 2);
    check_selection(1024, 1, 20, true, 3);
    check_selection(5000, 3, 20, false, 4);
    check_selection(5000, 2, 256, true, 5);
    check_selection(20064, 1, 64, true, 6);

    begin("measuring loops");
    Memory<unsigned> source(4 * 5000);
    uint64_t seed = 1;
    unsigned total = 0, found = 0;
    for (size_t i = 0; i < source.count; i += 4) {
        for (int j = 0; j < 4; j++) source[i + j] = (unsigned)next_random(seed);
        total += source[i] ^ source[i + 1] ^ source[i + 2] ^ source[i + 3];
    }
    const sigma_cuda_launch shape = sigma_cuda_launch_read(1);
    // A block keeps the sum of its first warp: with one warp a block, all that was read.
    Memory<unsigned> sink(shape.grid_x);
    sigma_cuda_launch narrow = shape;
    narrow.block = 32;
    launch("sigma_read", sigma_cuda_read{source.address(), sink.address(), source.count * 4}, narrow);
    for (size_t i = 0; i < sink.count; i++) found += sink[i];
    expect(found == total, "sum of what was read");
    const sigma_cuda_launch peak = sigma_cuda_launch_peak(1);
    Memory<unsigned> products(peak.grid_x * peak.block);
    launch("sigma_peak_fp32", sigma_cuda_peak{products.address(), 3, 0}, peak);
    // Thread 0 multiplies by one: each chain grows by a half three times.
    float sum;
    memcpy(&sum, products.base, 4);
    expect(sum == 28 + SIGMA_CUDA_PEAK_CHAINS * 1.5f, "chains of fp32");
    launch("sigma_peak_int8", sigma_cuda_peak{products.address(), 2, 0}, peak);
    // All chains are equal and there is an even number of them.
    expect(products[5] == 0, "chains of int8");
}
