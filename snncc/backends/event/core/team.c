#include "team.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#include "parts.h"

/* Waking helpers takes microseconds: one that was woken looks around for as long as this, so that it
 * need not be woken for each of the small layers that follow. */
enum { WAKE_INTERVAL = 50000 }; /* ns */

/* Below this an accumulator takes longer if others have to hear of it. */
enum { SMALL = 10000 }; /* ns */

/* A helper that lost its processor within a strip holds up the run for milliseconds. Somebody else
 * needs processors then, and strips are not shared out for a while: the longer, the sooner it happens
 * again. */
enum { LATE = 200000, SHORTEST_REST = 10000000, LONGEST_REST = 320000000 }; /* ns */

enum { CACHE_LINE = 64 };

/* Parts of an offer that a member takes before it takes those of others: neighbours stay in a cache. */
typedef struct {
    _Alignas(CACHE_LINE) atomic_llong next;
    int64_t end;
} share;

/* A place from which a run offers work. What a helper reads of it is written while it is closed and
 * nobody is inside. */
struct ev_offer {
    _Alignas(CACHE_LINE) atomic_uint phase; /* odd: open; a new number for each opening and closing */
    atomic_int inside;     /* helpers that may take parts */
    atomic_int is_awaited; /* the run sleeps until nobody is inside */
    int32_t shares;        /* in use */
    share *share;          /* [size] */
    ev_part_fn *part;
    const void *job;
    ev_team *team;
};

typedef struct {
    ev_team *team;
    ev_state *state;
    pthread_t thread;
    int32_t member;
    int32_t turn;   /* the offer it looks at next */
    unsigned *seen; /* [offers] phase in which it found no part left */
} helper;

struct ev_team {
    int32_t size, offers, started;
    int64_t patience;
    ev_offer *offer;  /* [offers] */
    share *share;     /* [offers][size] */
    helper *helper;   /* [size - 1] */
    unsigned *seen;   /* [size - 1][offers] */
    pthread_mutex_t lock;
    pthread_cond_t begin; /* `calls` has changed, or the team ends */
    pthread_cond_t done;  /* an offer that is awaited has nobody inside */
    uint64_t calls;
    atomic_llong called; /* when, ns */
    atomic_llong rest, rests_until; /* ns; when */
    atomic_int asleep;   /* helpers */
    atomic_int runs;     /* under way */
    atomic_int is_closing;
};

