#include "agree.h"

#include <string.h>

#include "kernels/sets.h"
#include "naive.h"
#include "state.h"
#include "testing.h"

enum { MOST_VALUES = 1 << 16, MOST_WORK = 1 << 19, SAMPLES = 2 };

typedef struct {
    const int64_t *bytes;
    const ev_net *net;
    int32_t *samples;           /* [timesteps][samples][source] */
    int64_t **expected[SAMPLES]; /* -> [nodes] -> [timesteps][values] */
} scene;

static size_t nodes_of(const scene *s)
{
    return (size_t)s->net->nodes;
}

static size_t values_of(const scene *s, size_t node)
{
    return (size_t)ev_elements(&s->net->node[node]);
}

/* -- size --------------------------------------------------------------------------------------- */

/* Multiply-adds of one timestep of the naive loop, at most. */
static int64_t work_of(const ev_net *net, const ev_node *node)
{
    int64_t work = ev_elements(node);

    if (node->kind == EV_POOL)
        work *= (int64_t)node->kernel_h * node->kernel_w;
    if (node->kind == EV_NEURON)
        work *= node->ticks;
    if (node->kind == EV_ATTENTION)
        work *= ev_elements(&net->node[node->k]) / node->heads;
    for (int32_t k = node->first; k < node->first + node->count; k++) {
        const ev_projection *p = &net->projection[k];

        if (p->kind == EV_IDENTITY)
            work += ev_elements(node);
        else
            work += ev_elements(node) * p->kernel_h * p->kernel_w * (p->channels / p->groups);
        if (work > MOST_WORK)
            break;
    }
    return work;
}

static int is_small(const ev_net *net)
{
    int64_t values = 0, work = 0;

    for (int32_t i = 0; i < net->nodes; i++) {
        values += ev_elements(&net->node[i]) * net->timesteps;
        if (values > MOST_VALUES)
            return 0;
        work += work_of(net, &net->node[i]);
        if (work > MOST_WORK / net->timesteps)
            return 0;
    }
    for (int32_t k = 0; k < net->projections; k++) {
        const ev_projection *p = &net->projection[k];

        if (p->kind != EV_IDENTITY)
            values += (int64_t)p->map_height * p->map_width * p->map_channels;
        if (values > MOST_VALUES)
            return 0;
    }
    return 1;
}

/* -- samples and what they mean ----------------------------------------------------------------- */

/* A density of 0, 1/8, 1/2 or 1 for each sample; a fifth of the values is the largest. */
static void draw_samples(scene *s, rng *r)
{
    static const uint32_t eighths[] = {0, 1, 4, 8};
    size_t values = values_of(s, 0), steps = (size_t)s->net->timesteps;
    uint32_t payload = (uint32_t)s->net->node[0].payload;

    s->samples = zeros(steps * SAMPLES * values, sizeof(*s->samples));
    for (size_t i = 0; i < SAMPLES; i++) {
        uint32_t density = eighths[draw(r, 4)];

        for (size_t t = 0; t < steps; t++)
            for (size_t k = 0; k < values; k++)
                if (draw(r, 8) < density)
                    s->samples[(t * SAMPLES + i) * values + k] =
                        (int32_t)(draw(r, 5) ? draw(r, payload) + 1 : payload);
    }
}

static int32_t *sample_of(const scene *s, size_t index)
{
    size_t values = values_of(s, 0), steps = (size_t)s->net->timesteps;
    int32_t *sample = zeros(steps * values, sizeof(*sample));

    for (size_t t = 0; t < steps; t++)
        memcpy(sample + t * values, s->samples + (t * SAMPLES + index) * values,
               values * sizeof(*sample));
    return sample;
}

static void expect(scene *s)
{
    for (size_t i = 0; i < SAMPLES; i++) {
        int32_t *sample = sample_of(s, i);

        s->expected[i] = zeros(nodes_of(s), sizeof(*s->expected[i]));
        for (size_t n = 0; n < nodes_of(s); n++)
            s->expected[i][n] =
                zeros((size_t)s->net->timesteps * values_of(s, n), sizeof(int64_t));
        naive_run(s->bytes, sample, s->expected[i]);
        free(sample);
    }
}

