// The engine's thread team: one fork and join per operation, barriers inside it.
//
// The threads are OpenMP's, from libomp, whose entry points are looked up at run time. Where libomp is not installed the team has
// one member. A team is used by one thread at a time (the engine thread, its member 0).
#ifndef SIGMA_TEAM_H
#define SIGMA_TEAM_H

#include <stdint.h>

typedef struct sigma_team sigma_team;
typedef void (*sigma_team_body)(void *context, int32_t member);

// Cores that this process may use, within its control group's quota.
int32_t sigma_processor_count(void);
// Whether libomp was found.
int sigma_team_has_threads(void);
// A team of `members` (1 to 256) threads, or of one without libomp. NULL if memory or threads cannot be had.
sigma_team *sigma_team_create(int32_t members);
void sigma_team_destroy(sigma_team *team);
int32_t sigma_team_members(const sigma_team *team);

// Runs body(context, member) on every member and returns when all have ended. Resets all counters.
void sigma_team_run(sigma_team *team, sigma_team_body body, void *context);
// Inside a body: waits until every member is here.
void sigma_team_barrier(sigma_team *team, int32_t member);
// Inside a body: the next number of counter 0...7, from 0, each given to one member.
int64_t sigma_team_take(sigma_team *team, int32_t counter);
// Inside a body, while all other members wait at a barrier: the counter begins again from 0.
void sigma_team_reset(sigma_team *team, int32_t counter);

#endif
