// A driver and a run-time compiler that tests load in place of libcuda and libnvrtc: the calls that the engine makes, on the host's memory.
//
// Work is done when it is asked for, but for streams that are capturing: theirs is recorded, and done by every launch of the graph.
// Memory ends at a page that cannot be touched, is filled with garbage when it is given out, and is gone when it is freed.
//
// What tests may set, read at every call:
// SIGMA_EMULATED_DEVICES (1), SIGMA_EMULATED_CAPABILITY (90), SIGMA_EMULATED_MEMORY (bytes; 8 GiB), SIGMA_EMULATED_DRIVER_VERSION (12080), and
// SIGMA_EMULATED_FAIL=CALL:N: the N-th call of that name from when the variable was set fails once; CALL:N!: and all calls after it, as on
// a device that is lost. emulated_fail(call, after) and emulated_fail_always do the same without the environment.
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "emulation.h"

#define EXPORTED extern "C" __attribute__((visibility("default")))

typedef int Result;
enum : Result {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NOT_INITIALIZED = 3,
    NO_DEVICE = 100,
    INVALID_DEVICE = 101,
    INVALID_IMAGE = 200,
    INVALID_CONTEXT = 201,
    INVALID_HANDLE = 400,
    NOT_FOUND = 500,
    ILLEGAL_ADDRESS = 700,
    LAUNCH_FAILED = 719,
    CAPTURE_INVALIDATED = 901
};

namespace {

std::recursive_mutex mutex;

// What is done: now, or whenever a graph is launched.
struct Operation {
    const emulation::Kernel *kernel = nullptr;
    dim3 grid, block;
    unsigned shared = 0;
    std::vector<unsigned char> parameters;
    void *target = nullptr;
    const void *source = nullptr;
    size_t count = 0;
    int value = -1;  // of a memset
};

struct Graph {
    std::vector<Operation> operations;
};
struct Stream {
    Graph *capture = nullptr;
};
struct Function {
    const emulation::Kernel *kernel;
    int shared_limit = 48 << 10;
};
struct Module {
    std::map<std::string, Function *> functions;
};
struct Allocation {
    void *mapping;
    size_t mapped, count;
    bool is_host;
};

Stream default_stream;
std::map<uintptr_t, Allocation> allocations;
size_t allocated;
bool initialized, lost;
std::string failing_call;
long failing_after;
bool fails_always;
std::string seen_setting;
unsigned long long launches, graph_launches;

long long setting(const char *name, long long otherwise) {
    const char *text = getenv(name);
    return text && *text ? atoll(text) : otherwise;
}

void read_failure() {
    const char *text = getenv("SIGMA_EMULATED_FAIL");
    const std::string now = text ? text : "";
    if (now == seen_setting) return;
    seen_setting = now;
    lost = false;
    failing_call.clear();
    const size_t colon = now.find(':');
    if (colon == std::string::npos) return;
    failing_call = now.substr(0, colon);
    failing_after = atol(now.c_str() + colon + 1);
    fails_always = now.back() == '!';
}

// Whether this call is the one that shall fail.
bool shall_fail(const char *call) {
    read_failure();
    if (lost) return true;
    if (failing_call != call || --failing_after != 0) return false;
    lost = fails_always;
    failing_call.clear();
    return true;
}

#define GUARD(call, failure) \
    std::lock_guard<std::recursive_mutex> guard(mutex); \
    if (shall_fail(call)) return failure

Stream *stream_of(void *stream) { return stream ? (Stream *)stream : &default_stream; }

// Whether [address, address + count) is inside one allocation, of either memory if not `on_device`.
bool is_allocated(const void *address, size_t count, bool on_device) {
    auto next = allocations.upper_bound((uintptr_t)address);
    if (next == allocations.begin()) return false;
    const auto &found = *--next;
    if (on_device && found.second.is_host) return false;
    return (uintptr_t)address + count <= found.first + found.second.count;
}

Result perform(const Operation &operation) {
    if (operation.kernel) {
        launches++;
        const char *wrong =
            emulation::run(operation.kernel, operation.grid, operation.block, operation.shared, operation.parameters.data());
        if (!wrong) return SUCCESS;
        fprintf(stderr, "emulated device: launch of %s: %s\n", operation.kernel->name, wrong);
        return INVALID_VALUE;
    }
    if (operation.value >= 0)
        memset(operation.target, operation.value, operation.count);
    else
        memmove(operation.target, operation.source, operation.count);
    return SUCCESS;
}

Result submit(void *stream, Operation &&operation) {
    Stream *own = stream_of(stream);
    if (!own->capture) return perform(operation);
    own->capture->operations.push_back(std::move(operation));
    return SUCCESS;
}

Result copy(void *stream, void *target, const void *source, size_t count, bool to_device, bool from_device) {
    if ((to_device && !is_allocated(target, count, true)) || (from_device && !is_allocated(source, count, true))) return INVALID_VALUE;
    Operation operation;
    operation.target = target;
    operation.source = source;
    operation.count = count;
    return submit(stream, std::move(operation));
}

size_t page_size() { return (size_t)sysconf(_SC_PAGESIZE); }

void *allocate(size_t count, bool is_host) {
    const size_t page = page_size(), used = (count + 255) & ~(size_t)255, mapped = ((used + page - 1) & ~(page - 1)) + page;
    char *mapping = (char *)mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapping == MAP_FAILED) return nullptr;
    char *end = mapping + mapped - page;
    mprotect(end, page, PROT_NONE);
    char *memory = end - used;
    // Not a number, whatever type it is read as; large ones stay as they are, so that a model's size costs nothing here.
    if (count <= 16 << 20) memset(memory, 0xff, used);
    allocations[(uintptr_t)memory] = {mapping, mapped, used, is_host};
    if (!is_host) allocated += used;
    return memory;
}

