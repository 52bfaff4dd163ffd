// The kernels' platform on the host: what platform.cuh says for a device, with every thread of a block a fiber.
//
// Blocks run one after the other. What a warp does together (shuffles, ballots, products) waits until all of its lanes are there; a
// lane that has ended, or that is somewhere else, is an error in the kernel and ends the process with a message.
#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>

#include <algorithm>

#define UNROLLED
#define DEVICE static inline
#define DEVICE_MEMBER inline
#define __shared__ static

using std::max;
using std::min;

struct uint2 {
    unsigned x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct dim3 {
    unsigned x, y, z;
};

namespace emulation {

enum Kind { SHUFFLE_XOR, SHUFFLE, BALLOT, WARP_BARRIER, BYTES_32, BYTES_16, HALVES };

// What a lane brings to what its warp does together, and what it takes away.
struct Lane {
    uint64_t words[5];
};

struct Thread {
    dim3 index;
    Lane lane;
};

extern Thread *current;
extern dim3 block_index, block_dim, grid_dim;
extern unsigned char *dynamic_shared;

// Waits for the other lanes; the last one computes for all.
void together(Kind kind, int argument);
void block_barrier();

struct Kernel {
    const char *name;
    size_t parameter_bytes;
    unsigned most_threads;
    void (*body)(const void *parameters);
    Kernel *next;
    Kernel(const char *name, size_t parameter_bytes, unsigned most_threads, void (*body)(const void *));
};
const Kernel *kernel_named(const char *name);
// All blocks of a launch. NULL, or what is wrong with it.
const char *run(const Kernel *kernel, dim3 grid, dim3 block, size_t shared_bytes, const void *parameters);

template <typename T>
inline void bring(int word, T value) {
    static_assert(sizeof(T) <= 8);
    memcpy(&current->lane.words[word], &value, sizeof value);
}
template <typename T>
inline T take(int word) {
    T value;
    memcpy(&value, &current->lane.words[word], sizeof value);
    return value;
}

}  // namespace emulation

#define threadIdx (emulation::current->index)
#define blockIdx emulation::block_index
#define blockDim emulation::block_dim
#define gridDim emulation::grid_dim

#define SIGMA_KERNEL(name, Parameters, threads, blocks) \
    static void name##_body(const Parameters &p); \
    static emulation::Kernel name##_kernel(#name, sizeof(Parameters), threads, \
                                           [](const void *p) { name##_body(*(const Parameters *)p); }); \
    static void name##_body(const Parameters &p)

#define DYNAMIC_SHARED(Element, name) Element *name = reinterpret_cast<Element *>(emulation::dynamic_shared)

DEVICE float as_float(unsigned bits) {
    float value;
    memcpy(&value, &bits, 4);
    return value;
}
DEVICE unsigned as_bits(float value) {
    unsigned bits;
    memcpy(&bits, &value, 4);
    return bits;
}

DEVICE uint2 load_weights2(const void *p) { return *(const uint2 *)p; }
DEVICE uint4 load_weights4(const void *p) { return *(const uint4 *)p; }
DEVICE float load_fresh(const float *p) { return *p; }

DEVICE float half_to_float(unsigned short bits) {
    _Float16 half;
    memcpy(&half, &bits, 2);
    return (float)half;
}
DEVICE unsigned short float_to_half(float value) {
    const _Float16 half = (_Float16)value;
    unsigned short bits;
    memcpy(&bits, &half, 2);
    return bits;
}
DEVICE unsigned pack_halves(float low, float high) { return (unsigned)float_to_half(high) << 16 | float_to_half(low); }

DEVICE float exp2_fast(float x) { return exp2f(x); }
DEVICE int __popc(unsigned x) { return __builtin_popcount(x); }

template <typename T>
inline T shuffled_xor(T value, int lanes) {
    emulation::bring(0, value);
    emulation::together(emulation::SHUFFLE_XOR, lanes);
    return emulation::take<T>(1);
}
DEVICE float shuffle_xor(float value, int lanes) { return shuffled_xor(value, lanes); }
DEVICE int shuffle_xor(int value, int lanes) { return shuffled_xor(value, lanes); }
DEVICE unsigned long long shuffle_xor(unsigned long long value, int lanes) { return shuffled_xor(value, lanes); }
DEVICE float shuffle(float value, int lane) {
    emulation::bring(0, value);
    emulation::bring(2, lane);
    emulation::together(emulation::SHUFFLE, 0);
    return emulation::take<float>(1);
}
DEVICE unsigned ballot(bool value) {
    emulation::bring(0, (unsigned)value);
    emulation::together(emulation::BALLOT, 0);
    return emulation::take<unsigned>(1);
}
DEVICE void sync_warp() { emulation::together(emulation::WARP_BARRIER, 0); }
DEVICE void sync_block() { emulation::block_barrier(); }
DEVICE void fence() {}
DEVICE int count_up(int *counter) { return (*counter)++; }

// words 0, 1: a; 2: b; 3, 4: c.
DEVICE void mma_bytes_32(int c[4], unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0, unsigned b1) {
    emulation::bring(0, uint2{a0, a1});
    emulation::bring(1, uint2{a2, a3});
    emulation::bring(2, uint2{b0, b1});
    memcpy(&emulation::current->lane.words[3], c, 16);
    emulation::together(emulation::BYTES_32, 0);
    memcpy(c, &emulation::current->lane.words[3], 16);
}
DEVICE void mma_bytes_16(int c[4], unsigned a0, unsigned a1, unsigned b0) {
    emulation::bring(0, uint2{a0, a1});
    emulation::bring(2, uint2{b0, 0});
    memcpy(&emulation::current->lane.words[3], c, 16);
    emulation::together(emulation::BYTES_16, 0);
    memcpy(c, &emulation::current->lane.words[3], 16);
}
DEVICE void mma_halves(float c[4], const unsigned a[4], unsigned b0, unsigned b1) {
    emulation::bring(0, uint2{a[0], a[1]});
    emulation::bring(1, uint2{a[2], a[3]});
    emulation::bring(2, uint2{b0, b1});
    memcpy(&emulation::current->lane.words[3], c, 16);
    emulation::together(emulation::HALVES, 0);
    memcpy(c, &emulation::current->lane.words[3], 16);
}
