// Checks every CUDA kernel against scalar twins in fp64, and the promise that few rows and many, whole prompts and pieces give the same
// bits: on the emulated device, or with --device on the first real one (69: there is none, or no NVRTC).
#include <map>

#include "check.h"
#include "sigma_half.h"
#include "sigma_kernels.h"
extern "C" {
#include "sigma_packing.h"
}

namespace {
struct Report {
    std::string name;
    long comparisons = 0, failures = 0;
    double worst = 0;
};
std::vector<Report> reports;
}  // namespace

void begin(const char *name) { reports.push_back({name}); }

void expect(bool holds, const char *what, long a, long b, long c) {
    Report &own = reports.back();
    own.comparisons++;
    if (holds) return;
    if (own.failures++ < 5) printf("%s: %s [%ld %ld %ld]\n", own.name.c_str(), what, a, b, c);
}

void expect_near(double found, double exact, double bound, const char *what, long a, long b, long c) {
    const double error = fabs(found - exact);
    Report &own = reports.back();
    if (error / bound > own.worst) own.worst = error / bound;
    own.comparisons++;
    if (error <= bound) return;
    if (own.failures++ < 5)
        printf("%s: %s [%ld %ld %ld]: found %.9g, exact %.9g, bound %.3g\n", own.name.c_str(), what, a, b, c, found, exact, bound);
}

bool report() {
    long failures = 0;
    for (const Report &own : reports) {
        printf("%-28s %8ld comparisons, %ld failures, worst %.3f of the bound\n", own.name.c_str(), own.comparisons, own.failures, own.worst);
        failures += own.failures;
        if (own.comparisons == 0) failures++;
    }
    return failures == 0;
}

uint64_t next_random(uint64_t &state) {
    state += 0x9e3779b97f4a7c15;
    uint64_t z = state;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

float uneven(uint64_t &state, float scale) {
    const uint64_t bits = next_random(state);
    const float value = ((float)(bits >> 40) * 0x1p-23f - 1.0f) * scale;
    return bits % 17 == 0 ? 0.0f : bits % 13 == 0 ? value * 0x1p-12f : value;
}

std::vector<float> uneven_row(size_t count, uint64_t seed, float scale) {
    std::vector<float> values(count);
    for (float &value : values) value = uneven(seed, scale);
    return values;
}

Matrix::Matrix(int type, int rows, int columns, uint64_t seed) : type(type), rows(rows), columns(columns) {
    values.resize((size_t)rows * columns);
    if (type == SIGMA_F32 || type == SIGMA_F16 || type == SIGMA_BF16) {
        const size_t size = type == SIGMA_F32 ? 4 : 2;
        bytes.resize(values.size() * size);
        for (size_t i = 0; i < values.size(); i++) {
            const float value = uneven(seed, 0.1f);
            uint32_t bits;
            memcpy(&bits, &value, 4);
            const uint16_t half = type == SIGMA_F16 ? sigma_float_to_half(value) : (uint16_t)(bits >> 16);
            const uint32_t upper = (uint32_t)half << 16;
            if (type == SIGMA_F32) memcpy(&bytes[4 * i], &value, 4);
            else memcpy(&bytes[2 * i], &half, 2);
            if (type == SIGMA_F32) values[i] = value;
            else if (type == SIGMA_F16) values[i] = sigma_half_to_float(half);
            else memcpy(&values[i], &upper, 4);
        }
        return;
    }
    // Random blocks; of every third row all bits of the quants are set or clear.
    const size_t length = type == SIGMA_Q8_0 || type == SIGMA_Q4_0 ? 32 : 256;
    const size_t block_bytes = type == SIGMA_Q8_0 ? 34 : type == SIGMA_Q4_0 ? 18 : type == SIGMA_Q4_K ? 144 : 210;
    const size_t row_bytes = columns / length * block_bytes, group_bytes = sigma_group_bytes(type, (size_t)columns);
    std::vector<unsigned char> blocks(rows * row_bytes);
    for (int row = 0; row < rows; row++)
        for (size_t b = 0; b < columns / length; b++) {
            unsigned char *block = &blocks[row * row_bytes + b * block_bytes];
            for (size_t i = 0; i < block_bytes; i++) block[i] = (unsigned char)(next_random(seed) >> 32);
            if (row % 3 == 2) memset(block, row % 2 ? 0xff : 0, block_bytes);
            const float scale = uneven(seed, 0.01f);
            const uint16_t d = sigma_float_to_half(scale), minimum = sigma_float_to_half(uneven(seed, 0.01f));
            if (type == SIGMA_Q6_K) memcpy(block + 208, &d, 2);
            else memcpy(block, &d, 2);
            if (type == SIGMA_Q4_K) memcpy(block + 2, &minimum, 2);
        }
    bytes.resize((rows + 15) / 16 * group_bytes);
    for (int row = 0; row < rows; row += 16) {
        unsigned char *group = &bytes[row / 16 * group_bytes];
        const int count = rows - row < 16 ? rows - row : 16;
        sigma_pack_group(type, &blocks[row * row_bytes], count, (size_t)columns, group);
        for (int r = 0; r < count; r++) sigma_dequantize_row(type, group, r, (size_t)columns, &values[(size_t)(row + r) * columns]);
    }
}

std::vector<double> block_values(const sigma_cuda_block *blocks, int columns) {
    std::vector<double> values(columns);
    for (int c = 0; c < columns; c++) {
        const int own = c % 32, t = own % 16 / 4;
        values[c] = (double)blocks[c / 32].scale * blocks[c / 32].q[8 * t + own / 16 * 4 + own % 4];
    }
    return values;
}

int main(int count, char **arguments) {
    if (count > 1 && strcmp(arguments[1], "--device") == 0) {
        if (const char *reason = device::open()) {
            fprintf(stderr, "no device to check: %s\n", reason);
            return 69;
        }
    } else if (count > 1) {
        fprintf(stderr, "usage: %s [--device]\n", arguments[0]);
        return 64;
    }
    check_inputs();
    check_products();
    check_experts();
    check_attention();
    check_routing();
    check_top();
    return report() ? 0 : 1;
}
