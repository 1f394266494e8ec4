/* Work in parts: each is done once, whoever does it; all runs get their share of the helpers, and no
 * run waits for a helper that does something else. Who has nothing to do sleeps. */
#include "team.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "testing.h"

enum { MOST_PARTS = 512, LONG_JOB = 400, MOST_SIZE = 8 };

/* What the only helper did: how often it could turn to the other job, and how often it did not. */
typedef struct {
    const void *last; /* its job */
    int could_turn, chances, missed;
} diary;

/* A job that counts how often each part was done, and by whom; states tell threads apart. */
typedef struct job {
    atomic_int done[MOST_PARTS];
    atomic_int by_leader, by_helpers;
    ev_state *leader; /* of the run that offers it */
    const struct job *other;
    diary *of_helper; /* or NULL */
    int32_t us;       /* that a part takes */
    int is_held;      /* parts of helpers wait until they may go on */
    atomic_int *may_go_on, *held;
} job;

static void wait_us(int32_t us)
{
    struct timespec time = {us / 1000000, (long)us % 1000000 * 1000};

    nanosleep(&time, NULL);
}

static void begin_helping(job *of)
{
    atomic_fetch_add(&of->by_helpers, 1);
    if (of->is_held)
        atomic_fetch_add(of->held, 1);
    while (of->is_held && !atomic_load(of->may_go_on))
        wait_us(100);
    if (of->of_helper != NULL && of->of_helper->could_turn) {
        of->of_helper->chances++;
        of->of_helper->missed += of->of_helper->last == of;
    }
}

/* The other job is offered, and far from its end. */
static void end_helping(const job *of)
{
    int led = atomic_load(&of->other->by_leader), helped = atomic_load(&of->other->by_helpers);

    of->of_helper->last = of;
    of->of_helper->could_turn = led > 0 && led + helped < LONG_JOB / 2;
}

static void count_part(const void *argument, ev_state *own, int64_t part)
{
    job *of = (job *)(uintptr_t)argument;

    atomic_fetch_add(&of->done[part], 1);
    if (own != of->leader)
        begin_helping(of);
    else
        atomic_fetch_add(&of->by_leader, 1);
    if (of->us > 0)
        wait_us(of->us);
    if (own != of->leader && of->of_helper != NULL)
        end_helping(of);
}

static void check_done(const job *of, int64_t parts)
{
    for (int64_t i = 0; i < MOST_PARTS; i++)
        CHECK(atomic_load(&of->done[i]) == (i < parts));
}

/* A team whose states are only told apart. */
typedef struct {
    ev_state state[MOST_SIZE];
    ev_state *helper[MOST_SIZE];
    ev_team *team;
} crew;

static void gather(crew *c, int32_t size, int32_t offers, int64_t patience)
{
    memset(c, 0, sizeof(*c));
    for (int32_t i = 0; i < size - 1; i++)
        c->helper[i] = &c->state[i];
    CHECK(ev_team_new(c->helper, size, offers, patience, &c->team) == EV_OK);
}

/* -- every part once ---------------------------------------------------------------------------- */

static void test_parts(int32_t size, int64_t patience)
{
    ev_state leader = {0};
    crew c;

    gather(&c, size, 2, patience);
    ev_team_begin(c.team);
    for (int64_t parts = 0; parts < 200; parts++) {
        job j = {.leader = &leader};

        (void)ev_offer_do(ev_team_offer(c.team, (int32_t)(parts % 2)), count_part, &j, parts, &leader);
        check_done(&j, parts);
    }
    ev_team_end(c.team);
    ev_team_free(c.team);
}

/* -- fair shares -------------------------------------------------------------------------------- */

typedef struct {
    crew *c;
    job *of;
    int32_t place, parts;
} offering;

static void *offer(void *argument)
{
    const offering *self = argument;

    (void)ev_offer_do(ev_team_offer(self->c->team, self->place), count_part, self->of, self->parts,
                      self->of->leader);
    return NULL;
}

/* One helper, two runs that take long: after each part it turns to the other one. */
static diary helper_of_two(void)
{
    ev_state leader[2] = {{0}};
    diary of_helper = {0};
    job j[2] = {{.leader = &leader[0], .us = 300, .other = &j[1], .of_helper = &of_helper},
                {.leader = &leader[1], .us = 300, .other = &j[0], .of_helper = &of_helper}};
    offering run[2];
    pthread_t thread[2];
    crew c;

    gather(&c, 2, 2, 0);
    for (int i = 0; i < 2; i++)
        ev_team_begin(c.team);
    for (int i = 0; i < 2; i++) {
        run[i] = (offering){&c, &j[i], i, LONG_JOB};
        CHECK(pthread_create(&thread[i], NULL, offer, &run[i]) == 0);
    }
    for (int i = 0; i < 2; i++) {
        pthread_join(thread[i], NULL);
        check_done(&j[i], LONG_JOB);
    }
    for (int i = 0; i < 2; i++)
        ev_team_end(c.team);
    ev_team_free(c.team);
    return of_helper;
}

static void test_fairness(void)
{
    diary found = {0};

    while (found.chances < 20) /* on a busy machine one run may be over before the other begins */
        found = helper_of_two();
    printf("the helper turned to the other run %d times of %d\n", found.chances - found.missed,
           found.chances);
    CHECK(found.missed == 0);
}

/* The only helper is held up in another run: this one does without. */
static void test_absent_helper(void)
{
    ev_state leader[2] = {{0}};
    atomic_int may_go_on = 0, held = 0;
    job slow = {
        .leader = &leader[0], .us = 1000, .is_held = 1, .may_go_on = &may_go_on, .held = &held};
    job quick = {.leader = &leader[1]};
    offering run;
    pthread_t thread;
    crew c;

    gather(&c, 2, 2, 0);
    for (int i = 0; i < 2; i++)
        ev_team_begin(c.team);
    run = (offering){&c, &slow, 0, 300};
    CHECK(pthread_create(&thread, NULL, offer, &run) == 0);
    while (!atomic_load(&held))
        wait_us(100);
    (void)ev_offer_do(ev_team_offer(c.team, 1), count_part, &quick, 300, &leader[1]);
    check_done(&quick, 300);
    CHECK(atomic_load(&quick.by_helpers) == 0);
    atomic_store(&may_go_on, 1);
    pthread_join(thread, NULL);
    check_done(&slow, 300);
    for (int i = 0; i < 2; i++)
        ev_team_end(c.team);
    ev_team_free(c.team);
}

/* -- sleep -------------------------------------------------------------------------------------- */

static double processor_seconds(void)
{
    struct timespec time;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

/* Helpers that find no part left, and a run that waits for a part of a helper, take no processor. */
static void test_sleep(void)
{
    ev_state leader = {0};
    atomic_int may_go_on = 1, held = 0;
    job j = {.leader = &leader, .us = 200000, .may_go_on = &may_go_on, .held = &held};
    double before;
    crew c;

    gather(&c, 4, 1, 50000);
    ev_team_begin(c.team);
    before = processor_seconds();
    (void)ev_offer_do(ev_team_offer(c.team, 0), count_part, &j, 3, &leader);
    check_done(&j, 3);
    wait_us(100000);
    CHECK(processor_seconds() - before < 0.1);
    ev_team_end(c.team);
    ev_team_free(c.team);
}

int main(void)
{
    for (int32_t size = 1; size <= MOST_SIZE; size++) {
        test_parts(size, 0);
        test_parts(size, 20000);
    }
    test_fairness();
    test_absent_helper();
    test_sleep();
    return 0;
}
