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

// Opens a file for reading past the page cache: offsets, lengths and memory are multiples of 4096. -1 where it cannot, errno says why.
int sigma_open_direct(const char *path);

// Files that are written. Errors of writing itself are left to fsync.
// Takes room on the disk for a file of `size` bytes, where the file system can. 0, or -1 with errno ENOSPC, EDQUOT or EFBIG.
int sigma_reserve_file(int descriptor, int64_t size);
// Starts writing bytes to the disk; and waits until they are there. Does nothing where the system cannot.
void sigma_start_writing(int descriptor, int64_t offset, int64_t count);
void sigma_wait_for_writing(int descriptor, int64_t offset, int64_t count);

#endif
