/* Threads that help with runs, whichever has work for them.
 *
 * A run offers its work in parts: the samples it has, or the strips of an accumulator. It takes parts
 * itself, and helpers that have time take others. It waits only for parts that a helper has begun, so
 * a helper that gets no processor holds nobody up. */
#ifndef EV_TEAM_H
#define EV_TEAM_H

#include "state.h"

typedef struct ev_team ev_team;

/* Does one part of `job`; `own` is a state of the thread that does it. */
typedef void ev_part_fn(const void *job, ev_state *own, int64_t part);

/* A team of `size` threads: whoever offers work, and `size` - 1 helpers with a state each, state [size
 * - 1], which must outlive the team. It has `offers` places from which work can be offered. A helper
 * that finds no work looks for some during `patience` ns, and then sleeps. */
int ev_team_new(ev_state *const *state, int32_t size, int32_t offers, int64_t patience,
                ev_team **team) EV_MUST_CHECK;
void ev_team_free(ev_team *team);

/* In a process that was forked off: only the memory, since no thread and no lock came along. */
void ev_team_abandon(ev_team *team);

ev_offer *ev_team_offer(ev_team *team, int32_t place);

/* How many runs are under way: where there are several, helpers turn to the next after each part. */
void ev_team_begin(ev_team *team);
void ev_team_end(ev_team *team);

/* All parts 0..parts - 1 of the job, some of them by helpers; `own` is a state of the caller. Returns
 * ns that a part took, of those that the caller did. */
int64_t ev_offer_do(ev_offer *offer, ev_part_fn *part, const void *job, int64_t parts, ev_state *own);

/* Strips of an accumulator in that way; where it does not pay the caller does them alone. */
void ev_offer_strips(ev_offer *offer, ev_state *own, const ev_node *node, int32_t index);

#endif
