// What the kernels need of the machine, as small functions. The tests' emulation has the same ones for the host.
#pragma once

#ifdef SIGMA_EMULATION
#include "emulation.h"
#else

#define UNROLLED _Pragma("unroll")
#define DEVICE static __device__ __forceinline__
#define DEVICE_MEMBER __device__ __forceinline__

// A kernel with one by-value structure `p`, for blocks of at most `threads` threads of which `blocks` shall fit a multiprocessor.
// __grid_constant__ lets arrays inside p be indexed without a copy of p on the stack.
#if __CUDACC_VER_MAJOR__ >= 12
#define SIGMA_KERNEL(name, Parameters, threads, blocks) \
    extern "C" __global__ void __launch_bounds__(threads, blocks) name(const __grid_constant__ Parameters p)
#else
#define SIGMA_KERNEL(name, Parameters, threads, blocks) \
    extern "C" __global__ void __launch_bounds__(threads, blocks) name(const Parameters p)
#endif

// The launch's dynamic shared memory.
extern __shared__ uint4 sigma_dynamic_shared[];
#define DYNAMIC_SHARED(Element, name) Element *name = reinterpret_cast<Element *>(sigma_dynamic_shared)

DEVICE float as_float(unsigned bits) { return __uint_as_float(bits); }
DEVICE unsigned as_bits(float value) { return __float_as_uint(value); }

// Weights are read once: they pass by the first cache.
DEVICE uint2 load_weights2(const void *p) {
    uint2 v;
    asm("ld.global.nc.L1::no_allocate.v2.u32 {%0, %1}, [%2];" : "=r"(v.x), "=r"(v.y) : "l"(p));
    return v;
}
DEVICE uint4 load_weights4(const void *p) {
    uint4 v;
    asm("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(p));
    return v;
}
// What other blocks of the same launch wrote.
DEVICE float load_fresh(const float *p) { return __ldcg(p); }

DEVICE float half_to_float(unsigned short bits) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
}
// To nearest even.
DEVICE unsigned short float_to_half(float value) {
    unsigned short bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}
// Two in one word, `low` in its lower half.
DEVICE unsigned pack_halves(float low, float high) {
    unsigned bits;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
    return bits;
}

// 2^x, exactly 1 at 0 and 0 at -infinity.
DEVICE float exp2_fast(float x) {
    float y;
    asm("ex2.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// Values of all lanes of a warp.
DEVICE float shuffle_xor(float value, int lanes) { return __shfl_xor_sync(0xffffffffu, value, lanes); }
DEVICE int shuffle_xor(int value, int lanes) { return __shfl_xor_sync(0xffffffffu, value, lanes); }
DEVICE unsigned long long shuffle_xor(unsigned long long value, int lanes) { return __shfl_xor_sync(0xffffffffu, value, lanes); }
DEVICE float shuffle(float value, int lane) { return __shfl_sync(0xffffffffu, value, lane); }
DEVICE unsigned ballot(bool value) { return __ballot_sync(0xffffffffu, value); }
DEVICE void sync_warp() { __syncwarp(); }
DEVICE void sync_block() { __syncthreads(); }
// What this thread wrote before is seen by whoever sees what it writes afterwards.
DEVICE void fence() { __threadfence(); }
DEVICE int count_up(int *counter) { return atomicAdd(counter, 1); }

// c [16, 8] += a [16, k] b [k, 8]: unsigned times signed bytes, k = 32 and 16. In lane 4 g + t:
// a: rows g, g + 8 (even, odd registers), columns 4 t ..< 4 t + 4 (and for k = 32 registers 2, 3: columns 16 + 4 t ...);
// b: column g, rows as a's columns; c: row g columns 2 t, 2 t + 1, then row g + 8.
DEVICE void mma_bytes_32(int c[4], unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0, unsigned b1) {
    asm("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
DEVICE void mma_bytes_16(int c[4], unsigned a0, unsigned a1, unsigned b0) {
    asm("mma.sync.aligned.m16n8k16.row.col.s32.u8.s8.s32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
        : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
        : "r"(a0), "r"(a1), "r"(b0));
}
// c [16, 8] += a [16, 16] b [16, 8] in fp16 with fp32 sums. a: rows g, g + 8, columns 2 t, 2 t + 1; then columns 2 t + 8, 2 t + 9.
// b: column g, rows 2 t, 2 t + 1; then 2 t + 8, 2 t + 9.
DEVICE void mma_halves(float c[4], const unsigned a[4], unsigned b0, unsigned b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

#endif

#define LANE ((int)(threadIdx.x % 32))
#define WARP ((int)(threadIdx.x / 32))
#define WARPS ((int)(blockDim.x / 32))

template <typename T>
DEVICE T *at(sigma_device address) {
    return reinterpret_cast<T *>(address);
}
