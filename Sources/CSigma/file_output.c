#define _GNU_SOURCE
#include "sigma_files.h"

#include <errno.h>
#include <fcntl.h>

int sigma_reserve_file(int descriptor, int64_t size) {
#ifdef __linux__
    // posix_fallocate would write zeros where the file system cannot reserve.
    while (fallocate(descriptor, 0, 0, size) != 0) {
        if (errno == ENOSPC || errno == EDQUOT || errno == EFBIG) return -1;
        if (errno != EINTR) return 0;
    }
#else
    (void)descriptor, (void)size;
#endif
    return 0;
}

void sigma_start_writing(int descriptor, int64_t offset, int64_t count) {
#ifdef __linux__
    sync_file_range(descriptor, offset, count, SYNC_FILE_RANGE_WRITE);
#else
    (void)descriptor, (void)offset, (void)count;
#endif
}

void sigma_wait_for_writing(int descriptor, int64_t offset, int64_t count) {
#ifdef __linux__
    sync_file_range(descriptor, offset, count,
                    SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
#else
    (void)descriptor, (void)offset, (void)count;
#endif
}
