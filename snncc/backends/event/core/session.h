/* Runs of samples through one network: from any number of threads at a time, each with a state of its
 * own, and with a team of helpers that all of them share. */
#ifndef EV_SESSION_H
#define EV_SESSION_H

#include "state.h"

typedef struct ev_session ev_session;

typedef struct {
    int32_t threads;  /* that compute one run: the caller's and helpers, which are kept alive */
    int32_t runs;     /* that are computed at a time, each with a state; others wait */
    int64_t patience; /* ns that a thread without work looks for some before it sleeps */
} ev_sizes;

/* The network must outlive the session. States of all threads and one run are allocated at once,
 * those of further runs when they are first needed; if there is no memory for them, runs wait for
 * one that there is. */
int ev_session_new(const ev_net *net, const ev_kernels *kernels, ev_policy policy, ev_sizes sizes,
                   ev_session **session) EV_MUST_CHECK;
void ev_session_free(ev_session *session);

/* Samples [timesteps][samples][channels][height][width], or [samples]… if `is_repeated`; uint8 or
 * int32 as the source's format is EV_U8 or not, in range. Results depend neither on the sizes nor on
 * what else runs. Runs that have to wait get their turn in the order they came in. EV_ERR_FORKED, and
 * nothing is done, in a process that was forked off after the session was started. */
int ev_session_run(ev_session *session, const void *samples, int is_repeated,
                   const ev_results *results) EV_MUST_CHECK;

/* Work of all samples that are done so far, work [projections]. */
void ev_session_work(ev_session *session, ev_work *work);

#endif
