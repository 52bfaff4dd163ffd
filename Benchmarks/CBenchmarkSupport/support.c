#include "benchmark_support.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

// The executable's own definitions come before the library's; they count and pass on.
#if defined(__GLIBC__)
static atomic_llong allocations;
extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);

void *malloc(size_t n) {
    atomic_fetch_add_explicit(&allocations, 1, memory_order_relaxed);
    return __libc_malloc(n);
}
void *calloc(size_t n, size_t size) {
    atomic_fetch_add_explicit(&allocations, 1, memory_order_relaxed);
    return __libc_calloc(n, size);
}
void *realloc(void *p, size_t n) {
    atomic_fetch_add_explicit(&allocations, 1, memory_order_relaxed);
    return __libc_realloc(p, n);
}
void *aligned_alloc(size_t alignment, size_t n) {
    atomic_fetch_add_explicit(&allocations, 1, memory_order_relaxed);
    return __libc_memalign(alignment, n);
}
int posix_memalign(void **p, size_t alignment, size_t n) {
    atomic_fetch_add_explicit(&allocations, 1, memory_order_relaxed);
    *p = __libc_memalign(alignment, n);
    return *p ? 0 : ENOMEM;
}
int64_t benchmark_allocations(void) { return atomic_load(&allocations); }
#else
int64_t benchmark_allocations(void) { return -1; }
#endif

typedef uint64_t lanes __attribute__((vector_size(32), aligned(1)));

#if defined(__x86_64__)
__attribute__((target("avx2")))
#endif
uint64_t benchmark_read(const void *bytes, size_t length) {
    const char *p = bytes;
    lanes sums[8] = {{0}};
    for (size_t i = 0; i + 256 <= length; i += 256)
        for (int j = 0; j < 8; j++) sums[j] += *(const lanes *)(p + i + 32 * j);
    lanes total = {0};
    for (int j = 0; j < 8; j++) total += sums[j];
    return total[0] + total[1] + total[2] + total[3];
}
