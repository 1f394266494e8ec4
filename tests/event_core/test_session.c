/* Results depend neither on the number of threads, nor on what ran before or runs at the same time; a
 * forked process is told that the session is not its own. */
#include "session.h"

#include <pthread.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "builder.h"

enum { MOST_SAMPLES = 23, MOST_NODES = 16, CALLERS = 4, KINDS = 6, PATIENCE = 20000 };

/* A network with memory, and samples for it. */
typedef struct {
    ev_net *net;
    uint8_t *samples; /* [timesteps][MOST_SAMPLES][source] */
} scene;

/* What comes out, in one block for each node. */
typedef struct {
    ev_results results;
    size_t bytes[MOST_NODES];
} outcome;

static ev_net *loaded(void)
{
    network net;
    rng r = {11};
    ev_net *result;
    ev_fault fault = {-1, NULL};
    size_t size;
    void *bytes;
    shape of = {20, 5, 5};

    network_start(&net, 3, (shape){3, 5, 5}, 15);
    add_accumulator(&net, &r, of, 50, 0);
    add_projection(&net, &r, 0, EV_CONV, (window){.kernel_h = 3, .kernel_w = 3});
    add_carry(&net, &r, add_neuron(&net, &r, of, 1, 4, 300), EV_CARRY_SOFT, 300);
    add_accumulator(&net, &r, (shape){40, 1, 1}, 50, 0);
    add_projection(&net, &r, 2, EV_LINEAR, (window){0});
    add_neuron(&net, &r, (shape){40, 1, 1}, 3, 4, 500);
    add_node(&net, EV_READOUT, (shape){40, 1, 1}, 3);
    bytes = network_bytes(&net, &size);
    CHECK(ev_net_load(bytes, size, &result, &fault) == EV_OK);
    free(bytes);
    return result;
}

static scene any_scene(void)
{
    scene s = {.net = loaded()};
    rng r = {4};
    size_t values = (size_t)s.net->timesteps * MOST_SAMPLES * (size_t)ev_elements(&s.net->node[0]);

    s.samples = zeros(values, 1);
    for (size_t i = 0; i < values; i++)
        s.samples[i] = (uint8_t)draw(&r, 16);
    return s;
}

static outcome room_for(const scene *s, int64_t samples)
{
    outcome out = {.results = {zeros(MOST_NODES, sizeof(void *)), samples}};

    for (int32_t i = 0; i < s->net->nodes; i++) {
        const ev_node *node = &s->net->node[i];
        size_t values = (size_t)(s->net->timesteps * samples * ev_elements(node));

        if (node->kind == EV_NEURON || node->kind == EV_READOUT)
            out.bytes[i] = values * (node->kind == EV_NEURON ? 1 : 8);
        out.results.node[i] = out.bytes[i] > 0 ? zeros(out.bytes[i], 1) : NULL;
    }
    return out;
}

static outcome run(const scene *s, ev_session *session, int64_t samples, int is_repeated)
{
    outcome out = room_for(s, samples);

    CHECK(ev_session_run(session, s->samples, is_repeated, &out.results) == EV_OK);
    return out;
}

static void forget(outcome *out)
{
    for (size_t i = 0; i < MOST_NODES; i++)
        free(out->results.node[i]);
    free(out->results.node);
}

static void check_equal(const outcome *a, const outcome *b)
{
    for (size_t i = 0; i < MOST_NODES; i++)
        CHECK(a->bytes[i] == b->bytes[i] &&
              (a->bytes[i] == 0 ||
               memcmp(a->results.node[i], b->results.node[i], a->bytes[i]) == 0));
}

static ev_session *started_for(const scene *s, ev_sizes sizes)
{
    ev_session *session;

    CHECK(ev_session_new(s->net, ev_kernels_of(NULL), EV_AUTO, sizes, &session) == EV_OK);
    return session;
}

