#define _GNU_SOURCE
#include "sigma_files.h"

#include <fcntl.h>

int sigma_open_direct(const char *path) {
#ifdef O_DIRECT
    return open(path, O_RDONLY | O_CLOEXEC | O_DIRECT);
#else
    const int descriptor = open(path, O_RDONLY | O_CLOEXEC);
#ifdef F_NOCACHE
    if (descriptor >= 0) fcntl(descriptor, F_NOCACHE, 1);
#endif
    return descriptor;
#endif
}
