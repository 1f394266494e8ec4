/* Neurons. Those of their accumulator's shape fire as soon as a strip of it is complete; the common case
 * of these is the kernel `fire`. Here is firing in 64 bits: neurons that carry their membrane over
 * timesteps, wide potentials, and neurons of another shape than their accumulator. */
#include "nodes/bounds.h"
#include "nodes/node.h"
#include "parts.h"

/* -- what it is --------------------------------------------------------------------------------- */

static void read_levels(ev_record *r, ev_node *node)
{
    int64_t count = (int64_t)node->ticks * node->channels;

    node->levels = ev_array(r, EV_NODE_LEVELS, count, 8, "levels lie outside the data");
    ev_check_range(r, node->levels, count, "levels out of range");
    for (int64_t i = node->channels; node->levels != NULL && i < count; i++)
        ev_require(r, node->levels[i - node->channels] <= node->levels[i], "levels decrease");
}

/* What is left of each channel after a timestep, over 2^shift. */
static const int64_t *read_decay(ev_record *r, const ev_node *node, int field, int32_t shift,
                                 const char *what)
{
    const int64_t *decay = ev_array(r, field, node->channels, 8, what);

    for (int32_t c = 0; decay != NULL && c < node->channels; c++)
        ev_require(r, 0 <= decay[c] && decay[c] <= INT64_C(1) << shift, what);
    return decay;
}

static int is_zero(const int64_t *values, int32_t count)
{
    for (int32_t i = 0; i < count; i++)
        if (values[i] != 0)
            return 0;
    return 1;
}

static void read_carry(ev_record *r, ev_node *node)
{
    node->carry = ev_small(r, EV_NODE_CARRY, EV_CARRY_NONE, EV_CARRY_RAISED, "unknown carry");
    if (node->carry == EV_CARRY_NONE)
        return;
    node->decay_shift = ev_small(r, EV_NODE_DECAY_SHIFT, 0, 24, "decay out of range");
    node->decay = read_decay(r, node, EV_NODE_DECAY, node->decay_shift, "decay out of range");
    node->current_shift = ev_small(r, EV_NODE_CURRENT_SHIFT, 0, 24, "current out of range");
    node->current = read_decay(r, node, EV_NODE_CURRENT, node->current_shift, "current out of range");
    if (node->current != NULL && is_zero(node->current, node->channels))
        node->current = NULL;
    node->fraction = ev_small(r, EV_NODE_FRACTION, 0, 61, "fraction out of range");
    node->threshold = ev_array(r, EV_NODE_THRESHOLD, node->channels, 8, "threshold outside the data");
    ev_check_range(r, node->threshold, node->channels, "threshold out of range");
}

static void read_neuron(ev_record *r, ev_net *net, ev_node *node)
{
    const ev_node *from;

    node->source = ev_read_source(r, net, node, EV_NODE_SOURCE);
    from = &net->node[node->source];
    ev_require(r, ev_elements(from) == ev_elements(node), "reads another number of values");
    ev_require(r, from->kind == EV_ACCUMULATOR, "reads no accumulator");
    node->ticks = ev_small(r, EV_NODE_TICKS, 1, EV_MAX_TICKS, "ticks out of range");
    read_levels(r, node);
    read_carry(r, node);
    node->payload = node->ticks;
}

/* What a state becomes in a timestep that adds `drive`; EV_LIMIT if that, or a product, does not hold. */
static int64_t next_reach(int64_t reach, int64_t decay, int32_t shift, int64_t drive)
{
    int64_t product;

    if (__builtin_mul_overflow(decay, reach, &product) || product >= EV_LIMIT)
        return EV_LIMIT;
    return ev_added((product >> shift) + 1, drive, 0);
}

/* Follows the membrane over the timesteps: its product with the decay, too, must hold. */
static int membrane_holds(const ev_net *net, const ev_node *node, int64_t drive)
{
    int64_t loss = 0, reach = drive, flow = drive, before, after;
    int64_t decay = ev_largest(node->decay, node->channels);
    int64_t current = node->current == NULL ? 0 : ev_largest(node->current, node->channels);

    if (node->carry != EV_CARRY_HARD)
        loss = ev_largest(node->threshold, node->channels);
    if (__builtin_mul_overflow(loss, (int64_t)node->ticks, &loss) || loss >= EV_LIMIT)
        return 0;
    before = node->carry == EV_CARRY_DELAYED ? 0 : loss;
    after = loss - before;
    for (int32_t t = 1; t < net->timesteps; t++) {
        int64_t flows = drive, next;

        if (current > 0)
            flows = next_reach(flow, current, node->current_shift, drive);
        next = next_reach(reach + before, decay, node->decay_shift, flows);
        next = ev_added(next, after, 0);
        if (flows >= EV_LIMIT || next >= EV_LIMIT)
            return 0;
        if (next == reach && flows == flow)
            break;
        reach = next;
        flow = flows;
    }
    return ev_added(reach, loss, 0) < EV_LIMIT;
}