Result release(uintptr_t address, bool is_host) {
    auto found = allocations.find(address);
    if (found == allocations.end() || found->second.is_host != is_host) return INVALID_VALUE;
    if (!is_host) allocated -= found->second.count;
    munmap(found->second.mapping, found->second.mapped);
    allocations.erase(found);
    return SUCCESS;
}

size_t device_memory() { return (size_t)setting("SIGMA_EMULATED_MEMORY", 8ll << 30); }

// What the run-time compiler makes: a checksum of what it was given, so that what was compiled for another program is not taken.
const char image_mark[] = "emulated cubin ";

}  // namespace

// MARK: - For tests

EXPORTED void emulated_fail(const char *call, int after) {
    std::lock_guard<std::recursive_mutex> guard(mutex);
    read_failure();
    lost = false;
    failing_call = call ? call : "";
    failing_after = after;
    fails_always = false;
}
EXPORTED void emulated_fail_always(const char *call, int after) {
    emulated_fail(call, after);
    fails_always = true;
}
// The device works again.
EXPORTED void emulated_recover(void) { emulated_fail(nullptr, 0); }
EXPORTED unsigned long long emulated_launches(void) { return launches; }
EXPORTED unsigned long long emulated_graph_launches(void) { return graph_launches; }
EXPORTED unsigned long long emulated_allocated(void) { return allocated; }

// MARK: - Driver

