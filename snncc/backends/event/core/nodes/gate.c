/* Gates: the product of two spike trains, number by number; of the second perhaps its silence. Either of
 * them may have one value for all pixels of a channel. */
#include "nodes/bounds.h"
#include "nodes/node.h"

/* -- what it is --------------------------------------------------------------------------------- */

static int has_shape(const ev_node *train, const ev_node *node)
{
    return train->height == node->height && train->width == node->width;
}

static int fits(const ev_node *train, const ev_node *node)
{
    return train->channels == node->channels &&
           (has_shape(train, node) || (train->height == 1 && train->width == 1));
}

static void read_gate(ev_record *r, ev_net *net, ev_node *node)
{
    const ev_node *a, *b;

    node->source = ev_read_source(r, net, node, EV_NODE_SOURCE);
    node->b = ev_read_source(r, net, node, EV_NODE_B);
    a = &net->node[node->source];
    b = &net->node[node->b];
    ev_require(r, ev_kind_of(a)->is_train && ev_kind_of(b)->is_train, "reads no spikes");
    ev_require(r, fits(a, node) && fits(b, node) && (has_shape(a, node) || has_shape(b, node)),
               "reads other shapes");
    node->gate = ev_small(r, EV_NODE_GATE, EV_GATE_AND, EV_GATE_AND_NOT, "unknown kind of gate");
    node->most = ev_small(r, EV_NODE_PAYLOAD, 0, UINT8_MAX, "payload out of range");
}

static int bound_gate(ev_net *net, int32_t i, ev_fault *fault)
{
    ev_node *node = &net->node[i];
    const ev_node *a = &net->node[node->source], *b = &net->node[node->b];

    node->is_kept = 1;
    node->format = EV_U8;
    if (a->format != EV_U8 || b->format != EV_U8)
        return ev_bad(fault, i, "reads counts beyond a byte");
    if (node->gate == EV_GATE_AND_NOT && b->payload > node->most)
        return ev_bad(fault, i, "its silence may be less than none");
    node->payload = a->payload * (node->gate == EV_GATE_AND ? b->payload : node->most);
    return node->payload > UINT8_MAX ? ev_bad(fault, i, "a product may exceed a byte") : EV_OK;
}

static int32_t source_of(const ev_net *net, const ev_node *node, int32_t k)
{
    (void)net;
    return k == 0 ? node->source : k == 1 ? node->b : -1;
}

/* -- what it does ------------------------------------------------------------------------------- */

static void multiply(const uint8_t *restrict a, const uint8_t *restrict b, size_t count,
                     uint8_t *restrict to)
{
    for (size_t i = 0; i < count; i++)
        to[i] = (uint8_t)(a[i] * b[i]);
}

static void multiply_silence(const uint8_t *restrict a, const uint8_t *restrict b, uint8_t most,
                             size_t count, uint8_t *restrict to)
{
    for (size_t i = 0; i < count; i++)
        to[i] = (uint8_t)(a[i] * (uint8_t)(most - b[i]));
}

/* Pixel by pixel where one of them has a value for all of them, else all at once. */
static void run_gate(ev_state *state, int32_t i)
{
    const ev_node *node = &state->net->node[i];
    int all_a = has_shape(&state->net->node[node->source], node);
    int all_b = has_shape(&state->net->node[node->b], node);
    size_t count = (size_t)ev_elements(node);
    size_t row = all_a && all_b ? count : (size_t)node->channels;
    const uint8_t *a = ev_values(state, node->source), *b = ev_values(state, node->b);
    uint8_t *to = ev_values(state, i);

    for (size_t at = 0; at < count; at += row) {
        const uint8_t *row_a = a + (all_a ? at : 0), *row_b = b + (all_b ? at : 0);

        if (node->gate == EV_GATE_AND)
            multiply(row_a, row_b, row, to + at);
        else
            multiply_silence(row_a, row_b, (uint8_t)node->most, row, to + at);
    }
}

const ev_node_kind ev_kind_gate = {
    .emits = 1,
    .is_train = 1,
    .read = read_gate,
    .bound = bound_gate,
    .source = source_of,
    .run = run_gate,
};
