#ifndef BENCHMARK_SUPPORT_H
#define BENCHMARK_SUPPORT_H

#include <stddef.h>
#include <stdint.h>

// Calls of malloc, calloc, realloc and the aligned forms by the whole process so far (glibc; elsewhere -1).
int64_t benchmark_allocations(void);

// Bytes of the largest single allocation since the last `benchmark_watch_allocations` (glibc; elsewhere -1).
void benchmark_watch_allocations(void);
int64_t benchmark_largest_allocation(void);

// Reads every byte once, with eight independent streams of vector additions, and returns a sum of them.
uint64_t benchmark_read(const void *bytes, size_t length);

#endif