EXPORTED Result cuInit(unsigned) {
    GUARD("cuInit", NOT_INITIALIZED);
    if (setting("SIGMA_EMULATED_DEVICES", 1) <= 0) return NO_DEVICE;
    initialized = true;
    return SUCCESS;
}
EXPORTED Result cuDriverGetVersion(int *version) {
    GUARD("cuDriverGetVersion", INVALID_VALUE);
    *version = (int)setting("SIGMA_EMULATED_DRIVER_VERSION", 12080);
    return SUCCESS;
}
EXPORTED Result cuDeviceGetCount(int *count) {
    GUARD("cuDeviceGetCount", NOT_INITIALIZED);
    if (!initialized) return NOT_INITIALIZED;
    *count = (int)setting("SIGMA_EMULATED_DEVICES", 1);
    return SUCCESS;
}
EXPORTED Result cuDeviceGet(int *device, int ordinal) {
    GUARD("cuDeviceGet", INVALID_DEVICE);
    if (ordinal < 0 || ordinal >= setting("SIGMA_EMULATED_DEVICES", 1)) return INVALID_DEVICE;
    *device = ordinal;
    return SUCCESS;
}
EXPORTED Result cuDeviceGetName(char *name, int length, int) {
    GUARD("cuDeviceGetName", INVALID_DEVICE);
    snprintf(name, (size_t)length, "emulated device");
    return SUCCESS;
}
EXPORTED Result cuDeviceTotalMem_v2(size_t *bytes, int) {
    GUARD("cuDeviceTotalMem_v2", INVALID_DEVICE);
    *bytes = device_memory();
    return SUCCESS;
}
EXPORTED Result cuDeviceGetAttribute(int *value, int attribute, int) {
    GUARD("cuDeviceGetAttribute", INVALID_DEVICE);
    const int capability = (int)setting("SIGMA_EMULATED_CAPABILITY", 90);
    switch (attribute) {
    case 1: *value = 1024; return SUCCESS;              // threads of a block
    case 8: *value = 48 << 10; return SUCCESS;          // shared memory of a block
    case 10: *value = 32; return SUCCESS;               // warp
    case 13: *value = 1000000; return SUCCESS;          // clock, kHz
    case 16: *value = 4; return SUCCESS;                // multiprocessors
    case 19: *value = 1; return SUCCESS;                // host memory can be mapped
    case 36: *value = 1000000; return SUCCESS;          // memory clock, kHz
    case 37: *value = 512; return SUCCESS;              // memory bus, bits
    case 38: *value = 1 << 20; return SUCCESS;          // second cache
    case 41: *value = 1; return SUCCESS;                // unified addresses
    case 75: *value = capability / 10; return SUCCESS;
    case 76: *value = capability % 10; return SUCCESS;
    case 97: *value = 227 << 10; return SUCCESS;        // shared memory of a block that asks for more
    default: *value = 0; return SUCCESS;
    }
}
EXPORTED Result cuDevicePrimaryCtxRetain(void **context, int) {
    GUARD("cuDevicePrimaryCtxRetain", OUT_OF_MEMORY);
    *context = &default_stream;
    return SUCCESS;
}
EXPORTED Result cuDevicePrimaryCtxRelease_v2(int) {
    GUARD("cuDevicePrimaryCtxRelease_v2", INVALID_CONTEXT);
    return SUCCESS;
}
EXPORTED Result cuCtxSetCurrent(void *) {
    GUARD("cuCtxSetCurrent", INVALID_CONTEXT);
    return SUCCESS;
}
EXPORTED Result cuCtxSynchronize(void) {
    GUARD("cuCtxSynchronize", LAUNCH_FAILED);
    return SUCCESS;
}
EXPORTED Result cuGetErrorName(Result error, const char **name) {
    static const std::map<Result, const char *> names = {
        {SUCCESS, "CUDA_SUCCESS"},
        {INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE"},
        {OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY"},
        {NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED"},
        {NO_DEVICE, "CUDA_ERROR_NO_DEVICE"},
        {INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE"},
        {INVALID_IMAGE, "CUDA_ERROR_INVALID_IMAGE"},
        {INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT"},
        {INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE"},
        {NOT_FOUND, "CUDA_ERROR_NOT_FOUND"},
        {ILLEGAL_ADDRESS, "CUDA_ERROR_ILLEGAL_ADDRESS"},
        {LAUNCH_FAILED, "CUDA_ERROR_LAUNCH_FAILED"},
        {CAPTURE_INVALIDATED, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"},
    };
    auto found = names.find(error);
    *name = found == names.end() ? nullptr : found->second;
    return found == names.end() ? INVALID_VALUE : SUCCESS;
}
EXPORTED Result cuGetErrorString(Result error, const char **text) { return cuGetErrorName(error, text); }

EXPORTED Result cuMemGetInfo_v2(size_t *available, size_t *total) {
    GUARD("cuMemGetInfo_v2", INVALID_CONTEXT);
    *total = device_memory();
    *available = allocated < *total ? *total - allocated : 0;
    return SUCCESS;
}
EXPORTED Result cuMemAlloc_v2(uint64_t *address, size_t count) {
    GUARD("cuMemAlloc_v2", OUT_OF_MEMORY);
    if (count == 0) return INVALID_VALUE;
    if (count > device_memory() || allocated + count > device_memory()) return OUT_OF_MEMORY;
    void *memory = allocate(count, false);
    *address = (uint64_t)(uintptr_t)memory;
    return memory ? SUCCESS : OUT_OF_MEMORY;
}
EXPORTED Result cuMemFree_v2(uint64_t address) {
    GUARD("cuMemFree_v2", INVALID_VALUE);
    return release((uintptr_t)address, false);
}
EXPORTED Result cuMemHostAlloc(void **memory, size_t count, unsigned) {
    GUARD("cuMemHostAlloc", OUT_OF_MEMORY);
    *memory = count ? allocate(count, true) : nullptr;
    return *memory ? SUCCESS : OUT_OF_MEMORY;
}
EXPORTED Result cuMemFreeHost(void *memory) {
    GUARD("cuMemFreeHost", INVALID_VALUE);
    return release((uintptr_t)memory, true);
}
EXPORTED Result cuMemHostGetDevicePointer_v2(uint64_t *address, void *memory, unsigned) {
    GUARD("cuMemHostGetDevicePointer_v2", INVALID_VALUE);
    if (!is_allocated(memory, 1, false)) return INVALID_VALUE;
    *address = (uint64_t)(uintptr_t)memory;
    return SUCCESS;
}
EXPORTED Result cuMemcpyHtoD_v2(uint64_t target, const void *source, size_t count) {
    GUARD("cuMemcpyHtoD_v2", ILLEGAL_ADDRESS);
    return copy(nullptr, (void *)target, source, count, true, false);
}
EXPORTED Result cuMemcpyDtoH_v2(void *target, uint64_t source, size_t count) {
    GUARD("cuMemcpyDtoH_v2", ILLEGAL_ADDRESS);
    return copy(nullptr, target, (const void *)source, count, false, true);
}
EXPORTED Result cuMemcpyHtoDAsync_v2(uint64_t target, const void *source, size_t count, void *stream) {
    GUARD("cuMemcpyHtoDAsync_v2", ILLEGAL_ADDRESS);
    return copy(stream, (void *)target, source, count, true, false);
}
EXPORTED Result cuMemcpyDtoHAsync_v2(void *target, uint64_t source, size_t count, void *stream) {
    GUARD("cuMemcpyDtoHAsync_v2", ILLEGAL_ADDRESS);
    return copy(stream, target, (const void *)source, count, false, true);
}
EXPORTED Result cuMemcpyDtoDAsync_v2(uint64_t target, uint64_t source, size_t count, void *stream) {
    GUARD("cuMemcpyDtoDAsync_v2", ILLEGAL_ADDRESS);
    return copy(stream, (void *)target, (const void *)source, count, true, true);
}
EXPORTED Result cuMemsetD8Async(uint64_t target, unsigned char value, size_t count, void *stream) {
    GUARD("cuMemsetD8Async", ILLEGAL_ADDRESS);
    if (!is_allocated((void *)target, count, true)) return INVALID_VALUE;
    Operation operation;
    operation.target = (void *)target;
    operation.count = count;
    operation.value = value;
    return submit(stream, std::move(operation));
}

EXPORTED Result cuStreamCreate(void **stream, unsigned) {
    GUARD("cuStreamCreate", OUT_OF_MEMORY);
    *stream = new Stream;
    return SUCCESS;
}
EXPORTED Result cuStreamSynchronize(void *stream) {
    GUARD("cuStreamSynchronize", LAUNCH_FAILED);
    return stream_of(stream)->capture ? CAPTURE_INVALIDATED : SUCCESS;
}
EXPORTED Result cuStreamDestroy_v2(void *stream) {
    GUARD("cuStreamDestroy_v2", INVALID_HANDLE);
    if (!stream) return INVALID_HANDLE;
    delete ((Stream *)stream)->capture;
    delete (Stream *)stream;
    return SUCCESS;
}
EXPORTED Result cuStreamWaitEvent(void *, void *, unsigned) {
    GUARD("cuStreamWaitEvent", INVALID_HANDLE);
    return SUCCESS;
}
EXPORTED Result cuEventCreate(void **event, unsigned) {
    GUARD("cuEventCreate", OUT_OF_MEMORY);
    *event = new timespec{};
    return SUCCESS;
}
EXPORTED Result cuEventRecord(void *event, void *) {
    GUARD("cuEventRecord", INVALID_HANDLE);
    clock_gettime(CLOCK_MONOTONIC, (timespec *)event);
    return SUCCESS;
}
EXPORTED Result cuEventSynchronize(void *) {
    GUARD("cuEventSynchronize", LAUNCH_FAILED);
    return SUCCESS;
}
EXPORTED Result cuEventQuery(void *) {
    GUARD("cuEventQuery", LAUNCH_FAILED);
    return SUCCESS;
}
EXPORTED Result cuEventElapsedTime(float *milliseconds, void *start, void *end) {
    GUARD("cuEventElapsedTime", INVALID_HANDLE);
    const timespec &a = *(timespec *)start, &b = *(timespec *)end;
    *milliseconds = (float)((double)(b.tv_sec - a.tv_sec) * 1e3 + (double)(b.tv_nsec - a.tv_nsec) * 1e-6);
    return SUCCESS;
}
EXPORTED Result cuEventDestroy_v2(void *event) {
    GUARD("cuEventDestroy_v2", INVALID_HANDLE);
    delete (timespec *)event;
    return SUCCESS;
}

EXPORTED Result cuModuleLoadData(void **module, const void *image) {
    GUARD("cuModuleLoadData", INVALID_IMAGE);
    if (strncmp((const char *)image, image_mark, sizeof image_mark - 1) != 0) return INVALID_IMAGE;
    *module = new Module;
    return SUCCESS;
}
EXPORTED Result cuModuleUnload(void *module) {
    GUARD("cuModuleUnload", INVALID_HANDLE);
    for (auto &function : ((Module *)module)->functions) delete function.second;
    delete (Module *)module;
    return SUCCESS;
}
EXPORTED Result cuModuleGetFunction(void **function, void *module, const char *name) {
    GUARD("cuModuleGetFunction", NOT_FOUND);
    const emulation::Kernel *kernel = emulation::kernel_named(name);
    if (!kernel) return NOT_FOUND;
    Function *&own = ((Module *)module)->functions[name];
    if (!own) own = new Function{kernel};
    *function = own;
    return SUCCESS;
}
EXPORTED Result cuFuncSetAttribute(void *function, int attribute, int value) {
    GUARD("cuFuncSetAttribute", INVALID_VALUE);
    // 8: the most dynamic shared memory.
    if (attribute == 8 && value > 227 << 10) return INVALID_VALUE;
    if (attribute == 8) ((Function *)function)->shared_limit = value;
    return SUCCESS;
}
EXPORTED Result cuLaunchKernel(void *function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,
                               unsigned block_z, unsigned shared, void *stream, void **parameters, void **) {
    GUARD("cuLaunchKernel", LAUNCH_FAILED);
    const Function *own = (const Function *)function;
    if (shared > (unsigned)own->shared_limit) return INVALID_VALUE;
    Operation operation;
    operation.kernel = own->kernel;
    operation.grid = {grid_x, grid_y, grid_z};
    operation.block = {block_x, block_y, block_z};
    operation.shared = shared;
    const unsigned char *bytes = (const unsigned char *)parameters[0];
    operation.parameters.assign(bytes, bytes + own->kernel->parameter_bytes);
    return submit(stream, std::move(operation));
}

EXPORTED Result cuStreamBeginCapture_v2(void *stream, int) {
    GUARD("cuStreamBeginCapture_v2", INVALID_VALUE);
    if (!stream || ((Stream *)stream)->capture) return INVALID_VALUE;
    ((Stream *)stream)->capture = new Graph;
    return SUCCESS;
}
EXPORTED Result cuStreamEndCapture(void *stream, void **graph) {
    GUARD("cuStreamEndCapture", CAPTURE_INVALIDATED);
    if (!stream || !((Stream *)stream)->capture) return INVALID_VALUE;
    *graph = ((Stream *)stream)->capture;
    ((Stream *)stream)->capture = nullptr;
    return SUCCESS;
}
EXPORTED Result cuGraphInstantiateWithFlags(void **executable, void *graph, unsigned long long) {
    GUARD("cuGraphInstantiateWithFlags", OUT_OF_MEMORY);
    *executable = new Graph(*(Graph *)graph);
    return SUCCESS;
}
EXPORTED Result cuGraphLaunch(void *executable, void *stream) {
    GUARD("cuGraphLaunch", LAUNCH_FAILED);
    if (stream_of(stream)->capture) return INVALID_VALUE;
    graph_launches++;
    for (const Operation &operation : ((Graph *)executable)->operations) {
        const Result result = perform(operation);
        if (result != SUCCESS) return result;
    }
    return SUCCESS;
}
EXPORTED Result cuGraphDestroy(void *graph) {
    GUARD("cuGraphDestroy", INVALID_HANDLE);
    delete (Graph *)graph;
    return SUCCESS;
}
EXPORTED Result cuGraphExecDestroy(void *executable) {
    GUARD("cuGraphExecDestroy", INVALID_HANDLE);
    delete (Graph *)executable;
    return SUCCESS;
}

// MARK: - Run-time compiler

namespace {
struct Program {
    std::string log, image;
    uint64_t hash = 0xcbf29ce484222325;
    void add(const char *text) {
        for (; *text; text++) hash = (hash ^ (unsigned char)*text) * 0x100000001b3;
    }
};
enum { COMPILATION_FAILED = 6 };
}  // namespace

EXPORTED Result nvrtcVersion(int *major, int *minor) {
    *major = 12;
    *minor = 8;
    return 0;
}
EXPORTED Result nvrtcCreateProgram(void **program, const char *source, const char *, int count, const char *const *headers, const char *const *names) {
    Program *own = new Program;
    own->add(source);
    for (int i = 0; i < count; i++) {
        own->add(names[i]);
        own->add(headers[i]);
    }
    *program = own;
    return 0;
}
EXPORTED Result nvrtcCompileProgram(void *program, int count, const char *const *options) {
    GUARD("nvrtcCompileProgram", COMPILATION_FAILED);
    Program *own = (Program *)program;
    bool has_architecture = false;
    for (int i = 0; i < count; i++) {
        own->add(options[i]);
        has_architecture |= strncmp(options[i], "--gpu-architecture=sm_", 22) == 0;
    }
    if (!has_architecture) {
        own->log = "emulated compiler: no --gpu-architecture=sm_XX";
        return COMPILATION_FAILED;
    }
    char text[64];
    snprintf(text, sizeof text, "%s%016llx", image_mark, (unsigned long long)own->hash);
    own->image = text;
    return 0;
}
EXPORTED Result nvrtcGetProgramLogSize(void *program, size_t *size) {
    *size = ((Program *)program)->log.size() + 1;
    return 0;
}
EXPORTED Result nvrtcGetProgramLog(void *program, char *log) {
    strcpy(log, ((Program *)program)->log.c_str());
    return 0;
}
EXPORTED Result nvrtcGetCUBINSize(void *program, size_t *size) {
    *size = ((Program *)program)->image.size() + 1;
    return 0;
}
EXPORTED Result nvrtcGetCUBIN(void *program, char *image) {
    strcpy(image, ((Program *)program)->image.c_str());
    return 0;
}
EXPORTED Result nvrtcDestroyProgram(void **program) {
    delete (Program *)*program;
    *program = nullptr;
    return 0;
}
EXPORTED const char *nvrtcGetErrorString(Result error) { return error ? "NVRTC_ERROR_COMPILATION" : "NVRTC_SUCCESS"; }