static ev_session *started(const scene *s, int32_t threads)
{
    return started_for(s, (ev_sizes){threads, 1, PATIENCE});
}

/* Many runs of any number of samples: as the first run of a session with one thread. */
static void test_threads(const scene *s, int32_t threads)
{
    ev_session *session = started(s, threads);

    for (int k = 0; k < 60; k++) {
        int64_t samples = k * 7 % MOST_SAMPLES; /* 0 as well */
        ev_session *single = started(s, 1);
        outcome want = run(s, single, samples, k % 2), got = run(s, session, samples, k % 2);

        check_equal(&want, &got);
        forget(&want);
        forget(&got);
        ev_session_free(single);
    }
    ev_session_free(session);
}

/* A repeated sample gives what the same sample in every timestep gives. */
static void test_repeated(const scene *s)
{
    size_t bytes = MOST_SAMPLES * (size_t)ev_elements(&s->net->node[0]);
    scene steady = {s->net, zeros((size_t)s->net->timesteps * bytes, 1)};
    ev_session *session = started(s, 2);
    outcome want, got;

    for (int32_t t = 0; t < s->net->timesteps; t++)
        memcpy(steady.samples + (size_t)t * bytes, s->samples, bytes);
    want = run(s, session, MOST_SAMPLES, 1);
    got = run(&steady, session, MOST_SAMPLES, 0);
    check_equal(&want, &got);
    forget(&want);
    forget(&got);
    ev_session_free(session);
    free(steady.samples);
}

static void test_work(const scene *s)
{
    ev_session *one = started(s, 1), *three = started(s, 3);
    ev_work a[2], b[2];

    for (int i = 0; i < 3; i++) {
        outcome first = run(s, one, 9, 0), second = run(s, three, 9, 0);

        forget(&first);
        forget(&second);
    }
    ev_session_work(one, a);
    ev_session_work(three, b);
    CHECK(memcmp(a, b, sizeof(a)) == 0);
    CHECK(a[0].values == 3 * 9 * s->net->timesteps * ev_elements(&s->net->node[0]));
    CHECK(0 < a[0].events && a[0].events < a[0].values);
    ev_session_free(one);
    ev_session_free(three);
}

/* One sample of any network, whose rows four workers share out. */
static void test_rows(rng *r)
{
    static network net;
    ev_fault fault = {-1, NULL};
    ev_session *one, *four;
    size_t size;
    scene s = {0};
    outcome want, got;
    void *bytes;

    do {
        network_draw(&net, r);
        bytes = network_bytes(&net, &size);
        if (net.node[0][EV_NODE_PAYLOAD] > 255 || net.nodes > MOST_NODES ||
            ev_net_load(bytes, size, &s.net, &fault) != EV_OK)
            s.net = NULL;
        free(bytes);
    } while (s.net == NULL);
    size = (size_t)ev_elements(&s.net->node[0]);
    s.samples = zeros(size, 1);
    for (size_t i = 0; i < size; i++)
        s.samples[i] = (uint8_t)draw(r, (uint32_t)s.net->node[0].payload + 1);
    one = started(&s, 1);
    four = started(&s, 4);
    want = run(&s, one, 1, 1);
    got = run(&s, four, 1, 1);
    check_equal(&want, &got);
    forget(&want);
    forget(&got);
    ev_session_free(one);
    ev_session_free(four);
    ev_net_free(s.net);
    free(s.samples);
}

/* -- several runs at a time --------------------------------------------------------------------- */

typedef struct {
    const scene *s;
    ev_session *session;
    const outcome *want; /* [KINDS], of as many kinds of run */
    int rounds;
    uint64_t seed;
} caller;

/* Fewer and more samples than there are threads, so that strips are shared out, and samples. */
static int64_t samples_of(int kind)
{
    static const int64_t samples[KINDS] = {1, 2, 3, 7, 0, MOST_SAMPLES};

    return samples[kind];
}

