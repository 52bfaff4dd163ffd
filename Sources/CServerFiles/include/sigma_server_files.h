#pragma once

#include <stddef.h>

/// A file in the binary.
typedef struct {
    const char *bytes;
    size_t count;
} sigma_server_file;

/// The page at `/`. `NONCE` stands where a response puts its own.
sigma_server_file sigma_page(void);

/// What `/openapi.json` says.
sigma_server_file sigma_openapi(void);
