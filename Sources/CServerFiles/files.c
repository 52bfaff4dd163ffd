// What the server gives out as it is.
#include "sigma_server_files.h"

#pragma clang diagnostic ignored "-Wc23-extensions"

static const char page[] = {
#embed "files/page.html"
};
static const char openapi[] = {
#embed "files/openapi.json"
};

sigma_server_file sigma_page(void) { return (sigma_server_file){page, sizeof page}; }

sigma_server_file sigma_openapi(void) { return (sigma_server_file){openapi, sizeof openapi}; }
