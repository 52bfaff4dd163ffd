// How many threads can really run at once: cores (not their hardware threads) that this process may use, and no more
// than a container's quota of processor time.
#define _GNU_SOURCE
#include "sigma_team.h"

#include <stdio.h>
#include <unistd.h>

#if defined(__linux__)
#include <sched.h>

// The first of the hardware threads that share cpu's core: the same number for all of them.
static int core_of(int cpu) {
    char path[96];
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", cpu);
    FILE *file = fopen(path, "re");
    int first = cpu;
    if (file) {
        if (fscanf(file, "%d", &first) != 1) first = cpu;
        fclose(file);
    }
    return first;
}

// Processors' worth of time that a control group allows, or 0 for no limit.
static int quota(void) {
    long long allowed = 0, period = 0;
    FILE *file = fopen("/sys/fs/cgroup/cpu.max", "re");
    if (file) {
        if (fscanf(file, "%lld %lld", &allowed, &period) != 2) allowed = 0;  // "max"
        fclose(file);
    } else {
        if ((file = fopen("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "re"))) {
            if (fscanf(file, "%lld", &allowed) != 1) allowed = 0;
            fclose(file);
        }
        if ((file = fopen("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "re"))) {
            if (fscanf(file, "%lld", &period) != 1) period = 0;
            fclose(file);
        }
    }
    return allowed > 0 && period > 0 ? (int)((allowed + period - 1) / period) : 0;
}

int32_t sigma_processor_count(void) {
    cpu_set_t allowed, cores;
    CPU_ZERO(&cores);
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) {
        const long online = sysconf(_SC_NPROCESSORS_ONLN);
        return online > 0 ? (int32_t)online : 1;
    }
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &allowed)) continue;
        const int core = core_of(cpu);
        if (core >= 0 && core < CPU_SETSIZE) CPU_SET(core, &cores);
    }
    int count = CPU_COUNT(&cores);
    const int limit = quota();
    if (limit > 0 && limit < count) count = limit;
    return count > 0 ? count : 1;
}
#else
int32_t sigma_processor_count(void) {
    const long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 0 ? (int32_t)online : 1;
}
#endif
