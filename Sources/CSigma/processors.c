// Which processors the team runs on by default: one hardware thread of each fast core of one memory node, among those that this process may use,
// and no more threads than a container's quota of processor time.
#define _GNU_SOURCE
#include "sigma_system.h"

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

int32_t sigma_processor_quota(const char *root, const char *membership) {
    sigma_group group;
    long long least = 0;
    for (int is = sigma_first_group(&group, root, membership, "cpu"); is; is = sigma_next_group(&group)) {
        char line[128];
        long long allowed = 0, period = 0;
        if (group.version == 2) {
            // "max 100000" where there is no limit.
            if (!sigma_group_line(&group, "cpu.max", line, sizeof line) || sscanf(line, "%lld %lld", &allowed, &period) != 2) continue;
        } else {
            if (!sigma_group_line(&group, "cpu.cfs_quota_us", line, sizeof line) || sscanf(line, "%lld", &allowed) != 1) continue;
            if (!sigma_group_line(&group, "cpu.cfs_period_us", line, sizeof line) || sscanf(line, "%lld", &period) != 1) continue;
        }
        if (allowed <= 0 || period <= 0) continue;
        const long long processors = (allowed - 1) / period + 1;
        if (least == 0 || processors < least) least = processors;
    }
    return least < SIGMA_PROCESSORS ? (int32_t)least : 0;
}

static int32_t online_processors(void) {
    const long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 0 ? (int32_t)online : 1;
}

#if defined(__linux__)
#include <sched.h>

static int32_t within_quota(int32_t count) {
    const int32_t quota = sigma_processor_quota("/sys/fs/cgroup", "/proc/self/cgroup");
    return quota > 0 && quota < count ? quota : count;
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
    const int32_t count = chosen_processors(&chosen);
    return within_quota(count > 0 ? count : online_processors());
}

int32_t sigma_hardware_threads(void) {
    cpu_set_t allowed;
    const int32_t count = sched_getaffinity(0, sizeof allowed, &allowed) == 0 ? CPU_COUNT(&allowed) : 0;
    return within_quota(count > 0 ? count : online_processors());
}

void sigma_keep_to_processors(void) {
    cpu_set_t chosen;
    if (chosen_processors(&chosen) > 0) sched_setaffinity(0, sizeof chosen, &chosen);
}
#else
int32_t sigma_processor_count(void) { return online_processors(); }
int32_t sigma_hardware_threads(void) { return online_processors(); }

void sigma_keep_to_processors(void) {}
#endif
