#ifndef BENCHMARK_SUPPORT_H
#define BENCHMARK_SUPPORT_H

#include <stddef.h>
#include <stdint.h>

// Calls of malloc, calloc, realloc and the aligned forms by the whole process so far (glibc; elsewhere -1).
int64_t benchmark_allocations(void);

// Reads every byte once, with eight independent streams of vector additions, and returns a sum of them.
uint64_t benchmark_read(const void *bytes, size_t length);

#endif
