// What this processor can do at most, one thread at a time: loops that only read, or only multiply and add in registers.
#ifndef MACHINE_H
#define MACHINE_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    // Reads all of `bytes` (64-byte aligned, length a multiple of 256) and returns something that depends on every one.
    uint64_t (*read)(const void *bytes, size_t length);
    // `rounds` rounds of multiply-adds; returns how many there were. The result of the arithmetic goes to *sink.
    uint64_t (*int8)(uint64_t rounds, uint64_t *sink);
    uint64_t (*fp32)(uint64_t rounds, uint64_t *sink);
} machine_loops;

// Of a level of the kernels, by its name. The processor must have it.
const machine_loops *machine_loops_named(const char *level);

#endif
