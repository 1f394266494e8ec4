/* Workers that run samples of one network; kept alive from run to run. */
#ifndef EV_SESSION_H
#define EV_SESSION_H

#include "state.h"

typedef struct ev_session ev_session;

/* `threads` workers, one of them the caller's thread. The network must outlive the session. */
int ev_session_new(const ev_net *net, const ev_kernels *kernels, ev_policy policy, int32_t threads,
                   ev_session **session) EV_MUST_CHECK;
void ev_session_free(ev_session *session);

/* Samples [timesteps][samples][channels][height][width], or [samples]… if `is_repeated`; uint8 or
 * int32 as the source's format is EV_U8 or not, in range. Results do not depend on `threads`. */
void ev_session_run(ev_session *session, const void *samples, int is_repeated,
                    const ev_results *results);

/* Work of all runs so far, summed over workers into work [projections]. */
void ev_session_work(const ev_session *session, ev_work *work);

#endif
