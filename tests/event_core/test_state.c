/* What a worker allocates: values that are needed at the same time lie apart, inside what there is;
 * padded maps are as large as their windows ask for. */
#include <string.h>

#include "builder.h"
#include "state.h"

/* -- places ------------------------------------------------------------------------------------- */

/* Whether node `reader`, when it runs, reads what `node` emits. A neuron of its accumulator's shape
 * fires while that one runs. */
static int reads(const ev_net *net, int32_t reader, int32_t node)
{
    const ev_node *at = &net->node[reader];

    if (at->kind == EV_ATTENTION)
        return at->source == node || at->k == node || at->v == node;
    if (at->kind == EV_GATE || at->kind == EV_SUM)
        return at->source == node || at->b == node;
    if (at->kind == EV_NEURON || at->kind == EV_POOL || at->kind == EV_READOUT)
        return at->source == node;
    if (at->kind != EV_ACCUMULATOR)
        return 0;
    if (at->patches_h > 0 && node == 0)
        return 1;
    for (int32_t k = at->first; k < at->first + at->count; k++)
        if (net->projection[k].source == node)
            return 1;
    return 0;
}

static int32_t written_at(const ev_net *net, int32_t node)
{
    const ev_node *at = &net->node[node];

    return at->kind == EV_NEURON && at->is_fused ? at->source : node;
}

/* Whether the values of `node` are needed in step `step`: results are taken when it is its turn. */
static int is_needed(const ev_net *net, int32_t node, int32_t step)
{
    if (step < written_at(net, node))
        return 0;
    for (int32_t reader = step; reader < net->nodes; reader++)
        if (reader == node || reads(net, reader, node))
            return 1;
    return 0;
}

static size_t size_of(const ev_node *node)
{
    if (node->kind == EV_READOUT || (node->kind == EV_ACCUMULATOR && !node->is_kept))
        return 0;
    return (size_t)ev_elements(node) * ev_bytes_of(node->format);
}

static int lie_apart(const ev_state *state, int32_t a, int32_t b)
{
    const ev_node *node = state->net->node;

    return state->place[a] + size_of(&node[a]) <= state->place[b] ||
           state->place[b] + size_of(&node[b]) <= state->place[a];
}

static void check_places(const ev_state *state)
{
    const ev_net *net = state->net;

    for (int32_t i = 0; i < net->nodes; i++) {
        memset(ev_values(state, i), 1, size_of(&net->node[i])); /* the sanitizer looks */
        CHECK(size_of(&net->node[i]) == 0 || state->place[i] % EV_ALIGN == 0);
        for (int32_t j = 0; j < i; j++)
            for (int32_t step = 0; step < net->nodes; step++)
                if (size_of(&net->node[i]) > 0 && size_of(&net->node[j]) > 0 &&
                    is_needed(net, i, step) && is_needed(net, j, step))
                    CHECK(lie_apart(state, i, j));
    }
}

/* The bytes told beforehand hold all values. */
static void check_bytes(const ev_state *state)
{
    int64_t bytes;
    size_t most = 0;

    CHECK(ev_state_bytes(state->net, &bytes) == EV_OK);
    for (int32_t i = 0; i < state->net->nodes; i++)
        if (most < state->place[i] + size_of(&state->net->node[i]))
            most = state->place[i] + size_of(&state->net->node[i]);
    CHECK(bytes >= (int64_t)most && bytes < INT64_C(1) << 30);
}

/* Every kind of block is there, so no two allocations are kept under one. */
static void check_blocks(const ev_state *state)
{
    for (int i = 0; i < EV_BLOCKS; i++)
        CHECK(state->block[i] != NULL);
}

static void test_places(void)
{
    rng r = {5};
    int checked = 0;

    for (int i = 0; i < 400; i++) {
        network net;
        ev_state *state;
        ev_net *loaded;
        ev_fault fault = {-1, NULL};
        size_t size;
        void *bytes;

        network_draw(&net, &r);
        bytes = network_bytes(&net, &size);
        if (ev_net_load(bytes, size, &loaded, &fault) == EV_OK) {
            CHECK(ev_state_new(loaded, ev_kernels_of(NULL), EV_AUTO, &state) == EV_OK);
            check_places(state);
            check_bytes(state);
            check_blocks(state);
            ev_state_free(state);
            ev_net_free(loaded);
            checked++;
        }
        free(bytes);
    }
    CHECK(checked > 200);
}

