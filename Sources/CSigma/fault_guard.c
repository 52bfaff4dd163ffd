// A file that shrinks while it is mapped makes the next read of a lost page a SIGBUS. The handler here puts a zero page
// under the lost address and marks the mapping, so that the reader can go on to a point where it can fail with an error.
#define _GNU_SOURCE
#include "sigma_files.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <unistd.h>

enum { slot_count = 1024 };

struct guarded_range {
    atomic_uintptr_t base;  // 0: free or being filled
    atomic_size_t length;
    atomic_size_t damaged_offset;
    atomic_int damaged;
    int taken;  // under `registration`
};

static struct guarded_range ranges[slot_count];
static pthread_mutex_t registration = PTHREAD_MUTEX_INITIALIZER;
static struct sigaction previous_action;
static int installed;
static uintptr_t page_size;

static void on_bus_error(int signal_number, siginfo_t *info, void *context) {
    const uintptr_t address = (uintptr_t)info->si_addr;
    for (int i = 0; i < slot_count; i++) {
        const uintptr_t base = atomic_load(&ranges[i].base);
        if (base == 0 || address < base || address - base >= atomic_load(&ranges[i].length)) continue;
        const uintptr_t page = address & ~(page_size - 1);
        void *placed = mmap((void *)page, page_size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
        if (placed == MAP_FAILED) break;
        if (atomic_exchange(&ranges[i].damaged, 1) == 0) atomic_store(&ranges[i].damaged_offset, page - base);
        return;
    }
    if (info->si_code <= 0 && !(previous_action.sa_flags & SA_SIGINFO) && previous_action.sa_handler == SIG_DFL) {
        // Sent by a process, not by a fault: nothing would run again, so it is sent on.
        signal(signal_number, SIG_DFL);
        raise(signal_number);
        return;
    }
    if (previous_action.sa_flags & SA_SIGINFO) {
        previous_action.sa_sigaction(signal_number, info, context);
    } else if (previous_action.sa_handler == SIG_DFL || previous_action.sa_handler == SIG_IGN) {
        // Returning runs the faulting instruction again, now with the default action. A signal that was only sent is ignored.
        if (info->si_code > 0) signal(signal_number, SIG_DFL);
    } else {
        previous_action.sa_handler(signal_number);
    }
}

int sigma_guard_add(const void *base, size_t length) {
    int slot = -1;
    pthread_mutex_lock(&registration);
    if (!installed) {
        page_size = (uintptr_t)sysconf(_SC_PAGESIZE);
        struct sigaction action = {0};
        action.sa_sigaction = on_bus_error;
        action.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK;
        sigemptyset(&action.sa_mask);
        installed = sigaction(SIGBUS, &action, &previous_action) == 0;
    }
    for (int i = 0; installed && i < slot_count && slot < 0; i++) {
        if (ranges[i].taken) continue;
        slot = i;
        ranges[i].taken = 1;
        atomic_store(&ranges[i].damaged, 0);
        atomic_store(&ranges[i].damaged_offset, 0);
        atomic_store(&ranges[i].length, length);
        atomic_store(&ranges[i].base, (uintptr_t)base);
    }
    pthread_mutex_unlock(&registration);
    return slot;
}

int sigma_guard_is_damaged(int slot) { return slot >= 0 && atomic_load(&ranges[slot].damaged); }

size_t sigma_guard_damaged_offset(int slot) { return slot < 0 ? 0 : atomic_load(&ranges[slot].damaged_offset); }

void sigma_guard_remove(int slot) {
    if (slot < 0) return;
    pthread_mutex_lock(&registration);
    atomic_store(&ranges[slot].base, 0);
    ranges[slot].taken = 0;
    pthread_mutex_unlock(&registration);
}
