/* Firing in 64 bits: neurons that carry their membrane over timesteps, wide potentials, and neurons
 * of another shape than their accumulator. The common case is the kernel `fire`. */
#include "parts.h"

static uint8_t count_of(const ev_node *node, int64_t potential, size_t channel)
{
    const int64_t *level = node->levels + channel;
    int32_t count = 0;

    while (count < node->ticks && potential >= *level) {
        count++;
        level += node->channels;
    }
    return (uint8_t)count;
}

/* The membrane after `count` spikes: soft reset takes a threshold each, hard reset everything. */
static int64_t left_of(const ev_node *node, int64_t membrane, size_t channel, int32_t count)
{
    if (node->carry == EV_CARRY_SOFT)
        return membrane - count * node->threshold[channel];
    return count > 0 ? 0 : membrane;
}

/* Division by a power of two that rounds down, also below zero. */
static int64_t floored(int64_t value, int32_t shift)
{
    return value >= 0 ? value >> shift : -((-value + (INT64_C(1) << shift) - 1) >> shift);
}

/* Spike count of one neuron; `at` is its place in the membranes. */
static uint8_t fire_one(const ev_state *state, int32_t i, size_t at, size_t channel,
                        int64_t potential)
{
    const ev_node *node = &state->net->node[i];
    int64_t membrane, *kept, *owed;
    uint8_t count;

    if (node->carry == EV_CARRY_NONE)
        return count_of(node, potential, channel);
    kept = state->membrane[i] + at;
    membrane = floored(*kept * node->decay, node->decay_shift) +
               potential * (INT64_C(1) << node->fraction);
    if (node->carry != EV_CARRY_DELAYED) {
        count = count_of(node, membrane, channel);
        *kept = left_of(node, membrane, channel, count);
        return count;
    }
    owed = kept + ev_elements(node); /* the reset of the last timestep */
    *kept = membrane - *owed;
    count = count_of(node, *kept, channel);
    *owed = count * node->threshold[channel];
    return count;
}

void ev_fire_strip(ev_state *state, int32_t i, size_t first, size_t pixels, const int64_t *potential)
{
    size_t channels = (size_t)state->net->node[i].channels;
    uint8_t *counts = (uint8_t *)ev_values(state, i) + first;

    for (size_t k = 0; k < pixels * channels; k++)
        counts[k] = fire_one(state, i, first + k, k % channels, potential[k]);
}

/* Place, channels last, of the value that is k-th channels first. */
static size_t place_of(const ev_node *node, size_t k)
{
    size_t pixels = (size_t)node->height * (size_t)node->width;

    return k % pixels * (size_t)node->channels + k / pixels;
}

void ev_fire_reshaped(ev_state *state, int32_t i)
{
    const ev_node *node = &state->net->node[i], *from = &state->net->node[node->source];
    const void *potentials = ev_values(state, node->source);
    size_t pixels = (size_t)node->height * (size_t)node->width;
    uint8_t *counts = ev_values(state, i);

    for (size_t k = 0; k < (size_t)ev_elements(node); k++) {
        size_t at = place_of(node, k);

        counts[at] = fire_one(state, i, at, k / pixels,
                              ev_value(potentials, from->format, place_of(from, k)));
    }
}
