/* A sample through the network: no clock; a node emits when all that it reads has been emitted, a
 * burst of n ticks as one value n. */
#include <string.h>

#include "parts.h"
#include "state.h"

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
    const ev_node *node = &state->net->node[i];
    size_t offset = (size_t)at * (size_t)ev_elements(node);

    if (results->node[i] == NULL)
        return;
    if (node->kind == EV_NEURON)
        put_bytes(ev_values(state, i), node, (uint8_t *)results->node[i] + offset);
    else if (node->kind == EV_READOUT)
        put_integers(ev_values(state, node->source), &state->net->node[node->source],
                     (int64_t *)results->node[i] + offset);
    else if (node->kind == EV_ACCUMULATOR && node->is_kept)
        put_integers(ev_values(state, i), node, (int64_t *)results->node[i] + offset);
}

/* -- nodes -------------------------------------------------------------------------------------- */

static void take_sample(ev_state *state, const ev_node *node, const void *sample)
{
    size_t pixels = (size_t)node->height * (size_t)node->width, channels = (size_t)node->channels;
    void *values = ev_values(state, 0);

    for (size_t c = 0; c < channels; c++)
        for (size_t p = 0; p < pixels; p++) {
            size_t from = c * pixels + p, to = p * channels + c;

            if (node->format == EV_U8)
                ((uint8_t *)values)[to] = ((const uint8_t *)sample)[from];
            else if (node->format == EV_U16)
                ((uint16_t *)values)[to] = (uint16_t)((const int32_t *)sample)[from];
            else
                ((int32_t *)values)[to] = ((const int32_t *)sample)[from];
        }
}

static void run_node(ev_state *state, int32_t i, const void *sample)
{
    const ev_node *node = &state->net->node[i];

    state->nonzero[i] = -1;
    switch (node->kind) {
    case EV_SOURCE:
        take_sample(state, node, sample);
        break;
    case EV_ACCUMULATOR:
        ev_run_accumulator(state, node, i);
        break;
    case EV_NEURON:
        if (!node->is_fused)
            ev_fire_reshaped(state, i);
        break;
    case EV_POOL:
        ev_run_pool(state, i);
        break;
    case EV_ATTENTION:
        ev_run_attention(state, i);
        break;
    case EV_READOUT:
        break;
    }
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
        const uint8_t *now = (const uint8_t *)sample + (size_t)t * step;

        for (int32_t i = 0; i < net->nodes; i++) {
            run_node(state, i, now);
            put_result(state, i, t * results->samples + index, results);
        }
    }
}
