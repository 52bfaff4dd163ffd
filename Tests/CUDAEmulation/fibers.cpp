// Runs a kernel's blocks on the host: fibers, barriers, and what the lanes of a warp do together.
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <vector>

#include "emulation.h"

// Saves what the caller must find again on its stack, stores the stack's end at *from, and goes on at `to`.
extern "C" void emulation_switch(void **from, void *to);

#if defined(__x86_64__)
asm(".text\n.globl emulation_switch\n.type emulation_switch,@function\nemulation_switch:\n"
    "  pushq %rbp\n  pushq %rbx\n  pushq %r12\n  pushq %r13\n  pushq %r14\n  pushq %r15\n"
    "  movq %rsp, (%rdi)\n  movq %rsi, %rsp\n"
    "  popq %r15\n  popq %r14\n  popq %r13\n  popq %r12\n  popq %rbx\n  popq %rbp\n  ret\n"
    ".size emulation_switch,.-emulation_switch\n");
#elif defined(__aarch64__)
asm(".text\n.globl emulation_switch\n.type emulation_switch,@function\nemulation_switch:\n"
    "  sub sp, sp, #160\n"
    "  stp x19, x20, [sp, #0]\n  stp x21, x22, [sp, #16]\n  stp x23, x24, [sp, #32]\n  stp x25, x26, [sp, #48]\n"
    "  stp x27, x28, [sp, #64]\n  stp x29, x30, [sp, #80]\n"
    "  stp d8, d9, [sp, #96]\n  stp d10, d11, [sp, #112]\n  stp d12, d13, [sp, #128]\n  stp d14, d15, [sp, #144]\n"
    "  mov x9, sp\n  str x9, [x0]\n  mov sp, x1\n"
    "  ldp x19, x20, [sp, #0]\n  ldp x21, x22, [sp, #16]\n  ldp x23, x24, [sp, #32]\n  ldp x25, x26, [sp, #48]\n"
    "  ldp x27, x28, [sp, #64]\n  ldp x29, x30, [sp, #80]\n"
    "  ldp d8, d9, [sp, #96]\n  ldp d10, d11, [sp, #112]\n  ldp d12, d13, [sp, #128]\n  ldp d14, d15, [sp, #144]\n"
    "  add sp, sp, #160\n  ret\n"
    ".size emulation_switch,.-emulation_switch\n");
#else
#error "the emulation's fibers know x86-64 and 64-bit ARM"
#endif

