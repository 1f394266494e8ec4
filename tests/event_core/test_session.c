/* Results depend neither on the number of threads nor on what ran before. */
#include "session.h"

#include <string.h>

#include "builder.h"

enum { MOST_SAMPLES = 23, MOST_NODES = 16 };

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

static outcome run(const scene *s, ev_session *session, int64_t samples, int is_repeated)
{
    outcome out = {.results = {zeros(MOST_NODES, sizeof(void *)), samples}};

    for (int32_t i = 0; i < s->net->nodes; i++) {
        const ev_node *node = &s->net->node[i];
        size_t values = (size_t)(s->net->timesteps * samples * ev_elements(node));

        if (node->kind == EV_NEURON || node->kind == EV_READOUT)
            out.bytes[i] = values * (node->kind == EV_NEURON ? 1 : 8);
        out.results.node[i] = out.bytes[i] > 0 ? zeros(out.bytes[i], 1) : NULL;
    }
    ev_session_run(session, s->samples, is_repeated, &out.results);
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

static ev_session *started(const scene *s, int32_t threads)
{
    ev_session *session;

    CHECK(ev_session_new(s->net, ev_kernels_of(NULL), EV_AUTO, threads, &session) == EV_OK);
    return session;
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

int main(void)
{
    static const int32_t threads[] = {1, 2, 3, 7};
    scene s = any_scene();
    rng r = {8};

    for (int i = 0; i < 100; i++)
        test_rows(&r);
    for (size_t i = 0; i < sizeof(threads) / sizeof(*threads); i++)
        test_threads(&s, threads[i]);
    test_repeated(&s);
    test_work(&s);
    free(s.samples);
    ev_net_free(s.net);
    return 0;
}
