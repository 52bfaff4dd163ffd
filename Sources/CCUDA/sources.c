// The kernels' sources, as text in the binary: NVRTC compiles them for the device at hand.
#include "sigma_cuda.h"

#pragma clang diagnostic ignored "-Wc23-extensions"

static const char contract[] = {
#embed "include/sigma_cuda.h" suffix(, 0)
};
static const char program[] = {
#embed "kernels/sigma.cu" suffix(, 0)
};
static const char platform[] = {
#embed "kernels/platform.cuh" suffix(, 0)
};
static const char numbers[] = {
#embed "kernels/numbers.cuh" suffix(, 0)
};
static const char inputs[] = {
#embed "kernels/inputs.cuh" suffix(, 0)
};
static const char packed[] = {
#embed "kernels/packed.cuh" suffix(, 0)
};
static const char few_rows[] = {
#embed "kernels/few_rows.cuh" suffix(, 0)
};
static const char many_rows[] = {
#embed "kernels/many_rows.cuh" suffix(, 0)
};
static const char residual[] = {
#embed "kernels/residual.cuh" suffix(, 0)
};
static const char rope_store[] = {
#embed "kernels/rope_store.cuh" suffix(, 0)
};
static const char attention[] = {
#embed "kernels/attention.cuh" suffix(, 0)
};
static const char routing[] = {
#embed "kernels/routing.cuh" suffix(, 0)
};
static const char top[] = {
#embed "kernels/top.cuh" suffix(, 0)
};

#define SOURCE(name, text) {name, text, sizeof text - 1}

static const sigma_cuda_source sources[] = {
    SOURCE("sigma.cu", program),         SOURCE("sigma_cuda.h", contract),     SOURCE("platform.cuh", platform),
    SOURCE("numbers.cuh", numbers),      SOURCE("inputs.cuh", inputs),         SOURCE("packed.cuh", packed),
    SOURCE("few_rows.cuh", few_rows),    SOURCE("many_rows.cuh", many_rows),   SOURCE("residual.cuh", residual),
    SOURCE("rope_store.cuh", rope_store), SOURCE("attention.cuh", attention),  SOURCE("routing.cuh", routing),
    SOURCE("top.cuh", top),
};

const sigma_cuda_source *sigma_cuda_sources(int32_t *count) {
    *count = sizeof sources / sizeof sources[0];
    return sources;
}

#define ATTENTION(steps, type) "sigma_attend_splits_" #steps "_" #type, "sigma_attend_tiles_" #steps "_" #type
#define ATTENTION_OF_ALL_TYPES(steps) ATTENTION(steps, f32), ATTENTION(steps, f16), ATTENTION(steps, q8_0)

static const char *const kernel_names[] = {
    "sigma_embed", "sigma_prepare", "sigma_project", "sigma_multiply", "sigma_rope_store", "sigma_route", "sigma_choose",
    "sigma_sort", "sigma_expert_gate", "sigma_expert_down", "sigma_combine", "sigma_top", "sigma_read",
    "sigma_peak_int8", "sigma_peak_fp32",
    ATTENTION_OF_ALL_TYPES(4), ATTENTION_OF_ALL_TYPES(6), ATTENTION_OF_ALL_TYPES(8), ATTENTION_OF_ALL_TYPES(16),
    NULL,
};

const char *const *sigma_cuda_kernel_names(void) { return kernel_names; }

// Products and sums are fused only where the sources say so: kernels that promise the same bits are compiled apart.
static const char *const options[] = {"--std=c++17", "-fmad=false", "-default-device", NULL};

const char *const *sigma_cuda_options(void) { return options; }
