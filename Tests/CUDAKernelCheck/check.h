// What the checks of the CUDA kernels share: reports, memory of exact sizes, uneven values, launches on the emulated device or a real one.
#pragma once

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "../CUDAEmulation/emulation.h"
#include "device.h"
#include "sigma_cuda.h"

// Rounding unit of fp32.
constexpr double UNIT_ROUNDING = 0x1p-24;

// Begins the report on something; what follows counts for it.
void begin(const char *name);
// |found - exact| <= bound, none of them not-a-number.
void expect_near(double found, double exact, double bound, const char *what, long a = 0, long b = 0, long c = 0);
void expect(bool holds, const char *what, long a = 0, long b = 0, long c = 0);
// Prints everything; whether nothing failed.
bool report();

uint64_t next_random(uint64_t &state);
// In -scale ..< scale, a few of them zero or small.
float uneven(uint64_t &state, float scale);

// Memory that ends at a page that cannot be touched (rounded up to 16 bytes), filled with 0xff: not a number.
template <typename T>
struct Memory {
    T *base = nullptr;
    size_t count = 0, mapped = 0;
    char *mapping = nullptr;
    uint64_t on_device = 0;

    explicit Memory(size_t count) : count(count) {
        const size_t page = (size_t)sysconf(_SC_PAGESIZE), used = (count * sizeof(T) + 63) & ~(size_t)63;
        mapped = ((used + page - 1) & ~(page - 1)) + page;
        mapping = (char *)mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (mapping == MAP_FAILED) abort();
        mprotect(mapping + mapped - page, page, PROT_NONE);
        base = (T *)(mapping + mapped - page - used);
        memset((void *)base, 0xff, used);
        if (device::is_open) on_device = device::add(base, used);
    }
    Memory(const std::vector<T> &values) : Memory(values.size()) {
        if (count) memcpy((void *)base, values.data(), count * sizeof(T));
    }
    Memory(const Memory &) = delete;
    ~Memory() {
        if (on_device) device::remove(on_device);
        munmap(mapping, mapped);
    }
    T &operator[](size_t i) { return base[i]; }
    const T &operator[](size_t i) const { return base[i]; }
    // For kernels.
    sigma_device address(size_t i = 0) const { return (on_device ? on_device : (uint64_t)(uintptr_t)base) + i * sizeof(T); }
    void clear() { memset((void *)base, 0xff, count * sizeof(T)); }
};

std::vector<float> uneven_row(size_t count, uint64_t seed, float scale);

template <typename Parameters>
void launch(const std::string &kernel, const Parameters &p, sigma_cuda_launch shape) {
    if (device::is_open) {
        if (const char *wrong = device::launch(kernel.c_str(), shape, &p)) {
            fprintf(stderr, "%s: %s\n", kernel.c_str(), wrong);
            exit(1);
        }
        return;
    }
    const emulation::Kernel *found = emulation::kernel_named(kernel.c_str());
    if (!found || found->parameter_bytes != sizeof p) {
        fprintf(stderr, "no kernel %s with these parameters\n", kernel.c_str());
        exit(1);
    }
    const char *wrong =
        emulation::run(found, {shape.grid_x, shape.grid_y, shape.grid_z}, {shape.block, 1, 1}, shape.shared, &p);
    if (wrong) {
        fprintf(stderr, "%s: %s\n", kernel.c_str(), wrong);
        exit(1);
    }
}
#define LAUNCH(name, p) launch("sigma_" #name, p, sigma_cuda_launch_##name(&p))

// A weight matrix as a model file has it, and its values.
struct Matrix {
    int type, rows, columns;
    std::vector<float> values;  // [rows, columns]
    std::vector<unsigned char> bytes;

    Matrix(int type, int rows, int columns, uint64_t seed);
    sigma_cuda_matrix at(sigma_device address) const { return {address, type, rows, columns, 0}; }
};

// Bits of two float results are the same.
inline bool same_bits(float a, float b) { return memcmp(&a, &b, 4) == 0; }

// A row's blocks as numbers: scale * q, columns in order.
std::vector<double> block_values(const sigma_cuda_block *blocks, int columns);

void check_inputs();
void check_products();
void check_experts();
void check_attention();
void check_routing();
void check_top();
