#include "team.h"

#include <sched.h>

#include "parts.h"

enum { SPINS = 2000 }; /* some microseconds; strips of a layer take tens */

static void pause_after(int *spins)
{
    if (++*spins < SPINS)
        return;
    *spins = 0;
    sched_yield();
}

static void do_share(ev_team *team, int32_t member)
{
    int64_t strips = team->node->strips;

    ev_run_strips(&team->view[member], team->node, team->index,
                  (int32_t)(strips * member / team->size),
                  (int32_t)(strips * (member + 1) / team->size));
}

void ev_team_strips(ev_team *team, const ev_node *node, int32_t index)
{
    int spins = 0;

    team->node = node;
    team->index = index;
    atomic_store(&team->pending, team->size - 1);
    atomic_fetch_add(&team->phase, 1);
    do_share(team, 0);
    while (atomic_load(&team->pending) > 0)
        pause_after(&spins);
}

void ev_team_join(ev_team *team, int32_t member)
{
    int seen = 0, spins = 0;

    while (!atomic_load(&team->is_over)) {
        if (atomic_load(&team->phase) == seen) {
            pause_after(&spins);
            continue;
        }
        seen++;
        do_share(team, member);
        atomic_fetch_sub(&team->pending, 1);
    }
}

void ev_team_end(ev_team *team)
{
    atomic_store(&team->is_over, 1);
}
