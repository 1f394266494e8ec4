/* Workers that share out the strips of one sample: for a single sample, as soon as possible. */
#ifndef EV_TEAM_H
#define EV_TEAM_H

#include <stdatomic.h>

#include "state.h"

struct ev_team {
    int32_t size;        /* the leader and the others */
    ev_state *view;      /* [size] the leader's state, each with sums of its own */
    const ev_node *node; /* the accumulator whose strips are shared out */
    int32_t index;
    atomic_int phase;   /* counts accumulators; a change is the signal to begin */
    atomic_int pending; /* others that are not done with their strips */
    atomic_int is_over;
};

/* Strips of the accumulator, some of them by each member; called by the leader. */
void ev_team_strips(ev_team *team, const ev_node *node, int32_t index);

/* What members but the leader do until the sample is over. */
void ev_team_join(ev_team *team, int32_t member);

/* Called by the leader when the sample is over. */
void ev_team_end(ev_team *team);

#endif