namespace emulation {

Thread *current;
dim3 block_index, block_dim, grid_dim;
unsigned char *dynamic_shared;

namespace {

constexpr int MOST_THREADS = 1024;
constexpr size_t STACK = 64 << 10;

enum State { READY, AT_WARP, AT_BLOCK, ENDED };

struct Fiber {
    Thread thread;  // first: `current` points to it
    void *stack;
    State state;
};

struct Warp {
    int waiting, live;
    Kind kind;
    int argument;
};

Fiber fibers[MOST_THREADS];
Warp warps[MOST_THREADS / 32];
int thread_count, at_block_barrier, live_threads;
void *scheduler_stack;
char *stacks;
unsigned char *shared_end;
size_t page;
const Kernel *running;
const void *parameters_now;

[[noreturn]] void fail(const char *what) {
    fprintf(stderr, "emulated device: %s, block %u %u %u: %s\n", running->name, block_index.x, block_index.y, block_index.z, what);
    abort();
}

int number_of(const Fiber *fiber) { return (int)(fiber - fibers); }

void resume(Fiber *from, Fiber *to) {
    current = &to->thread;
    emulation_switch(from ? &from->stack : &scheduler_stack, to->stack);
}

// Goes on with another thread: of the same warp, else of the next warps. Returns when this one may go on.
void give_way(Fiber *self) {
    const int own = number_of(self), base = own & ~31;
    for (int i = 1; i < 32; i++) {
        Fiber *other = &fibers[base + (own + i) % 32];
        if (other->state == READY) return resume(self, other);
    }
    for (int i = 32; i < thread_count; i++) {
        Fiber *other = &fibers[(base + i) % thread_count];
        if (other->state == READY) return resume(self, other);
    }
    if (self->state == READY) return;
    // Nobody can go on: all have ended, or some wait in vain.
    if (live_threads > 0) fail("threads wait for others that ended or wait elsewhere");
    void *ignored;
    emulation_switch(&ignored, scheduler_stack);
}

void release_block_if_complete() {
    if (live_threads == 0 || at_block_barrier < live_threads) return;
    at_block_barrier = 0;
    for (int i = 0; i < thread_count; i++)
        if (fibers[i].state == AT_BLOCK) fibers[i].state = READY;
}

extern "C" void emulation_thread() {
    running->body(parameters_now);
    Fiber *self = (Fiber *)current;
    Warp &warp = warps[number_of(self) / 32];
    self->state = ENDED;
    warp.live--;
    live_threads--;
    if (warp.waiting) fail("a lane ended while others of its warp wait for it");
    release_block_if_complete();
    give_way(self);
    abort();
}

void prepare(Fiber *fiber, int index) {
    fiber->thread.index = {(unsigned)index, 0, 0};
    fiber->state = READY;
    char *end = stacks + (size_t)(index + 1) * STACK;
#if defined(__x86_64__)
    // Six registers, the address to return to, and what keeps the stack's alignment after a call.
    void **top = (void **)end - 8;
    memset(top, 0, 64);
    top[6] = (void *)emulation_thread;
    fiber->stack = top;
#else
    void **top = (void **)(end - 160);
    memset(top, 0, 160);
    top[11] = (void *)emulation_thread;
    fiber->stack = top;
#endif
}

Lane &lane(int warp, int i) { return fibers[32 * warp + i].thread.lane; }

template <typename T>
T word(const Lane &lane, int i, int half) {
    static_assert(sizeof(T) == 4);
    T value;
    memcpy(&value, (const char *)&lane.words[i] + 4 * half, 4);
    return value;
}

// c[16][8] += a[16][k] b[k][8] as the lanes hold them.
void multiply_bytes(int warp, int k) {
    static uint8_t a[16][32];
    static int8_t b[8][32];
    for (int l = 0; l < 32; l++) {
        const int g = l / 4, t = l % 4;
        const Lane &own = lane(warp, l);
        for (int part = 0; part < k / 16; part++) {
            memcpy(&a[g][16 * part + 4 * t], &own.words[part], 4);
            memcpy(&a[g + 8][16 * part + 4 * t], (const char *)&own.words[part] + 4, 4);
            memcpy(&b[g][16 * part + 4 * t], (const char *)&own.words[2] + 4 * part, 4);
        }
    }
    for (int l = 0; l < 32; l++) {
        int c[4];
        memcpy(c, &lane(warp, l).words[3], 16);
        for (int i = 0; i < 4; i++) {
            const uint8_t *row = a[l / 4 + i / 2 * 8];
            const int8_t *column = b[l % 4 * 2 + i % 2];
            int sum = 0;
            for (int j = 0; j < k; j++) sum += row[j] * column[j];
            c[i] += sum;
        }
        memcpy(&lane(warp, l).words[3], c, 16);
    }
}

void multiply_halves(int warp) {
    static float a[16][16], b[8][16];
    for (int l = 0; l < 32; l++) {
        const int g = l / 4, t = l % 4;
        const Lane &own = lane(warp, l);
        for (int r = 0; r < 4; r++) {
            const unsigned bits = word<unsigned>(own, r / 2, r % 2);
            for (int i = 0; i < 2; i++) a[g + r % 2 * 8][2 * t + i + r / 2 * 8] = half_to_float((unsigned short)(bits >> 16 * i));
        }
        for (int r = 0; r < 2; r++) {
            const unsigned bits = word<unsigned>(own, 2, r);
            for (int i = 0; i < 2; i++) b[g][2 * t + i + r * 8] = half_to_float((unsigned short)(bits >> 16 * i));
        }
    }
    for (int l = 0; l < 32; l++) {
        float c[4];
        memcpy(c, &lane(warp, l).words[3], 16);
        for (int i = 0; i < 4; i++) {
            const float *row = a[l / 4 + i / 2 * 8], *column = b[l % 4 * 2 + i % 2];
            // Products of halves are exact in fp32; the device's own order and precision of the sum are not documented.
            float sum = 0;
            for (int j = 0; j < 16; j++) sum += row[j] * column[j];
            c[i] += sum;
        }
        memcpy(&lane(warp, l).words[3], c, 16);
    }
}

void compute(int warp, Kind kind, int argument) {
    switch (kind) {
    case SHUFFLE_XOR:
        for (int i = 0; i < 32; i++) lane(warp, i).words[1] = lane(warp, i ^ argument).words[0];
        break;
    case SHUFFLE:
        for (int i = 0; i < 32; i++) lane(warp, i).words[1] = lane(warp, (int)(lane(warp, i).words[2] & 31)).words[0];
        break;
    case BALLOT: {
        uint64_t lanes = 0;
        for (int i = 0; i < 32; i++) lanes |= (uint64_t)(lane(warp, i).words[0] & 1) << i;
        for (int i = 0; i < 32; i++) lane(warp, i).words[1] = lanes;
        break;
    }
    case WARP_BARRIER: break;
    case BYTES_32: multiply_bytes(warp, 32); break;
    case BYTES_16: multiply_bytes(warp, 16); break;
    case HALVES: multiply_halves(warp); break;
    }
}

Kernel *&first_kernel() {
    static Kernel *first;
    return first;
}

}  // namespace

Kernel::Kernel(const char *name, size_t parameter_bytes, unsigned most_threads, void (*body)(const void *))
    : name(name), parameter_bytes(parameter_bytes), most_threads(most_threads), body(body), next(first_kernel()) {
    first_kernel() = this;
}

const Kernel *kernel_named(const char *name) {
    for (const Kernel *kernel = first_kernel(); kernel; kernel = kernel->next)
        if (strcmp(kernel->name, name) == 0) return kernel;
    return nullptr;
}

void together(Kind kind, int argument) {
    Fiber *self = (Fiber *)current;
    const int number = number_of(self) / 32;
    Warp &warp = warps[number];
    if (warp.live < 32) fail("a warp does something together after lanes of it have ended");
    if (warp.waiting == 0) {
        warp.kind = kind;
        warp.argument = argument;
    } else if (warp.kind != kind || warp.argument != argument) {
        fail("lanes of a warp are at different operations");
    }
    if (++warp.waiting == 32) {
        warp.waiting = 0;
        compute(number, kind, argument);
        for (int i = 0; i < 32; i++) fibers[32 * number + i].state = READY;
        return;
    }
    self->state = AT_WARP;
    give_way(self);
}

void block_barrier() {
    Fiber *self = (Fiber *)current;
    self->state = AT_BLOCK;
    at_block_barrier++;
    release_block_if_complete();
    if (self->state != READY) give_way(self);
}

const char *run(const Kernel *kernel, dim3 grid, dim3 block, size_t shared_bytes, const void *parameters) {
    if (block.x == 0 || block.x > kernel->most_threads || block.x % 32 || block.y != 1 || block.z != 1) return "block's size";
    if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.y > 65535 || grid.z > 65535) return "grid's size";
    if (shared_bytes > 227 << 10) return "shared memory";
    if (!stacks) {
        page = (size_t)sysconf(_SC_PAGESIZE);
        const size_t shared = 256 << 10;
        stacks = (char *)mmap(nullptr, MOST_THREADS * STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        shared_end = (unsigned char *)mmap(nullptr, shared + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (stacks == MAP_FAILED || shared_end == MAP_FAILED) return "no memory";
        // Who reads or writes behind the shared memory is seen at once.
        shared_end += shared;
        mprotect(shared_end, page, PROT_NONE);
    }
    running = kernel;
    parameters_now = parameters;
    grid_dim = grid;
    block_dim = block;
    thread_count = (int)block.x;
    shared_bytes = (shared_bytes + 15) & ~(size_t)15;
    dynamic_shared = shared_end - shared_bytes;
    for (block_index.z = 0; block_index.z < grid.z; block_index.z++)
        for (block_index.y = 0; block_index.y < grid.y; block_index.y++)
            for (block_index.x = 0; block_index.x < grid.x; block_index.x++) {
                // Not a number: nobody finds what another block left.
                memset(dynamic_shared, 0xff, shared_bytes);
                live_threads = thread_count;
                at_block_barrier = 0;
                for (int i = 0; i < thread_count; i++) prepare(&fibers[i], i);
                for (int i = 0; i < thread_count / 32; i++) warps[i] = {0, 32, WARP_BARRIER, 0};
                resume(nullptr, &fibers[0]);
            }
    return nullptr;
}

}  // namespace emulation
