// What the system gives this process: processors, control groups, arguments, libraries.
#ifndef SIGMA_SYSTEM_H
#define SIGMA_SYSTEM_H

#include <stdint.h>

// MARK: Control groups

// A walk over the control groups that a process is in, from its own to the root of the tree, for one controller.
typedef struct {
    // The files of the group that the walk is at: a path, and the version of the interface (1 or 2).
    char folder[4096];
    int32_t version;
    // Where `folder` ends if it is the tree's root.
    int32_t root_length;
} sigma_group;

// Begins the walk; 0 where there is no such group.
//
// - root: where the trees are mounted (/sys/fs/cgroup).
// - membership: which groups the process is in (/proc/self/cgroup). Where it cannot be read, the process is taken to be in the root.
// - controller: "memory" or "cpu".
int sigma_first_group(sigma_group *group, const char *root, const char *membership, const char *controller);
// Goes to the group around it; 0 after the tree's root.
int sigma_next_group(sigma_group *group);
// The first line of one of the group's files, without its end; 0 if there is none.
int sigma_group_line(const sigma_group *group, const char *file, char *line, int32_t length);

// MARK: Processors

// Processors by the system's numbers.
enum { SIGMA_PROCESSORS = 1024 };
typedef struct {
    uint8_t has[SIGMA_PROCESSORS];
} sigma_processor_set;

// Narrows a set of hardware threads to those of fast cores on one memory node, as `root` (Linux: /sys/devices) describes the machine; what is
// not described narrows nothing. Returns the number of their cores.
int32_t sigma_choose_processors(const char *root, sigma_processor_set *set);
// Processors' worth of time that the tightest quota of the control groups allows, rounded up; 0: there is no quota. The parameters are those of
// `sigma_first_group`.
int32_t sigma_processor_quota(const char *root, const char *membership);
// Cores that a team should use: those chosen among what the calling thread may use, within its control groups' quota.
int32_t sigma_processor_count(void);
// Hardware threads that the calling thread may use, within the quota: more threads than that only take turns.
int32_t sigma_hardware_threads(void);
// Keeps the calling thread, and those that it will start, to the processors of these cores. Where that is not possible nothing changes.
void sigma_keep_to_processors(void);

// MARK: The process

// What the process was started with. The system hands it over without /proc, which Swift's CommandLine needs. 0 and NULL where it does not.
int32_t sigma_argument_count(void);
char *const *sigma_arguments(void);

// Gives new threads stacks of at least `bytes`, and the calling process's first thread where its hard limit allows that. Returns whether the first
// thread's stack may grow so far.
int sigma_ensure_stacks(int64_t bytes);

// Opens the first library that is there, while the environment has no variable that begins with one of the prefixes, but has the settings
// ("NAME=value"). Lists end with NULL. The process's own environment stays as it is, and other threads may read it meanwhile. NULL: none is there.
void *sigma_open_library(const char *const *names, const char *const *hidden_prefixes, const char *const *settings);

#endif
