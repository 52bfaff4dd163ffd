// The level that runs everywhere: no instruction beyond the platform's baseline.
#define LEVEL_NAME "portable"
#define LEVEL_TABLE sigma_quantizer_portable

#include "quantizers.h"
