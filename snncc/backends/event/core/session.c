#include "session.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "team.h"

/* One run, shared by all workers: each takes the next sample until none is left; with fewer samples
 * than workers they share out the rows of one after the other. */
typedef struct {
    const uint8_t *samples;
    size_t bytes; /* of a sample */
    int64_t stride;
    const ev_results *results;
    atomic_llong next;
    int is_team;
} round_job;

struct ev_session {
    int32_t threads, started;
    ev_state **state; /* [threads] */
    pthread_t *thread; /* [threads - 1] */
    pthread_mutex_t lock;
    pthread_cond_t begin, done;
    int64_t round;  /* counts runs; a change is the signal to begin */
    int32_t active; /* workers that have not finished the round */
    int is_closing;
    round_job job;
    ev_team team;
    ev_state *view; /* [threads] of the team */
};

static void work_on(ev_state *state, round_job *job)
{
    for (;;) {
        int64_t i = atomic_fetch_add(&job->next, 1);

        if (i >= job->results->samples)
            return;
        ev_run_sample(state, job->samples + (size_t)i * job->bytes, job->stride, i, job->results);
    }
}

/* -- the team ----------------------------------------------------------------------------------- */

/* The leader's state for every member, but with sums of its own. */
static void form_team(ev_session *session)
{
    for (int32_t i = 0; i < session->threads; i++) {
        ev_state *view = &session->view[i];

        *view = *session->state[0];
        view->tile = session->state[i]->tile;
        view->part = session->state[i]->part;
        view->wide = session->state[i]->wide;
    }
    session->team.size = session->threads;
    session->team.view = session->view;
    atomic_store(&session->team.phase, 0);
    atomic_store(&session->team.is_over, 0);
}

static void lead(ev_session *session)
{
    session->state[0]->team = &session->team;
    work_on(session->state[0], &session->job);
    session->state[0]->team = NULL;
    ev_team_end(&session->team);
}

/* -- workers ------------------------------------------------------------------------------------ */

typedef struct {
    ev_session *session;
    int32_t index;
} worker;

static int wait_for_round(ev_session *session, int64_t *seen)
{
    pthread_mutex_lock(&session->lock);
    while (session->round == *seen && !session->is_closing)
        pthread_cond_wait(&session->begin, &session->lock);
    *seen = session->round;
    pthread_mutex_unlock(&session->lock);
    return !session->is_closing;
}

static void finish_round(ev_session *session)
{
    pthread_mutex_lock(&session->lock);
    if (--session->active == 0)
        pthread_cond_signal(&session->done);
    pthread_mutex_unlock(&session->lock);
}

static void *run_worker(void *argument)
{
    worker self = *(worker *)argument;
    int64_t seen = 0;

    free(argument);
    while (wait_for_round(self.session, &seen)) {
        if (self.session->job.is_team)
            ev_team_join(&self.session->team, self.index);
        else
            work_on(self.session->state[self.index], &self.session->job);
        finish_round(self.session);
    }
    return NULL;
}

static int start_worker(ev_session *session)
{
    worker *argument = malloc(sizeof(*argument));

    if (argument == NULL)
        return EV_ERR_NO_MEMORY;
    *argument = (worker){session, session->started + 1};
    if (pthread_create(&session->thread[session->started], NULL, run_worker, argument) != 0) {
        free(argument);
        return EV_ERR_NO_THREAD;
    }
    session->started++;
    return EV_OK;
}

/* -- life --------------------------------------------------------------------------------------- */

int ev_session_new(const ev_net *net, const ev_kernels *kernels, ev_policy policy, int32_t threads,
                   ev_session **out)
{
    int status = EV_ERR_NO_MEMORY;
    ev_session *session = calloc(1, sizeof(*session));

    if (session == NULL)
        goto out;
    pthread_mutex_init(&session->lock, NULL);
    pthread_cond_init(&session->begin, NULL);
    pthread_cond_init(&session->done, NULL);
    session->threads = threads;
    session->state = calloc((size_t)threads, sizeof(*session->state));
    session->thread = calloc((size_t)threads, sizeof(*session->thread));
    session->view = calloc((size_t)threads, sizeof(*session->view));
    if (session->state == NULL || session->thread == NULL || session->view == NULL)
        goto out;
    status = EV_OK;
    for (int32_t i = 0; i < threads && status == EV_OK; i++)
        status = ev_state_new(net, kernels, policy, &session->state[i]);
    while (status == EV_OK && session->started < threads - 1)
        status = start_worker(session);
out:
    if (status != EV_OK) {
        ev_session_free(session);
        session = NULL;
    }
    *out = session;
    return status;
}

static void stop_workers(ev_session *session)
{
    pthread_mutex_lock(&session->lock);
    session->is_closing = 1;
    pthread_cond_broadcast(&session->begin);
    pthread_mutex_unlock(&session->lock);
    for (int32_t i = 0; i < session->started; i++)
        pthread_join(session->thread[i], NULL);
}

void ev_session_free(ev_session *session)
{
    if (session == NULL)
        return;
    stop_workers(session);
    for (int32_t i = 0; session->state != NULL && i < session->threads; i++)
        ev_state_free(session->state[i]);
    pthread_mutex_destroy(&session->lock);
    pthread_cond_destroy(&session->begin);
    pthread_cond_destroy(&session->done);
    free(session->state);
    free(session->thread);
    free(session->view);
    free(session);
}

/* -- running ------------------------------------------------------------------------------------ */

static void begin_round(ev_session *session)
{
    pthread_mutex_lock(&session->lock);
    session->active = session->started;
    session->round++;
    pthread_cond_broadcast(&session->begin);
    pthread_mutex_unlock(&session->lock);
}

static void await_others(ev_session *session)
{
    pthread_mutex_lock(&session->lock);
    while (session->active > 0)
        pthread_cond_wait(&session->done, &session->lock);
    pthread_mutex_unlock(&session->lock);
}

void ev_session_run(ev_session *session, const void *samples, int is_repeated,
                    const ev_results *results)
{
    const ev_node *source = &session->state[0]->net->node[0];
    int64_t elements = ev_elements(source);

    session->job.samples = samples;
    session->job.bytes = (size_t)elements * (source->format == EV_U8 ? 1 : 4);
    session->job.stride = is_repeated ? 0 : results->samples * elements;
    session->job.results = results;
    atomic_store(&session->job.next, 0);
    session->job.is_team = results->samples < session->threads;
    form_team(session);
    begin_round(session);
    if (session->job.is_team)
        lead(session);
    else
        work_on(session->state[0], &session->job);
    await_others(session);
}

void ev_session_work(const ev_session *session, ev_work *work)
{
    const ev_net *net = session->state[0]->net;

    for (int32_t k = 0; k < net->projections; k++) {
        work[k] = (ev_work){0};
        for (int32_t i = 0; i < session->threads; i++) {
            work[k].runs += session->state[i]->work[k].runs;
            work[k].values += session->state[i]->work[k].values;
            work[k].events += session->state[i]->work[k].events;
            work[k].event_work += session->state[i]->work[k].event_work;
        }
    }
}
