/* The source: a sample, as it comes. */
#include "nodes/bounds.h"
#include "nodes/node.h"

static void read_source(ev_record *r, ev_net *net, ev_node *node)
{
    (void)net;
    node->payload = ev_between(r, EV_NODE_PAYLOAD, 1, INT32_MAX, "payload out of range");
}

static int bound_source(ev_net *net, int32_t i, ev_fault *fault)
{
    ev_node *node = &net->node[i];

    (void)fault;
    node->is_kept = 1;
    node->format = ev_narrowest(node->payload, 0);
    return EV_OK;
}

/* Channels become the last axis. */
static void run_source(ev_state *state, int32_t i)
{
    const ev_node *node = &state->net->node[i];
    size_t pixels = (size_t)node->height * (size_t)node->width, channels = (size_t)node->channels;
    const void *sample = state->sample;
    void *values = ev_values(state, i);

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

const ev_node_kind ev_kind_source = {
    .emits = 1,
    .read = read_source,
    .bound = bound_source,
    .run = run_source,
};