/* Places are used again: a chain takes no more than its two largest neighbours and the source. */
static void test_reuse(void)
{
    network net;
    rng r = {1};
    ev_net *loaded;
    ev_state *state;
    ev_fault fault = {-1, NULL};
    size_t size, most = 0;
    shape of = {16, 4, 4};
    void *bytes;

    network_start(&net, 1, of, 4);
    for (int32_t layer = 0; layer < 6; layer++) {
        add_accumulator(&net, &r, of, 9, 0);
        add_projection(&net, &r, 2 * layer, EV_CONV, (window){0});
        add_neuron(&net, &r, of, 2 * layer + 1, 4, 9);
    }
    bytes = network_bytes(&net, &size);
    CHECK(ev_net_load(bytes, size, &loaded, &fault) == EV_OK);
    CHECK(ev_state_new(loaded, ev_kernels_of(NULL), EV_AUTO, &state) == EV_OK);
    for (int32_t i = 0; i < loaded->nodes; i++)
        if (size_of(&loaded->node[i]) > 0 && most < state->place[i] + 256)
            most = state->place[i] + 256;
    CHECK(most < 3 * (256 + EV_SLACK + EV_ALIGN));
    ev_state_free(state);
    ev_net_free(loaded);
    free(bytes);
}

/* -- maps --------------------------------------------------------------------------------------- */

typedef struct {
    shape from, to;
    int64_t payload;
    ev_projection_kind kind;
    window w;
    size_t bytes; /* of the map, without slack; 0: the source's values are the map */
} map_case;

static const map_case maps[] = {
    {{4, 6, 6}, {8, 6, 6}, 4, EV_CONV, {0}, 0},
    {{3, 6, 6}, {8, 6, 6}, 4, EV_CONV, {0}, 6 * 6 * 4},
    {{4, 6, 6}, {8, 6, 6}, 4, EV_CONV, {.kernel_h = 3, .kernel_w = 3, .pad_top = 1, .pad_left = 1},
     8 * 8 * 4},
    {{4, 6, 6}, {8, 4, 4}, 4, EV_CONV, {.kernel_h = 3, .kernel_w = 3}, 0},
    {{4, 6, 6}, {8, 4, 4}, 256, EV_CONV, {.kernel_h = 3, .kernel_w = 3}, 0},
    {{4, 6, 6}, {8, 3, 2}, 4, EV_CONV, {.stride_h = 2, .stride_w = 3}, 5 * 4 * 4},
    {{4, 6, 6}, {8, 6, 6}, 4, EV_CONV, {.bits = 16}, 6 * 6 * 4 * 2},
    {{4, 6, 6}, {8, 6, 6}, 4, EV_CONV, {.groups = 2}, 6 * 6 * 4 * 4},
    {{20, 6, 6}, {20, 6, 6}, 4, EV_CONV, {.groups = 20}, 6 * 6 * 32},
    {{4, 6, 6}, {9, 1, 1}, 4, EV_LINEAR, {0}, 0},
    {{3, 3, 3}, {9, 1, 1}, 4, EV_LINEAR, {0}, 28},
    {{4, 6, 6}, {4, 6, 6}, 4, EV_IDENTITY, {0}, 0},
};

static void test_maps(void)
{
    for (size_t i = 0; i < sizeof(maps) / sizeof(*maps); i++) {
        const map_case *c = &maps[i];
        rng r = {2};
        network net;
        ev_net *loaded;
        ev_fault fault = {-1, NULL};
        size_t size, bytes;
        void *data;

        network_start(&net, 1, c->from, c->payload);
        add_accumulator(&net, &r, c->to, 9, 0);
        add_projection(&net, &r, 0, c->kind, c->w);
        data = network_bytes(&net, &size);
        CHECK(ev_net_load(data, size, &loaded, &fault) == EV_OK);
        bytes = ev_map_bytes(loaded, &loaded->projection[0]);
        if (c->bytes == 0)
            CHECK(bytes == 0);
        else
            CHECK(bytes >= c->bytes + EV_SLACK && bytes < c->bytes + EV_SLACK + EV_ALIGN);
        ev_net_free(loaded);
        free(data);
    }
}

int main(void)
{
    test_places();
    test_reuse();
    test_maps();
    return 0;
}
