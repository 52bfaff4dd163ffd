// Fault guard of mapped files, and CRC32C.
#ifndef SIGMA_FILES_H
#define SIGMA_FILES_H

#include <stddef.h>
#include <stdint.h>

// Registers [base, base + length) with the bus error handler, which is installed on first use and passes every
// other fault on to the handler that was there before. Returns a slot >= 0, or -1 when all slots are taken.
int sigma_guard_add(const void *base, size_t length);
// Non-zero if a page of the slot's range was lost (the file shrank, or could not be read): reads there now give zeros.
int sigma_guard_is_damaged(int slot);
// Byte offset of the first lost page in the slot's range.
size_t sigma_guard_damaged_offset(int slot);
// To be called before the range is unmapped.
void sigma_guard_remove(int slot);

// CRC-32C (Castagnoli) of `length` bytes, continuing from `crc` (0 to begin). Uses the processor's instruction if it has one.
uint32_t sigma_crc32c(uint32_t crc, const void *bytes, size_t length);

#endif