static int64_t now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static void pause_briefly(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* -- taking parts ------------------------------------------------------------------------------- */

/* The next part, of the member's own share first; -1: none is left. */
static int64_t next_part(ev_offer *offer, int32_t member)
{
    for (int32_t k = 0; k < offer->shares; k++) {
        share *from = &offer->share[(member + k) % offer->shares];
        int64_t part;

        if (atomic_load(&from->next) >= from->end)
            continue;
        part = atomic_fetch_add(&from->next, 1);
        if (part < from->end)
            return part;
    }
    return -1;
}

/* Helpers leave an offer through here; the last one wakes a run that sleeps meanwhile. */
static void leave(ev_offer *offer)
{
    ev_team *team = offer->team;

    if (atomic_fetch_sub(&offer->inside, 1) > 1 || !atomic_load(&offer->is_awaited))
        return;
    pthread_mutex_lock(&team->lock);
    pthread_cond_broadcast(&team->done);
    pthread_mutex_unlock(&team->lock);
}

/* Takes parts of an offer until none is left, or one if other runs are under way. Returns whether
 * there was one. */
static int assist(helper *self, int32_t place)
{
    ev_offer *offer = &self->team->offer[place];
    unsigned phase = atomic_load(&offer->phase);
    int64_t part = 0;
    int done = 0;

    if (phase % 2 == 0 || phase == self->seen[place])
        return 0;
    atomic_fetch_add(&offer->inside, 1);
    if (atomic_load(&offer->phase) == phase) { /* so the run waits until this helper leaves */
        do {
            part = next_part(offer, self->member);
            if (part >= 0)
                offer->part(offer->job, self->state, part);
            done |= part >= 0;
        } while (part >= 0 && atomic_load(&self->team->runs) <= 1);
        if (part < 0)
            self->seen[place] = phase;
    }
    leave(offer);
    return done;
}

/* -- helpers ------------------------------------------------------------------------------------ */

/* Some work of the next offer that has some, so that all get their turn. */
static int assist_next(helper *self)
{
    int32_t offers = self->team->offers;

    for (int32_t k = 0; k < offers; k++) {
        int32_t place = (self->turn + k) % offers;

        if (assist(self, place)) {
            self->turn = (place + 1) % offers;
            return 1;
        }
    }
    return 0;
}

static int has_offer(const helper *self)
{
    for (int32_t place = 0; place < self->team->offers; place++) {
        unsigned phase = atomic_load(&self->team->offer[place].phase);

        if (phase % 2 != 0 && phase != self->seen[place])
            return 1;
    }
    return 0;
}

/* Who offers work sees that a helper sleeps, or the helper sees that there is an offer. */
static void sleep_until_called(helper *self)
{
    ev_team *team = self->team;
    uint64_t calls;

    pthread_mutex_lock(&team->lock);
    calls = team->calls;
    atomic_fetch_add(&team->asleep, 1);
    while (calls == team->calls && !atomic_load(&team->is_closing) && !has_offer(self))
        pthread_cond_wait(&team->begin, &team->lock);
    atomic_fetch_sub(&team->asleep, 1);
    pthread_mutex_unlock(&team->lock);
}

static void *help(void *argument)
{
    helper *self = argument;
    int64_t since = now();

    while (!atomic_load(&self->team->is_closing)) {
        if (assist_next(self)) {
            since = now();
        } else if (now() - since < self->team->patience) {
            pause_briefly();
        } else {
            sleep_until_called(self);
            since = now();
        }
    }
    return NULL;
}

/* -- offering work ------------------------------------------------------------------------------ */

static void divide(ev_offer *offer, int64_t parts)
{
    int32_t shares = offer->team->size;

    offer->shares = parts < shares ? (int32_t)parts : shares;
    for (int32_t k = 0; k < offer->shares; k++) {
        atomic_store(&offer->share[k].next, parts * k / offer->shares);
        offer->share[k].end = parts * (k + 1) / offer->shares;
    }
}

static void call_helpers(ev_team *team)
{
    int64_t time;

    if (atomic_load(&team->asleep) == 0)
        return;
    time = now();
    if (time - atomic_load(&team->called) < WAKE_INTERVAL)
        return;
    atomic_store(&team->called, time);
    pthread_mutex_lock(&team->lock);
    team->calls++;
    pthread_cond_broadcast(&team->begin);
    pthread_mutex_unlock(&team->lock);
}

static void rest(ev_team *team)
{
    int64_t time = now(), length = atomic_load(&team->rest);
    int is_soon = time - atomic_load(&team->rests_until) < 4 * length;

    length = is_soon && length < LONGEST_REST / 2 ? 2 * length : is_soon ? LONGEST_REST : SHORTEST_REST;
    atomic_store(&team->rest, length);
    atomic_store(&team->rests_until, time + length);
}

static void sleep_until_left(ev_offer *offer)
{
    ev_team *team = offer->team;

    pthread_mutex_lock(&team->lock);
    atomic_store(&offer->is_awaited, 1);
    while (atomic_load(&offer->inside) > 0)
        pthread_cond_wait(&team->done, &team->lock);
    atomic_store(&offer->is_awaited, 0);
    pthread_mutex_unlock(&team->lock);
}

/* Until nobody is inside; `took`: ns of all parts that the run did itself, as no part takes. */
static void await_helpers(ev_offer *offer, int64_t took)
{
    ev_team *team = offer->team;
    int64_t since;

    if (atomic_load(&offer->inside) == 0)
        return;
    since = now();
    while (atomic_load(&offer->inside) > 0 && now() - since < team->patience)
        pause_briefly();
    sleep_until_left(offer);
    if (now() - since > LATE + took)
        rest(team);
}

int64_t ev_offer_do(ev_offer *offer, ev_part_fn *part, const void *job, int64_t parts,
                    ev_state *own)
{
    int64_t start = now(), mine, done = 0, took;

    offer->part = part;
    offer->job = job;
    divide(offer, parts);
    atomic_fetch_add(&offer->phase, 1);
    for (; (mine = next_part(offer, 0)) >= 0; done++) {
        if (parts > 1)
            call_helpers(offer->team);
        part(job, own, mine);
    }
    took = now() - start;
    atomic_fetch_add(&offer->phase, 1);
    await_helpers(offer, took);
    return took / (done > 0 ? done : 1);
}

/* -- strips ------------------------------------------------------------------------------------- */

typedef struct {
    const ev_state *state; /* of the run */
    const ev_node *node;
    int32_t index;
} strips;

/* The run's values, but with sums of the thread's own. */
static void run_strip(const void *job, ev_state *own, int64_t part)
{
    const strips *of = job;
    ev_state view = *of->state;

    view.tile = own->tile;
    view.part = own->part;
    view.wide = own->wide;
    ev_run_strips(&view, of->node, of->index, (int32_t)part, (int32_t)part + 1);
}

/* Few or small ones do not pay, nor any while processors are short. */
static int is_shared(const ev_team *team, const ev_node *node, int64_t cost, int64_t time)
{
    return node->strips >= team->size && cost >= SMALL && time >= atomic_load(&team->rests_until);
}

void ev_offer_strips(ev_offer *offer, ev_state *own, const ev_node *node, int32_t index)
{
    int64_t start = now();

    if (is_shared(offer->team, node, own->cost[index], start)) {
        own->cost[index] = node->strips * ev_offer_do(offer, run_strip,
                                                      &(strips){own, node, index}, node->strips,
                                                      own);
        return;
    }
    ev_run_strips(own, node, index, 0, node->strips);
    own->cost[index] = now() - start;
}

/* -- life --------------------------------------------------------------------------------------- */

static int alloc_offers(ev_team *team)
{
    size_t offers = (size_t)team->offers, size = (size_t)team->size;

    team->offer = aligned_alloc(CACHE_LINE, offers * sizeof(*team->offer));
    team->share = aligned_alloc(CACHE_LINE, offers * size * sizeof(*team->share));
    team->helper = calloc(size, sizeof(*team->helper));
    team->seen = calloc(size * offers, sizeof(*team->seen));
    if (team->offer == NULL || team->share == NULL || team->helper == NULL || team->seen == NULL)
        return EV_ERR_NO_MEMORY;
    for (size_t k = 0; k < offers; k++)
        team->offer[k] = (ev_offer){.share = team->share + k * size, .team = team};
    return EV_OK;
}

static int start_helper(ev_team *team, ev_state *state)
{
    helper *self = &team->helper[team->started];

    *self = (helper){.team = team, .state = state, .member = team->started + 1};
    self->seen = team->seen + (size_t)team->started * (size_t)team->offers;
    if (pthread_create(&self->thread, NULL, help, self) != 0)
        return EV_ERR_NO_THREAD;
    team->started++;
    return EV_OK;
}

int ev_team_new(ev_state *const *state, int32_t size, int32_t offers, int64_t patience,
                ev_team **out)
{
    int status = EV_ERR_NO_MEMORY;
    ev_team *team = calloc(1, sizeof(*team));

    if (team == NULL)
        goto out;
    pthread_mutex_init(&team->lock, NULL);
    pthread_cond_init(&team->begin, NULL);
    pthread_cond_init(&team->done, NULL);
    team->size = size;
    team->offers = offers;
    team->patience = patience;
    status = alloc_offers(team);
    while (status == EV_OK && team->started < size - 1)
        status = start_helper(team, state[team->started]);
out:
    if (status != EV_OK) {
        ev_team_free(team);
        team = NULL;
    }
    *out = team;
    return status;
}

static void stop_helpers(ev_team *team)
{
    pthread_mutex_lock(&team->lock);
    atomic_store(&team->is_closing, 1);
    pthread_cond_broadcast(&team->begin);
    pthread_mutex_unlock(&team->lock);
    for (int32_t i = 0; i < team->started; i++)
        pthread_join(team->helper[i].thread, NULL);
}

void ev_team_abandon(ev_team *team)
{
    if (team == NULL)
        return;
    free(team->offer);
    free(team->share);
    free(team->helper);
    free(team->seen);
    free(team);
}

void ev_team_free(ev_team *team)
{
    if (team == NULL)
        return;
    stop_helpers(team);
    pthread_mutex_destroy(&team->lock);
    pthread_cond_destroy(&team->begin);
    pthread_cond_destroy(&team->done);
    ev_team_abandon(team);
}

ev_offer *ev_team_offer(ev_team *team, int32_t place)
{
    return &team->offer[place];
}

void ev_team_begin(ev_team *team)
{
    atomic_fetch_add(&team->runs, 1);
}

void ev_team_end(ev_team *team)
{
    atomic_fetch_sub(&team->runs, 1);
}
