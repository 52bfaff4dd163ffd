// Which processors the team runs on by default: one hardware thread of each fast core of one memory node, among those that this process may use,
// and no more threads than a container's quota of processor time.
#define _GNU_SOURCE
#include "sigma_team.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// The system's description under `root`, a line of it; 0 if there is none.
static int read_line(const char *root, const char *name, char *line, int length) {
    char path[4096];
    if (snprintf(path, sizeof path, "%s/%s", root, name) >= (int)sizeof path) return 0;
    FILE *file = fopen(path, "re");
    if (!file) return 0;
    const int found = fgets(line, length, file) != NULL;
    fclose(file);
    return found;
}

// A list such as "0-3,8" as a set; 0 if it is none.
static int parse_list(const char *text, sigma_processor_set *set) {
    memset(set, 0, sizeof *set);
    for (int any = 0;; any = 1) {
        char *end;
        const long first = strtol(text, &end, 10);
        if (end == text) return any;
        long last = first;
        if (*end == '-') {
            text = end + 1;
            last = strtol(text, &end, 10);
            if (end == text) return 0;
        }
        for (long i = first < 0 ? 0 : first; i <= last && i < SIGMA_PROCESSORS; i++) set->has[i] = 1;
        if (*end != ',') return 1;
        text = end + 1;
    }
}

static int count_of(const sigma_processor_set *set) {
    int count = 0;
    for (int i = 0; i < SIGMA_PROCESSORS; i++) count += set->has[i];
    return count;
}

// What both have, unless that is nothing.
static void narrow(sigma_processor_set *set, const sigma_processor_set *to) {
    sigma_processor_set both;
    for (int i = 0; i < SIGMA_PROCESSORS; i++) both.has[i] = set->has[i] && to->has[i];
    if (count_of(&both) > 0) *set = both;
}

// Cores made to be fast, where a processor has others too: Intel names them, ARM gives every core a capacity.
static void keep_fast_cores(const char *root, sigma_processor_set *set) {
    char line[4096], name[96];
    sigma_processor_set fast;
    if (read_line(root, "cpu_core/cpus", line, sizeof line) && parse_list(line, &fast)) narrow(set, &fast);
    int capacity[SIGMA_PROCESSORS], most = 0;
    for (int i = 0; i < SIGMA_PROCESSORS; i++) {
        capacity[i] = 0;
        if (!set->has[i]) continue;
        snprintf(name, sizeof name, "system/cpu/cpu%d/cpu_capacity", i);
        if (read_line(root, name, line, sizeof line)) capacity[i] = atoi(line);
        if (capacity[i] > most) most = capacity[i];
    }
    // Cores of one cluster differ by little; efficient ones have half the capacity or less.
    for (int i = 0; i < SIGMA_PROCESSORS; i++) fast.has[i] = set->has[i] && capacity[i] * 4 >= most * 3;
    narrow(set, &fast);
}

// The memory node that has most of them, the first of equals: weights that one node reads twice as fast as the other are read by both at the
// slower one's pace.
static void keep_one_node(const char *root, sigma_processor_set *set) {
    char line[4096], name[96];
    sigma_processor_set nodes, node, best = {{0}};
    int most = 0;
    if (!read_line(root, "system/node/online", line, sizeof line) || !parse_list(line, &nodes)) return;
    for (int n = 0; n < SIGMA_PROCESSORS; n++) {
        if (!nodes.has[n]) continue;
        snprintf(name, sizeof name, "system/node/node%d/cpulist", n);
        if (!read_line(root, name, line, sizeof line) || !parse_list(line, &node)) continue;
        for (int i = 0; i < SIGMA_PROCESSORS; i++) node.has[i] = node.has[i] && set->has[i];
        if (count_of(&node) <= most) continue;
        most = count_of(&node);
        best = node;
    }
    narrow(set, &best);
}

int32_t sigma_choose_processors(const char *root, sigma_processor_set *set) {
    char line[4096], name[96];
    keep_fast_cores(root, set);
    keep_one_node(root, set);
    int cores = 0;
    sigma_processor_set seen = {{0}}, siblings;
    for (int i = 0; i < SIGMA_PROCESSORS; i++) {
        if (!set->has[i]) continue;
        cores += !seen.has[i];
        snprintf(name, sizeof name, "system/cpu/cpu%d/topology/thread_siblings_list", i);
        if (!read_line(root, name, line, sizeof line) || !parse_list(line, &siblings)) continue;
        for (int j = 0; j < SIGMA_PROCESSORS; j++) seen.has[j] |= siblings.has[j];
    }
    return cores > 0 ? cores : 1;
}

#if defined(__linux__)
#include <sched.h>

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

// Those of the calling thread, narrowed to the default ones; 0 if the system does not say.
static int32_t chosen_processors(cpu_set_t *chosen) {
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return 0;
    sigma_processor_set set;
    for (int i = 0; i < SIGMA_PROCESSORS; i++) set.has[i] = i < CPU_SETSIZE && CPU_ISSET(i, &allowed);
    const int32_t cores = sigma_choose_processors("/sys/devices", &set);
    CPU_ZERO(chosen);
    for (int i = 0; i < SIGMA_PROCESSORS && i < CPU_SETSIZE; i++)
        if (set.has[i]) CPU_SET(i, chosen);
    return cores;
}

int32_t sigma_processor_count(void) {
    cpu_set_t chosen;
    int32_t count = chosen_processors(&chosen);
    if (count == 0) {
        const long online = sysconf(_SC_NPROCESSORS_ONLN);
        count = online > 0 ? (int32_t)online : 1;
    }
    const int limit = quota();
    return limit > 0 && limit < count ? limit : count;
}

void sigma_keep_to_processors(void) {
    cpu_set_t chosen;
    if (chosen_processors(&chosen) > 0) sched_setaffinity(0, sizeof chosen, &chosen);
}
#else
int32_t sigma_processor_count(void) {
    const long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 0 ? (int32_t)online : 1;
}

void sigma_keep_to_processors(void) {}
#endif