static void forget(scene *s)
{
    for (size_t i = 0; i < SAMPLES; i++) {
        for (size_t n = 0; n < nodes_of(s); n++)
            free(s->expected[i][n]);
        free(s->expected[i]);
    }
    free(s->samples);
}

/* -- the engine --------------------------------------------------------------------------------- */

/* Bytes of one result of the node; 0: it has none. */
static size_t bytes_of(const ev_node *node)
{
    if (node->kind == EV_NEURON)
        return 1;
    return node->kind == EV_READOUT || (node->kind == EV_ACCUMULATOR && node->is_kept) ? 8 : 0;
}

static int compare(const scene *s, const ev_results *results, const char *how)
{
    for (size_t n = 0; n < nodes_of(s); n++) {
        size_t values = values_of(s, n), bytes = bytes_of(&s->net->node[n]);
        size_t count = (size_t)s->net->timesteps * SAMPLES * values;

        for (size_t k = 0; bytes > 0 && k < count; k++) {
            size_t index = k / values % SAMPLES, t = k / values / SAMPLES;
            int64_t want = s->expected[index][n][t * values + k % values];
            int64_t got = bytes == 1 ? ((const uint8_t *)results->node[n])[k]
                                     : ((const int64_t *)results->node[n])[k];

            if (got == want)
                continue;
            fprintf(stderr, "%s: node %zu, timestep %zu, sample %zu, value %zu: %lld, not %lld\n",
                    how, n, t, index, k % values, (long long)got, (long long)want);
            return 0;
        }
    }
    return 1;
}

static void *samples_of(const scene *s)
{
    size_t count = (size_t)s->net->timesteps * SAMPLES * values_of(s, 0);
    uint8_t *bytes;

    if (s->net->node[0].format != EV_U8)
        return s->samples;
    bytes = zeros(count, 1);
    for (size_t i = 0; i < count; i++)
        bytes[i] = (uint8_t)s->samples[i];
    return bytes;
}

static int runs_equal(const scene *s, const ev_kernels *kernels, ev_policy policy)
{
    static const char *const names[] = {"auto", "events", "dense"};
    size_t size = s->net->node[0].format == EV_U8 ? 1 : 4, values = values_of(s, 0);
    void *samples = samples_of(s);
    ev_results results = {zeros(nodes_of(s), sizeof(*results.node)), SAMPLES};
    ev_state *state;
    char how[40];
    int equal;

    for (size_t n = 0; n < nodes_of(s); n++)
        results.node[n] = zeros((size_t)s->net->timesteps * SAMPLES * values_of(s, n),
                                bytes_of(&s->net->node[n]) == 1 ? 1 : 8);
    CHECK(ev_state_new(s->net, kernels, policy, &state) == EV_OK);
    for (size_t i = 0; i < SAMPLES; i++)
        ev_run_sample(state, (uint8_t *)samples + i * values * size, (int64_t)(SAMPLES * values),
                      (int64_t)i, &results);
    snprintf(how, sizeof(how), "%s %s", kernels->name, names[policy]);
    equal = compare(s, &results, how);
    ev_state_free(state);
    for (size_t n = 0; n < nodes_of(s); n++)
        free(results.node[n]);
    free(results.node);
    if (samples != s->samples)
        free(samples);
    return equal;
}

static int all_equal(const scene *s)
{
    static const char *const names[] = {EV_SETS(EV_NAME)};

    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const ev_kernels *kernels = ev_kernels_of(names[i]);

        for (int policy = EV_AUTO; kernels != NULL && policy <= EV_DENSE_ONLY; policy++)
            if (!runs_equal(s, kernels, (ev_policy)policy))
                return 0;
    }
    return 1;
}

agreement agree(const void *bytes, size_t size, uint64_t seed, ev_fault *fault)
{
    agreement result = AGREE_TOO_LARGE;
    rng r = {seed};
    ev_net *net;
    int status = ev_net_load(bytes, size, &net, fault);

    if (status != EV_OK) {
        CHECK(status == EV_ERR_BAD_NETWORK && net == NULL && fault->what != NULL);
        return AGREE_REFUSED;
    }
    if (is_small(net)) {
        scene s = {.bytes = bytes, .net = net};

        draw_samples(&s, &r);
        expect(&s);
        result = all_equal(&s) ? AGREE_EQUAL : AGREE_WRONG;
        forget(&s);
    }
    ev_net_free(net);
    return result;
}
