#include "sigma_team.h"

#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

// libomp's interface to compiled code, as documented in its runtime reference.
typedef struct {
    int32_t reserved_1, flags, reserved_2, reserved_3;
    const char *source;
} omp_location;
typedef void (*omp_microtask)(int32_t *global_thread, int32_t *bound_thread, ...);

static struct {
    int32_t (*global_thread_num)(omp_location *);
    void (*push_num_threads)(omp_location *, int32_t, int32_t);
    void (*fork_call)(omp_location *, int32_t, omp_microtask, ...);
    void (*barrier)(omp_location *, int32_t);
    void (*set_blocktime)(int);
    void (*set_dynamic)(int);
    int available;
} omp;
static pthread_once_t omp_once = PTHREAD_ONCE_INIT;
static omp_location here = {0, 2, 0, 0, ";sigma;team;0;0;;"};

enum { list_count = 8, most_members = 256, spin_milliseconds = 5 };

// What was given out of one member's share of a list: from its front in the low half, from its end in the high half. Each on its
// own cache line: its member hammers on it.
typedef struct {
    _Alignas(64) _Atomic uint64_t given;
} share;

struct sigma_team {
    int32_t members;
    sigma_team_body body;
    void *context;
    int32_t global_threads[most_members];
    share shares[];  // [list_count][members]
};

static void find_omp(void) {
    static const char *const names[] = {"libomp.so.5", "libomp.so", "libomp.dylib", "/opt/homebrew/opt/libomp/lib/libomp.dylib"};
    void *library = NULL;
    for (unsigned i = 0; i < sizeof names / sizeof *names && !library; i++) library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    if (!library) return;
    omp.global_thread_num = (int32_t(*)(omp_location *))dlsym(library, "__kmpc_global_thread_num");
    omp.push_num_threads = (void (*)(omp_location *, int32_t, int32_t))dlsym(library, "__kmpc_push_num_threads");
    omp.fork_call = (void (*)(omp_location *, int32_t, omp_microtask, ...))dlsym(library, "__kmpc_fork_call");
    omp.barrier = (void (*)(omp_location *, int32_t))dlsym(library, "__kmpc_barrier");
    omp.set_blocktime = (void (*)(int))dlsym(library, "kmp_set_blocktime");
    omp.set_dynamic = (void (*)(int))dlsym(library, "omp_set_dynamic");
    omp.available = omp.global_thread_num && omp.push_num_threads && omp.fork_call && omp.barrier && omp.set_blocktime &&
                    omp.set_dynamic;
}

int sigma_team_has_threads(void) {
    pthread_once(&omp_once, find_omp);
    return omp.available;
}

static void *wait_for_all(void *gate) {
    pthread_mutex_lock(gate);
    pthread_mutex_unlock(gate);
    return NULL;
}

// libomp ends the process where it cannot start a thread, so that is tried first: `count` threads that live at the same time.
static int can_start_threads(int32_t count) {
    pthread_t threads[256];
    pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
    int32_t started = 0;
    pthread_mutex_lock(&gate);
    while (started < count && pthread_create(&threads[started], NULL, wait_for_all, &gate) == 0) started++;
    pthread_mutex_unlock(&gate);
    for (int32_t i = 0; i < started; i++) pthread_join(threads[i], NULL);
    return started == count;
}

sigma_team *sigma_team_create(int32_t members) {
    if (members > most_members) members = most_members;
    if (sigma_team_has_threads() && members > 1 && !can_start_threads(members - 1)) return NULL;
    if (!sigma_team_has_threads() || members < 1) members = 1;
    sigma_team *team = aligned_alloc(64, (sizeof(sigma_team) + 63) / 64 * 64 + (size_t)members * list_count * sizeof(share));
    if (!team) return NULL;
    team->members = members;
    for (int i = 0; i < list_count * members; i++) atomic_init(&team->shares[i].given, 0);
    return team;
}

void sigma_team_destroy(sigma_team *team) { free(team); }

int32_t sigma_team_members(const sigma_team *team) { return team->members; }

static void member_main(int32_t *global_thread, int32_t *bound_thread, void *argument) {
    sigma_team *team = argument;
    team->global_threads[*bound_thread] = *global_thread;
    team->body(team->context, *bound_thread);
}

void sigma_team_run(sigma_team *team, sigma_team_body body, void *context) {
    for (int i = 0; i < list_count * team->members; i++)
        atomic_store_explicit(&team->shares[i].given, 0, memory_order_relaxed);
    if (team->members == 1) {
        body(context, 0);
        return;
    }
    team->body = body;
    team->context = context;
    const int32_t thread = omp.global_thread_num(&here);
    // Both belong to the calling thread: the team must have the size that barriers and scratch memory were made for.
    omp.set_dynamic(0);
    omp.set_blocktime(spin_milliseconds);
    omp.push_num_threads(&here, thread, team->members);
    omp.fork_call(&here, 1, (omp_microtask)member_main, team);
}

void sigma_team_barrier(sigma_team *team, int32_t member) {
    if (team->members > 1) omp.barrier(&here, team->global_threads[member]);
}

int64_t sigma_team_share(const sigma_team *team, int32_t member, int64_t count) { return count * member / team->members; }

int64_t sigma_team_take(sigma_team *team, int32_t list, int32_t member, int64_t count) {
    for (int32_t i = 0; i < team->members; i++) {
        const int32_t owner = (member + i) % team->members;
        const int64_t first = sigma_team_share(team, owner, count);
        const int64_t length = sigma_team_share(team, owner + 1, count) - first;
        _Atomic uint64_t *given = &team->shares[list * team->members + owner].given;
        uint64_t now = atomic_load_explicit(given, memory_order_relaxed);
        for (;;) {
            const int64_t front = (int64_t)(now & 0xffffffff), back = (int64_t)(now >> 32);
            if (front + back >= length) break;
            const uint64_t next = now + (i == 0 ? 1 : (uint64_t)1 << 32);
            if (atomic_compare_exchange_weak_explicit(given, &now, next, memory_order_relaxed, memory_order_relaxed))
                return i == 0 ? first + front : first + length - 1 - back;
        }
    }
    return -1;
}

int32_t sigma_count_up(int32_t *count) { return __atomic_add_fetch(count, 1, __ATOMIC_ACQ_REL); }

void sigma_wait_for_count(const int32_t *count, int32_t value) {
    // Whoever counts may have lost its processor: spin for some 10 microseconds, then leave ours to it.
    for (int spins = 0; __atomic_load_n(count, __ATOMIC_ACQUIRE) < value; spins++) {
        if (spins >= 200) {
            sched_yield();
            continue;
        }
#if defined(__x86_64__)
        __builtin_ia32_pause();
#elif defined(__aarch64__)
        __asm__ volatile("yield");
#endif
    }
}
