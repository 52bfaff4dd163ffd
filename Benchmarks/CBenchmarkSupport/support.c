#include "benchmark_support.h"

#include <errno.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdlib.h>

// The executable's own definitions come before the library's; they count and pass on.
#if defined(__GLIBC__)
static atomic_llong allocations, largest;
extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);

static void note(size_t n) {
    atomic_fetch_add_explicit(&allocations, 1, memory_order_relaxed);
    const long long bytes = n < LLONG_MAX ? (long long)n : LLONG_MAX;
    long long known = atomic_load_explicit(&largest, memory_order_relaxed);
    while (known < bytes && !atomic_compare_exchange_weak_explicit(&largest, &known, bytes, memory_order_relaxed, memory_order_relaxed)) {
    }
}

void *malloc(size_t n) {
    note(n);
    return __libc_malloc(n);
}
void *calloc(size_t n, size_t size) {
    size_t bytes;
    note(__builtin_mul_overflow(n, size, &bytes) ? SIZE_MAX : bytes);
    return __libc_calloc(n, size);
}
void *realloc(void *p, size_t n) {
    note(n);
    return __libc_realloc(p, n);
}
void *aligned_alloc(size_t alignment, size_t n) {
    note(n);
    return __libc_memalign(alignment, n);
}
int posix_memalign(void **p, size_t alignment, size_t n) {
    note(n);
    *p = __libc_memalign(alignment, n);
    return *p ? 0 : ENOMEM;
}
int64_t benchmark_allocations(void) { return atomic_load(&allocations); }
void benchmark_watch_allocations(void) { atomic_store(&largest, 0); }
int64_t benchmark_largest_allocation(void) { return atomic_load(&largest); }
#else
int64_t benchmark_allocations(void) { return -1; }
void benchmark_watch_allocations(void) {}
int64_t benchmark_largest_allocation(void) { return -1; }
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