static void *call(void *argument)
{
    const caller *self = argument;
    rng r = {self->seed};

    for (int i = 0; i < self->rounds; i++) {
        int kind = (int)draw(&r, KINDS);
        outcome got = run(self->s, self->session, samples_of(kind), kind % 2);

        check_equal(&self->want[kind], &got);
        forget(&got);
    }
    return NULL;
}

static int64_t samples_done(const scene *s, ev_session *session)
{
    ev_work work[2];

    ev_session_work(session, work);
    CHECK(work[0].runs % s->net->timesteps == 0);
    return work[0].runs / s->net->timesteps;
}

/* As many callers as may be, for more or fewer rooms than there are callers. */
static void test_callers(const scene *s, ev_sizes sizes, int rounds)
{
    ev_session *session = started_for(s, sizes), *single = started(s, 1);
    outcome want[KINDS];
    caller callers[CALLERS];
    pthread_t thread[CALLERS];
    int64_t before = 0;

    for (int kind = 0; kind < KINDS; kind++)
        want[kind] = run(s, single, samples_of(kind), kind % 2);
    for (int i = 0; i < CALLERS; i++) {
        callers[i] = (caller){s, session, want, rounds, (uint64_t)i + 1};
        CHECK(pthread_create(&thread[i], NULL, call, &callers[i]) == 0);
    }
    for (int i = 0; i < 100; i++) { /* what is done so far may be asked for at any time */
        int64_t done = samples_done(s, session);

        CHECK(done >= before);
        before = done;
    }
    for (int i = 0; i < CALLERS; i++)
        pthread_join(thread[i], NULL);
    for (int kind = 0; kind < KINDS; kind++)
        forget(&want[kind]);
    ev_session_free(session);
    ev_session_free(single);
}

/* -- forks -------------------------------------------------------------------------------------- */

/* In the child: the session is refused and can be freed, a new one runs. */
static void use_in_child(const scene *s, ev_session *session, const outcome *want)
{
    outcome got = room_for(s, MOST_SAMPLES);
    ev_session *own;

    alarm(20); /* it must not wait for threads that there are not */
    CHECK(ev_session_run(session, s->samples, 0, &got.results) == EV_ERR_FORKED);
    CHECK(strstr(ev_strerror(EV_ERR_FORKED), "EV_ERR_FORKED") != NULL);
    CHECK(samples_done(s, session) == MOST_SAMPLES);
    ev_session_free(session);
    forget(&got);
    own = started(s, 2);
    got = run(s, own, MOST_SAMPLES, 0);
    check_equal(want, &got);
    _exit(0);
}

static void test_fork(const scene *s, int32_t threads)
{
    ev_session *session = started(s, threads);
    outcome want = run(s, session, MOST_SAMPLES, 0), got;
    int status;
    pid_t child = fork();

    CHECK(child >= 0);
    if (child == 0)
        use_in_child(s, session, &want);
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    got = run(s, session, MOST_SAMPLES, 0);
    check_equal(&want, &got);
    forget(&want);
    forget(&got);
    ev_session_free(session);
}

int main(void)
{
    static const int32_t threads[] = {1, 2, 3, 7};
    scene s = any_scene();
    rng r = {8};

    for (int i = 0; i < 100; i++)
        test_rows(&r);
    for (size_t i = 0; i < sizeof(threads) / sizeof(*threads); i++)
        test_threads(&s, threads[i]);
    for (int32_t rooms = 1; rooms <= CALLERS + 1; rooms += 2)
        for (int32_t n = 1; n <= 4; n *= 2)
            test_callers(&s, (ev_sizes){n, rooms, rooms == 1 ? 0 : PATIENCE}, 60);
    test_fork(&s, 1);
    test_fork(&s, 3);
    test_repeated(&s);
    test_work(&s);
    free(s.samples);
    ev_net_free(s.net);
    return 0;
}
