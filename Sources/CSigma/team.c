// Threads of our own, started with the team and joined with it: nothing in the environment changes them, and a system that gives no more
// threads is noticed while a model is loaded.
#define _GNU_SOURCE
#include "sigma_team.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

enum {
    list_count = 8,
    most_members = 256,
    // Members gather in a tree: each waits for as many others, then reports to its own parent.
    arity = 4,
    // Of a member's stack, whatever the process's limit is. Bodies keep their buffers in scratch memory; but without optimisation a kernel with
    // all the products that are inlined into it has a frame of 2 MB.
#ifdef __OPTIMIZE__
    stack_bytes = 1 << 20,
#else
    stack_bytes = 4 << 20,
#endif
    // A member that waits keeps its processor for as many pauses (some 20 microseconds), then offers it to others, then sleeps.
    spins = 2000,
    awake_nanoseconds = 5000000,
};

static void pause_briefly(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static int64_t now_nanoseconds(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

// A number that only grows, which one thread writes and others wait for. On cache lines of its own.
typedef struct {
    _Alignas(64) _Atomic uint32_t value;
    _Alignas(64) _Atomic uint32_t sleepers;
    pthread_mutex_t lock;
    pthread_cond_t changed;
} gate;

static void gate_init(gate *g) {
    atomic_init(&g->value, 0);
    atomic_init(&g->sleepers, 0);
    pthread_mutex_init(&g->lock, NULL);
    pthread_cond_init(&g->changed, NULL);
}

static void gate_destroy(gate *g) {
    pthread_mutex_destroy(&g->lock);
    pthread_cond_destroy(&g->changed);
}

// Both sides write before they read: either the sleeper sees the value, or the thread that raises it sees the sleeper.
static void gate_raise(gate *g, uint32_t value) {
    atomic_store(&g->value, value);
    if (atomic_load(&g->sleepers) == 0) return;
    pthread_mutex_lock(&g->lock);
    pthread_cond_broadcast(&g->changed);
    pthread_mutex_unlock(&g->lock);
}

static int is_below(gate *g, uint32_t value) {
    // Numbers wrap around.
    return (int32_t)(atomic_load_explicit(&g->value, memory_order_acquire) - value) < 0;
}

static void gate_sleep(gate *g, uint32_t value) {
    atomic_fetch_add(&g->sleepers, 1);
    pthread_mutex_lock(&g->lock);
    while ((int32_t)(atomic_load(&g->value) - value) < 0) pthread_cond_wait(&g->changed, &g->lock);
    pthread_mutex_unlock(&g->lock);
    atomic_fetch_sub(&g->sleepers, 1);
}

// Waits until the value is reached. Where there are more members than processors, staying awake would keep the others from working.
static void gate_wait(gate *g, uint32_t value, int stays_awake) {
    if (stays_awake) {
        for (int i = 0; i < spins; i++) {
            if (!is_below(g, value)) return;
            pause_briefly();
        }
        const int64_t start = now_nanoseconds();
        while (now_nanoseconds() - start < awake_nanoseconds) {
            if (!is_below(g, value)) return;
            sched_yield();
        }
    }
    if (is_below(g, value)) gate_sleep(g, value);
}

// What was given out of one member's share of a list: from its front in the low half, from its end in the high half. Each on its
// own cache line: its member hammers on it.
typedef struct {
    _Alignas(64) _Atomic uint64_t given;
} share;

typedef struct {
    // How often the member, and those below it in the tree, have arrived at a barrier or at the end of a body.
    gate arrived;
    sigma_team *team;
    pthread_t thread;
    int32_t number;
} member;

struct sigma_team {
    int32_t members;
    int stays_awake;
    // Whether the threads run where the team's user does.
    int is_placed;
    int is_ended;
    sigma_team_body body;
    void *context;
    // Bodies begun, and barriers that everyone has reached. `steps` counts both, for each member the same.
    gate begun, released;
    // [list_count][members]
    share *shares;
    // [members]: each its own number of barriers and ends so far, a cache line apart.
    member member[];
};

// Waits for those below, then reports to the one above. Returns the number of this arrival.
static uint32_t arrive(sigma_team *team, int32_t number) {
    member *self = &team->member[number];
    const uint32_t step = atomic_load_explicit(&self->arrived.value, memory_order_relaxed) + 1;
    for (int32_t child = number * arity + 1; child <= number * arity + arity && child < team->members; child++)
        gate_wait(&team->member[child].arrived, step, team->stays_awake);
    gate_raise(&self->arrived, step);
    return step;
}

static void *member_main(void *argument) {
    const member *self = argument;
    sigma_team *team = self->team;
    for (uint32_t round = 1;; round++) {
        gate_wait(&team->begun, round, team->stays_awake);
        if (team->is_ended) return NULL;
        team->body(team->context, self->number);
        arrive(team, self->number);
    }
}

// Signals that are sent to the process are for threads that expect them; those that a member's own work raises stay its own.
static void member_signals(sigset_t *signals) {
    static const int own[] = {SIGBUS, SIGSEGV, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS};
    sigfillset(signals);
    for (unsigned i = 0; i < sizeof own / sizeof *own; i++) sigdelset(signals, own[i]);
}

// Starts members 1...; returns how many there are then, member 0 counted.
static int32_t start_members(sigma_team *team, int32_t count) {
    pthread_attr_t attributes;
    if (pthread_attr_init(&attributes) != 0) return 1;
    pthread_attr_setstacksize(&attributes, stack_bytes);
    sigset_t signals, before;
    member_signals(&signals);
    pthread_sigmask(SIG_SETMASK, &signals, &before);
    int32_t started = 1;
    while (started < count &&
           pthread_create(&team->member[started].thread, &attributes, member_main, &team->member[started]) == 0)
        started++;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return started;
}

sigma_team *sigma_team_create(int32_t members) {
    if (members > most_members) members = most_members;
    if (members < 1) members = 1;
    const size_t head = (sizeof(sigma_team) + (size_t)members * sizeof(member) + 63) / 64 * 64;
    sigma_team *team = aligned_alloc(64, head + (size_t)members * list_count * sizeof(share));
    if (!team) return NULL;
    team->members = members;
    team->stays_awake = members <= sigma_hardware_threads();
    team->is_placed = members == 1;
    team->is_ended = 0;
    team->shares = (share *)((char *)team + head);
    gate_init(&team->begun);
    gate_init(&team->released);
    for (int32_t i = 0; i < members; i++) {
        gate_init(&team->member[i].arrived);
        team->member[i].team = team;
        team->member[i].number = i;
    }
    for (int i = 0; i < list_count * members; i++) atomic_init(&team->shares[i].given, 0);
    const int32_t started = start_members(team, members);
    if (started == members) return team;
    // A team with fewer threads is of no use: the caller asks again with a smaller number.
    team->members = started;
    sigma_team_destroy(team);
    return NULL;
}

void sigma_team_destroy(sigma_team *team) {
    if (!team) return;
    team->is_ended = 1;
    gate_raise(&team->begun, atomic_load(&team->begun.value) + 1);
    for (int32_t i = 1; i < team->members; i++) pthread_join(team->member[i].thread, NULL);
    for (int32_t i = 0; i < team->members; i++) gate_destroy(&team->member[i].arrived);
    gate_destroy(&team->begun);
    gate_destroy(&team->released);
    free(team);
}

int32_t sigma_team_members(const sigma_team *team) { return team->members; }

// The members run where the thread may that uses the team, which is not the one that made it.
static void place_members(sigma_team *team) {
#if defined(__linux__)
    cpu_set_t processors;
    if (pthread_getaffinity_np(pthread_self(), sizeof processors, &processors) == 0)
        for (int32_t i = 1; i < team->members; i++)
            pthread_setaffinity_np(team->member[i].thread, sizeof processors, &processors);
#endif
    team->is_placed = 1;
}

void sigma_team_run(sigma_team *team, sigma_team_body body, void *context) {
    for (int i = 0; i < list_count * team->members; i++)
        atomic_store_explicit(&team->shares[i].given, 0, memory_order_relaxed);
    if (team->members == 1) {
        body(context, 0);
        return;
    }
    if (!team->is_placed) place_members(team);
    team->body = body;
    team->context = context;
    gate_raise(&team->begun, atomic_load_explicit(&team->begun.value, memory_order_relaxed) + 1);
    body(context, 0);
    arrive(team, 0);
}

void sigma_team_barrier(sigma_team *team, int32_t number) {
    if (team->members == 1) return;
    const uint32_t step = arrive(team, number);
    if (number == 0)
        gate_raise(&team->released, step);
    else
        gate_wait(&team->released, step, team->stays_awake);
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

void sigma_team_reset(sigma_team *team, int32_t list) {
    for (int32_t i = 0; i < team->members; i++)
        atomic_store_explicit(&team->shares[list * team->members + i].given, 0, memory_order_relaxed);
}

int32_t sigma_count_up(int32_t *count) { return __atomic_add_fetch(count, 1, __ATOMIC_ACQ_REL); }

void sigma_wait_for_count(const int32_t *count, int32_t value) {
    // The counting thread may have lost its processor: spin for some 10 microseconds, then yield ours.
    for (int spins = 0; __atomic_load_n(count, __ATOMIC_ACQUIRE) < value; spins++) {
        if (spins >= 200) {
            sched_yield();
            continue;
        }
        pause_briefly();
    }
}
