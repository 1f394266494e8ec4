/* Sums: what two nodes emit, added number by number; of nothing that may be negative. */
#include "nodes/bounds.h"
#include "nodes/node.h"
#include "parts.h"

/* -- what it is --------------------------------------------------------------------------------- */

static int same_shape(const ev_node *from, const ev_node *node)
{
    return from->channels == node->channels && from->height == node->height &&
           from->width == node->width;
}

static void read_sum(ev_record *r, ev_net *net, ev_node *node)
{
    node->source = ev_read_source(r, net, node, EV_NODE_SOURCE);
    node->b = ev_read_source(r, net, node, EV_NODE_B);
    ev_require(r, same_shape(&net->node[node->source], node) && same_shape(&net->node[node->b], node),
               "reads other shapes");
}

static int bound_sum(ev_net *net, int32_t i, ev_fault *fault)
{
    ev_node *node = &net->node[i];
    const ev_node *a = &net->node[node->source], *b = &net->node[node->b];

    if (a->is_signed || b->is_signed)
        return ev_bad(fault, i, "a sum of potentials, which accumulators take");
    node->payload = ev_added(a->payload, b->payload, 0);
    if (node->payload >= EV_LIMIT)
        return ev_bad(fault, i, "the sum may exceed 62 bits");
    node->is_kept = 1;
    node->format = ev_narrowest(node->payload, 0);
    return EV_OK;
}

static int32_t source_of(const ev_net *net, const ev_node *node, int32_t k)
{
    (void)net;
    return k == 0 ? node->source : k == 1 ? node->b : -1;
}

/* -- what it does ------------------------------------------------------------------------------- */

/* Of bytes and words, the usual cases: loops that the compiler makes vectors of. */
#define ADD(name, A, B, TO)                                                     \
    static void name(const A *a, const B *b, size_t count, TO *restrict to)     \
    {                                                                           \
        for (size_t i = 0; i < count; i++)                                      \
            to[i] = (TO)(a[i] + b[i]);                                          \
    }

ADD(add_bytes, uint8_t, uint8_t, uint8_t)
ADD(add_bytes_to_words, uint8_t, uint8_t, uint16_t)
ADD(add_words_and_bytes, uint16_t, uint8_t, uint16_t)
ADD(add_words, uint16_t, uint16_t, uint16_t)

static void add_any(const void *a, ev_format format_a, const void *b, ev_format format_b,
                    size_t count, void *to, ev_format format)
{
    for (size_t i = 0; i < count; i++)
        ev_put(to, format, i, ev_value(a, format_a, i) + ev_value(b, format_b, i));
}

/* The wider of both comes first. */
static void add(const void *a, ev_format of_a, const void *b, ev_format of_b, size_t count, void *to,
                ev_format format)
{
    if (of_a == EV_U8 && format == EV_U8)
        add_bytes(a, b, count, to);
    else if (of_a == EV_U8 && format == EV_U16)
        add_bytes_to_words(a, b, count, to);
    else if (of_a == EV_U16 && of_b == EV_U8 && format == EV_U16)
        add_words_and_bytes(a, b, count, to);
    else if (of_a == EV_U16 && of_b == EV_U16 && format == EV_U16)
        add_words(a, b, count, to);
    else
        add_any(a, of_a, b, of_b, count, to, format);
}

static void run_sum(ev_state *state, int32_t i)
{
    const ev_node *node = &state->net->node[i];
    ev_format of_a = state->net->node[node->source].format;
    ev_format of_b = state->net->node[node->b].format;
    const void *a = ev_values(state, node->source), *b = ev_values(state, node->b);
    size_t count = (size_t)ev_elements(node);

    if (of_a >= of_b)
        add(a, of_a, b, of_b, count, ev_values(state, i), node->format);
    else
        add(b, of_b, a, of_a, count, ev_values(state, i), node->format);
}

const ev_node_kind ev_kind_sum = {
    .emits = 1,
    .read = read_sum,
    .bound = bound_sum,
    .source = source_of,
    .run = run_sum,
};
