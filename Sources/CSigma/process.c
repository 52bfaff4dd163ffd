// The process's arguments, and libraries that take settings from the environment.
#define _GNU_SOURCE
#include "sigma_system.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

static int argument_count;
static char *const *arguments;

#if defined(__APPLE__) || defined(__GLIBC__)
// These systems hand the arguments of main to constructors.
__attribute__((constructor)) static void keep_arguments(int count, char **values) {
    argument_count = count;
    arguments = values;
}
#endif

int32_t sigma_argument_count(void) { return argument_count; }
char *const *sigma_arguments(void) { return arguments; }

int sigma_ensure_stacks(int64_t bytes) {
#if defined(__GLIBC__)
    // Its size is the limit that the process was started with.
    pthread_attr_t attributes;
    size_t size = 0;
    if (pthread_getattr_default_np(&attributes) == 0) {
        if (pthread_attr_getstacksize(&attributes, &size) == 0 && size < (size_t)bytes &&
            pthread_attr_setstacksize(&attributes, (size_t)bytes) == 0)
            pthread_setattr_default_np(&attributes);
        pthread_attr_destroy(&attributes);
    }
#endif
    struct rlimit limit;
    if (getrlimit(RLIMIT_STACK, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY || limit.rlim_cur >= (rlim_t)bytes) return 1;
    limit.rlim_cur = limit.rlim_max == RLIM_INFINITY || limit.rlim_max >= (rlim_t)bytes ? (rlim_t)bytes : limit.rlim_max;
    return setrlimit(RLIMIT_STACK, &limit) == 0 && limit.rlim_cur >= (rlim_t)bytes;
}

#if defined(__APPLE__)
#include <crt_externs.h>
#define environ (*_NSGetEnviron())
#else
extern char **environ;
#endif

static int begins_with_any(const char *variable, const char *const *prefixes) {
    for (; *prefixes; prefixes++)
        if (strncmp(variable, *prefixes, strlen(*prefixes)) == 0) return 1;
    return 0;
}

// A list of its own, with strings of the environment and of the settings; never freed where a library may have kept a pointer.
static char **changed_environment(const char *const *hidden_prefixes, const char *const *settings) {
    size_t count = 1;
    for (char **variable = environ; variable && *variable; variable++) count++;
    for (const char *const *setting = settings; *setting; setting++) count++;
    char **list = malloc(count * sizeof *list);
    if (!list) return NULL;
    size_t length = 0;
    for (char **variable = environ; variable && *variable; variable++)
        if (!begins_with_any(*variable, hidden_prefixes)) list[length++] = *variable;
    for (const char *const *setting = settings; *setting; setting++) list[length++] = (char *)*setting;
    list[length] = NULL;
    return list;
}

void *sigma_open_library(const char *const *names, const char *const *hidden_prefixes, const char *const *settings) {
    static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&one_at_a_time);
    // Another list takes the environment's place for the library's constructors: setenv could free what other threads read.
    char **changed = changed_environment(hidden_prefixes, settings), **original = environ;
    if (changed) environ = changed;
    void *library = NULL;
    for (; *names && !library; names++) library = dlopen(*names, RTLD_NOW | RTLD_LOCAL);
    // Unless somebody has set a variable meanwhile.
    if (environ == changed) environ = original;
    pthread_mutex_unlock(&one_at_a_time);
    return library;
}
