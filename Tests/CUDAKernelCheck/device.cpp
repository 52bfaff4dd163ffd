#include "device.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

#include <map>
#include <string>
#include <vector>

namespace device {

bool is_open;

namespace {

typedef int Result;
std::string problem;

struct Driver {
    Result (*cuInit)(unsigned);
    Result (*cuDeviceGet)(int *, int);
    Result (*cuDeviceGetName)(char *, int, int);
    Result (*cuDeviceGetAttribute)(int *, int, int);
    Result (*cuDevicePrimaryCtxRetain)(void **, int);
    Result (*cuCtxSetCurrent)(void *);
    Result (*cuCtxSynchronize)();
    Result (*cuMemAlloc_v2)(uint64_t *, size_t);
    Result (*cuMemFree_v2)(uint64_t);
    Result (*cuMemcpyHtoD_v2)(uint64_t, const void *, size_t);
    Result (*cuMemcpyDtoH_v2)(void *, uint64_t, size_t);
    Result (*cuModuleLoadData)(void **, const void *);
    Result (*cuModuleGetFunction)(void **, void *, const char *);
    Result (*cuFuncSetAttribute)(void *, int, int);
    Result (*cuLaunchKernel)(void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void *, void **, void **);
} driver;

struct Compiler {
    Result (*nvrtcCreateProgram)(void **, const char *, const char *, int, const char *const *, const char *const *);
    Result (*nvrtcCompileProgram)(void *, int, const char *const *);
    Result (*nvrtcGetProgramLogSize)(void *, size_t *);
    Result (*nvrtcGetProgramLog)(void *, char *);
    Result (*nvrtcGetCUBINSize)(void *, size_t *);
    Result (*nvrtcGetCUBIN)(void *, char *);
} compiler;

struct Mirror {
    void *host;
    size_t count;
};
std::map<uint64_t, Mirror> mirrors;
std::map<std::string, void *> functions;
void *module;

// Opens the first library of a list that there is.
void *open_library(const char *variable, std::vector<const char *> names) {
    if (const char *own = getenv(variable)) names = {own};
    for (const char *name : names)
        if (void *library = dlopen(name, RTLD_NOW | RTLD_LOCAL)) return library;
    problem = std::string("there is no ") + names[0];
    return nullptr;
}

template <typename F>
bool find(void *library, const char *name, F &function) {
    function = (F)dlsym(library, name);
    if (!function) problem = std::string("there is no ") + name;
    return function != nullptr;
}
#define FIND(library, table, name) find(library, #name, table.name)

// Whether a call went well.
bool check(Result result, const char *call) {
    if (result == 0) return true;
    problem = std::string(call) + " gave error " + std::to_string(result);
    return false;
}
#define CHECK(call) check(call, #call)

bool load_driver() {
    void *library = open_library("SIGMA_CUDA_DRIVER", {"libcuda.so.1"});
    return library && FIND(library, driver, cuInit) && FIND(library, driver, cuDeviceGet) && FIND(library, driver, cuDeviceGetName)
        && FIND(library, driver, cuDeviceGetAttribute) && FIND(library, driver, cuDevicePrimaryCtxRetain)
        && FIND(library, driver, cuCtxSetCurrent) && FIND(library, driver, cuCtxSynchronize) && FIND(library, driver, cuMemAlloc_v2)
        && FIND(library, driver, cuMemFree_v2) && FIND(library, driver, cuMemcpyHtoD_v2) && FIND(library, driver, cuMemcpyDtoH_v2)
        && FIND(library, driver, cuModuleLoadData) && FIND(library, driver, cuModuleGetFunction)
        && FIND(library, driver, cuFuncSetAttribute) && FIND(library, driver, cuLaunchKernel);
}

bool load_compiler() {
    void *library = open_library("SIGMA_NVRTC", {"libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so.11.2", "libnvrtc.so"});
    return library && FIND(library, compiler, nvrtcCreateProgram) && FIND(library, compiler, nvrtcCompileProgram)
        && FIND(library, compiler, nvrtcGetProgramLogSize) && FIND(library, compiler, nvrtcGetProgramLog)
        && FIND(library, compiler, nvrtcGetCUBINSize) && FIND(library, compiler, nvrtcGetCUBIN);
}

// The kernels' machine code.
bool compile(int capability, std::vector<char> &image) {
    int32_t count;
    const sigma_cuda_source *sources = sigma_cuda_sources(&count);
    std::vector<const char *> names, texts, options;
    for (int32_t i = 1; i < count; i++) {
        names.push_back(sources[i].name);
        texts.push_back(sources[i].text);
    }
    const std::string architecture = "--gpu-architecture=sm_" + std::to_string(capability);
    options.push_back(architecture.c_str());
    for (const char *const *option = sigma_cuda_options(); *option; option++) options.push_back(*option);
    void *program;
    if (!CHECK(compiler.nvrtcCreateProgram(&program, sources[0].text, sources[0].name, count - 1, texts.data(), names.data()))) return false;
    size_t size = 0;
    if (!CHECK(compiler.nvrtcCompileProgram(program, (int)options.size(), options.data()))) {
        compiler.nvrtcGetProgramLogSize(program, &size);
        std::vector<char> log(size + 1);
        compiler.nvrtcGetProgramLog(program, log.data());
        problem += std::string("\n") + log.data();
        return false;
    }
    if (!CHECK(compiler.nvrtcGetCUBINSize(program, &size))) return false;
    image.resize(size);
    return CHECK(compiler.nvrtcGetCUBIN(program, image.data()));
}

bool open_device() {
    int own, major, minor;
    void *context;
    char name[128] = "";
    if (!load_driver() || !CHECK(driver.cuInit(0)) || !CHECK(driver.cuDeviceGet(&own, 0)) || !load_compiler()) return false;
    if (!CHECK(driver.cuDeviceGetAttribute(&major, 75, own)) || !CHECK(driver.cuDeviceGetAttribute(&minor, 76, own))) return false;
    driver.cuDeviceGetName(name, sizeof name, own);
    printf("device: %s, compute capability %d.%d\n", name, major, minor);
    std::vector<char> image;
    return CHECK(driver.cuDevicePrimaryCtxRetain(&context, own)) && CHECK(driver.cuCtxSetCurrent(context))
        && compile(10 * major + minor, image) && CHECK(driver.cuModuleLoadData(&module, image.data()));
}

}  // namespace

const char *open() {
    is_open = open_device();
    return is_open ? nullptr : problem.c_str();
}

uint64_t add(void *host, size_t count) {
    uint64_t address = 0;
    if (!CHECK(driver.cuMemAlloc_v2(&address, count ? count : 1))) {
        fprintf(stderr, "%s\n", problem.c_str());
        exit(1);
    }
    mirrors[address] = {host, count};
    return address;
}

void remove(uint64_t address) {
    driver.cuMemFree_v2(address);
    mirrors.erase(address);
}

const char *launch(const char *kernel, sigma_cuda_launch shape, const void *parameters) {
    void *&function = functions[kernel];
    if (!function && !CHECK(driver.cuModuleGetFunction(&function, module, kernel))) return problem.c_str();
    // 8: the most dynamic shared memory.
    if (shape.shared > 48 << 10 && !CHECK(driver.cuFuncSetAttribute(function, 8, (int)shape.shared))) return problem.c_str();
    for (const auto &[address, mirror] : mirrors)
        if (!CHECK(driver.cuMemcpyHtoD_v2(address, mirror.host, mirror.count))) return problem.c_str();
    void *arguments[] = {(void *)parameters};
    if (!CHECK(driver.cuLaunchKernel(function, shape.grid_x, shape.grid_y, shape.grid_z, shape.block, 1, 1, shape.shared, nullptr, arguments, nullptr))
        || !CHECK(driver.cuCtxSynchronize()))
        return problem.c_str();
    for (const auto &[address, mirror] : mirrors)
        if (!CHECK(driver.cuMemcpyDtoH_v2(mirror.host, address, mirror.count))) return problem.c_str();
    return nullptr;
}

}  // namespace device
