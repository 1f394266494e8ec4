#include "session.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "team.h"

/* Room for a run, which is taken while it is computed. */
typedef struct {
    ev_state *state; /* NULL until it is first needed */
    ev_offer *offer;
    int is_taken;
} room;

struct ev_session {
    const ev_net *net;
    const ev_kernels *kernels;
    ev_policy policy;
    ev_sizes sizes;
    pid_t owner; /* the process whose threads the team has */
    ev_team *team;
    ev_state **helper; /* [threads - 1] */
    room *room;        /* [runs] */
    pthread_mutex_t lock; /* of all that follows, and of the rooms */
    pthread_cond_t freed; /* a room was left, or it is the turn of another run */
    int64_t came, served; /* runs that asked for a room, that got one */
    int is_full;          /* there is no memory for further states */
    ev_work *work;        /* [projections] */
};

/* -- rooms -------------------------------------------------------------------------------------- */

/* One that has a state already, else one that will get it; NULL: all are taken. */
static room *free_room(const ev_session *session)
{
    room *found = NULL;

    for (int32_t i = session->sizes.runs - 1; i >= 0; i--) {
        room *at = &session->room[i];

        if (!at->is_taken && (at->state != NULL || (!session->is_full && found == NULL)))
            found = at;
    }
    return found;
}

/* Waits for a room, in the order in which runs came. */
static room *take_room(ev_session *session)
{
    room *taken;
    int64_t ticket;

    pthread_mutex_lock(&session->lock);
    ticket = session->came++;
    while (session->served != ticket || (taken = free_room(session)) == NULL)
        pthread_cond_wait(&session->freed, &session->lock);
    taken->is_taken = 1;
    session->served++;
    pthread_cond_broadcast(&session->freed);
    pthread_mutex_unlock(&session->lock);
    return taken;
}

static void leave_room(ev_session *session, room *taken, int is_full)
{
    pthread_mutex_lock(&session->lock);
    taken->is_taken = 0;
    session->is_full |= is_full;
    pthread_cond_broadcast(&session->freed);
    pthread_mutex_unlock(&session->lock);
}

static int new_state(const ev_session *session, ev_state **state)
{
    return ev_state_new(session->net, session->kernels, session->policy, state);
}

/* A room with a state: the first one always has it. */
static room *enter(ev_session *session)
{
    room *taken = take_room(session);

    while (taken->state == NULL && new_state(session, &taken->state) != EV_OK) {
        leave_room(session, taken, 1);
        taken = take_room(session);
    }
    return taken;
}

/* -- runs --------------------------------------------------------------------------------------- */

typedef struct {
    ev_session *session;
    const uint8_t *samples;
    size_t bytes; /* of a sample */
    int64_t stride;
    const ev_results *results;
} run;

/* What the state counted goes to the session: others may ask for it at any time. */
static void count_work(ev_session *session, ev_state *state)
{
    int32_t projections = session->net->projections;

    pthread_mutex_lock(&session->lock);
    for (int32_t k = 0; k < projections; k++) {
        session->work[k].runs += state->work[k].runs;
        session->work[k].values += state->work[k].values;
        session->work[k].events += state->work[k].events;
        session->work[k].event_work += state->work[k].event_work;
    }
    pthread_mutex_unlock(&session->lock);
    memset(state->work, 0, (size_t)projections * sizeof(*state->work));
}

static void run_sample(const void *job, ev_state *own, int64_t i)
{
    const run *of = job;

    ev_run_sample(own, of->samples + (size_t)i * of->bytes, of->stride, i, of->results);
    count_work(of->session, own);
}

/* Samples are shared out; where they are fewer than threads, the strips of one after the other. */
static void run_all(const run *of, room *taken)
{
    int64_t samples = of->results->samples;
    int32_t threads = of->session->sizes.threads;

    if (threads > 1 && samples >= threads) {
        ev_offer_do(taken->offer, run_sample, of, samples, taken->state);
        return;
    }
    taken->state->offer = threads > 1 ? taken->offer : NULL;
    for (int64_t i = 0; i < samples; i++)
        run_sample(of, taken->state, i);
    taken->state->offer = NULL;
}

int ev_session_run(ev_session *session, const void *samples, int is_repeated,
                   const ev_results *results)
{
    const ev_node *source = &session->net->node[0];
    int64_t elements = ev_elements(source);
    run of = {session, samples, (size_t)elements * (source->format == EV_U8 ? 1 : 4),
              is_repeated ? 0 : results->samples * elements, results};
    room *taken;

    if (session->owner != getpid())
        return EV_ERR_FORKED;
    taken = enter(session);
    ev_team_begin(session->team);
    run_all(&of, taken);
    ev_team_end(session->team);
    leave_room(session, taken, 0);
    return EV_OK;
}

void ev_session_work(ev_session *session, ev_work *work)
{
    int is_owned = session->owner == getpid(); /* else the lock may be held by nobody */

    if (is_owned)
        pthread_mutex_lock(&session->lock);
    memcpy(work, session->work, (size_t)session->net->projections * sizeof(*work));
    if (is_owned)
        pthread_mutex_unlock(&session->lock);
}

/* -- life --------------------------------------------------------------------------------------- */

static int alloc_tables(ev_session *session)
{
    session->helper = calloc((size_t)session->sizes.threads, sizeof(*session->helper));
    session->room = calloc((size_t)session->sizes.runs, sizeof(*session->room));
    session->work = calloc((size_t)session->net->projections + 1, sizeof(*session->work));
    return session->helper != NULL && session->room != NULL && session->work != NULL
               ? EV_OK
               : EV_ERR_NO_MEMORY;
}

static int start(ev_session *session)
{
    int status = alloc_tables(session);

    if (status == EV_OK)
        status = new_state(session, &session->room[0].state);
    for (int32_t i = 0; i < session->sizes.threads - 1 && status == EV_OK; i++)
        status = new_state(session, &session->helper[i]);
    if (status == EV_OK)
        status = ev_team_new(session->helper, session->sizes.threads, session->sizes.runs,
                             session->sizes.patience, &session->team);
    for (int32_t i = 0; i < session->sizes.runs && status == EV_OK; i++)
        session->room[i].offer = ev_team_offer(session->team, i);
    return status;
}

int ev_session_new(const ev_net *net, const ev_kernels *kernels, ev_policy policy, ev_sizes sizes,
                   ev_session **out)
{
    int status = EV_ERR_NO_MEMORY;
    ev_session *session = calloc(1, sizeof(*session));

    if (session == NULL)
        goto out;
    pthread_mutex_init(&session->lock, NULL);
    pthread_cond_init(&session->freed, NULL);
    session->net = net;
    session->kernels = kernels;
    session->policy = policy;
    session->sizes = sizes;
    session->owner = getpid();
    status = start(session);
out:
    if (status != EV_OK) {
        ev_session_free(session);
        session = NULL;
    }
    *out = session;
    return status;
}

static void end_threads(ev_session *session)
{
    if (session->owner != getpid()) {
        ev_team_abandon(session->team);
        return;
    }
    ev_team_free(session->team);
    pthread_mutex_destroy(&session->lock);
    pthread_cond_destroy(&session->freed);
}

void ev_session_free(ev_session *session)
{
    if (session == NULL)
        return;
    end_threads(session);
    for (int32_t i = 0; session->room != NULL && i < session->sizes.runs; i++)
        ev_state_free(session->room[i].state);
    for (int32_t i = 0; session->helper != NULL && i < session->sizes.threads - 1; i++)
        ev_state_free(session->helper[i]);
    free(session->room);
    free(session->helper);
    free(session->work);
    free(session);
}
