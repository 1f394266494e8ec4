/* A sample through the network: no clock; a node emits when all that it reads has been emitted, a
 * burst of n ticks as one value n. */
#include <string.h>

#include "nodes/node.h"
#include "parts.h"

/* -- what a node emits, brought to whoever wants it --------------------------------------------- */

/* Channels first, from rows of channels. */
static void put_bytes(const uint8_t *values, const ev_node *node, uint8_t *to)
{
    size_t pixels = (size_t)node->height * (size_t)node->width, channels = (size_t)node->channels;

    for (size_t c = 0; c < channels; c++)
        for (size_t p = 0; p < pixels; p++)
            *to++ = values[p * channels + c];
}

static void put_integers(const void *values, const ev_node *node, int64_t *to)
{
    size_t pixels = (size_t)node->height * (size_t)node->width, channels = (size_t)node->channels;

    for (size_t c = 0; c < channels; c++)
        for (size_t p = 0; p < pixels; p++)
            *to++ = ev_value(values, node->format, p * channels + c);
}

static void put_result(const ev_state *state, int32_t i, int64_t at, const ev_results *results)
{
    int32_t from = ev_result_of(state->net, i);
    const ev_node *node = from < 0 ? NULL : &state->net->node[from];
    size_t offset;

    if (results->node[i] == NULL || node == NULL)
        return;
    offset = (size_t)at * (size_t)ev_elements(node);
    if (ev_result_bytes(state->net, i) == 1)
        put_bytes(ev_values(state, from), node, (uint8_t *)results->node[i] + offset);
    else
        put_integers(ev_values(state, from), node, (int64_t *)results->node[i] + offset);
}

/* -- nodes -------------------------------------------------------------------------------------- */

static void run_node(ev_state *state, int32_t i)
{
    const ev_node_kind *kind = ev_kind_of(&state->net->node[i]);

    state->nonzero[i] = -1;
    if (kind->run != NULL)
        kind->run(state, i);
}

static void forget(ev_state *state)
{
    for (int32_t i = 0; i < state->net->nodes; i++)
        if (state->membrane[i] != NULL)
            memset(state->membrane[i], 0,
                   (size_t)ev_memory(&state->net->node[i]) * sizeof(int64_t));
}

void ev_run_sample(ev_state *state, const void *sample, int64_t stride, int64_t index,
                   const ev_results *results)
{
    const ev_net *net = state->net;
    size_t step = (size_t)stride * (net->node[0].format == EV_U8 ? 1 : 4);

    forget(state);
    for (int32_t t = 0; t < net->timesteps; t++) {
        state->sample = (const uint8_t *)sample + (size_t)t * step;
        for (int32_t i = 0; i < net->nodes; i++) {
            run_node(state, i);
            put_result(state, i, t * results->samples + index, results);
        }
    }
}