static int bound_neuron(ev_net *net, int32_t i, ev_fault *fault)
{
    ev_node *node = &net->node[i], *from = &net->node[node->source];

    node->is_kept = 1;
    node->format = EV_U8;
    node->is_fused = node->channels == from->channels && node->height == from->height &&
                     node->width == from->width;
    if (node->is_fused) {
        node->next = from->neuron;
        from->neuron = i;
    }
    if (node->carry == EV_CARRY_NONE)
        return EV_OK;
    if (!membrane_holds(net, node, ev_added(0, from->payload, node->fraction)))
        return ev_bad(fault, i, "the membrane may exceed 62 bits");
    return EV_OK;
}

/* Keeps arrays of one value a channel that are there, in place of those of the file. */
static int keep(ev_net *net, const ev_node *node, const int64_t **array)
{
    if (*array == NULL)
        return EV_OK;
    *array = ev_net_copied(net, *array, (size_t)node->channels * sizeof(int64_t));
    return *array == NULL ? EV_ERR_NO_MEMORY : EV_OK;
}

static int prepare_neuron(ev_net *net, ev_node *node)
{
    size_t size = (size_t)node->channels * sizeof(int64_t);
    int status;

    if (node->is_fused && !net->node[node->source].is_wide && node->carry == EV_CARRY_NONE) {
        node->levels32 = ev_net_narrowed(net, node->levels, node->ticks, node->channels);
        if (node->levels32 == NULL)
            return EV_ERR_NO_MEMORY;
    }
    node->levels = ev_net_copied(net, node->levels, (size_t)node->ticks * size);
    if (node->levels == NULL)
        return EV_ERR_NO_MEMORY;
    if (node->carry == EV_CARRY_NONE)
        return EV_OK;
    if ((status = keep(net, node, &node->threshold)) != EV_OK ||
        (status = keep(net, node, &node->decay)) != EV_OK)
        return status;
    return keep(net, node, &node->current);
}

/* -- what it does ------------------------------------------------------------------------------- */

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
    if (node->carry != EV_CARRY_HARD)
        return membrane - count * node->threshold[channel];
    return count > 0 ? 0 : membrane;
}

/* Division by a power of two that rounds down, also below zero. */
static int64_t floored(int64_t value, int32_t shift)
{
    return value >= 0 ? value >> shift : -((-value + (INT64_C(1) << shift) - 1) >> shift);
}

/* What comes into the membrane: the drive, or the current that it goes into, which is kept last. */
static int64_t driven(const ev_node *node, int64_t *membrane, size_t channel, int64_t drive)
{
    int64_t *flow;

    if (node->current == NULL)
        return drive;
    flow = membrane + ev_memory(node) - ev_elements(node);
    *flow = floored(*flow * node->current[channel], node->current_shift) + drive;
    return *flow;
}

/* Spike count of one neuron; `at` is its place in the membranes. */
static uint8_t fire_one(const ev_state *state, int32_t i, size_t at, size_t channel,
                        int64_t potential)
{
    const ev_node *node = &state->net->node[i];
    int64_t membrane, raised = 0, *kept, *owed;
    uint8_t count;

    if (node->carry == EV_CARRY_NONE)
        return count_of(node, potential, channel);
    kept = state->membrane[i] + at;
    if (node->carry == EV_CARRY_RAISED && *kept >= node->levels[channel])
        raised = node->threshold[channel];
    membrane = floored(*kept * node->decay[channel], node->decay_shift) +
               driven(node, kept, channel, potential * (INT64_C(1) << node->fraction));
    if (node->carry != EV_CARRY_DELAYED) {
        count = count_of(node, membrane - raised, channel);
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

static void fire_reshaped(ev_state *state, int32_t i)
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

static void run_neuron(ev_state *state, int32_t i)
{
    if (!state->net->node[i].is_fused)
        fire_reshaped(state, i);
}

static int32_t result_of_neuron(const ev_net *net, int32_t i)
{
    (void)net;
    return i;
}

const ev_node_kind ev_kind_neuron = {
    .emits = 1,
    .is_train = 1,
    .read = read_neuron,
    .bound = bound_neuron,
    .prepare = prepare_neuron,
    .source = ev_only_source,
    .run = run_neuron,
    .result = result_of_neuron,
    .result_bytes = 1,
};
