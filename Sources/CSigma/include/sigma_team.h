// The engine's thread team: one fork and join per operation, barriers inside it.
//
// A team is used by one thread at a time (the engine thread), which is its member 0; the others are threads of the team's own. They sleep when
// there is nothing to do for 5 milliseconds, and at once where there are more members than hardware threads.
#ifndef SIGMA_TEAM_H
#define SIGMA_TEAM_H

#include "sigma_system.h"

typedef struct sigma_team sigma_team;
typedef void (*sigma_team_body)(void *context, int32_t member);

// A team of `members` (1 to 256). NULL if memory or threads cannot be had.
sigma_team *sigma_team_create(int32_t members);
// Ends its threads, and waits for their end. NULL is allowed.
void sigma_team_destroy(sigma_team *team);
int32_t sigma_team_members(const sigma_team *team);

// Runs body(context, member) on every member and returns when all have ended. Resets all lists. The threads run on the processors that the
// caller of the first run may use.
void sigma_team_run(sigma_team *team, sigma_team_body body, void *context);
// Inside a body: waits until every member is here.
void sigma_team_barrier(sigma_team *team, int32_t member);
// Inside a body: an item of list 0...7, which has `count` < 2^31 items, or -1 when all are given out; each is given to one member. A
// member first gets the items of its own share (successive ones, in order), then those that others have not begun, from the end of their shares.
int64_t sigma_team_take(sigma_team *team, int32_t list, int32_t member, int64_t count);
// Inside a body, while all other members are between two barriers: the list is whole again.
void sigma_team_reset(sigma_team *team, int32_t list);
// The first item of the member's own share.
int64_t sigma_team_share(const sigma_team *team, int32_t member, int64_t count);

// Progress from member to member, without a barrier: adds 1, after everything that the caller wrote; returns the new value.
int32_t sigma_count_up(int32_t *count);
// Waits until the count is at least `value`; what was written before it was counted can then be read.
void sigma_wait_for_count(const int32_t *count, int32_t value);

#endif
