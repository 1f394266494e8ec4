/* Pools: one loop over windows, for each format of what comes in and goes out. */
#include "nodes/bounds.h"
#include "nodes/node.h"
#include "parts.h"

/* -- what it is --------------------------------------------------------------------------------- */

static void read_pool(ev_record *r, ev_net *net, ev_node *node)
{
    node->source = ev_read_source(r, net, node, EV_NODE_SOURCE);
    ev_require(r, net->node[node->source].channels == node->channels, "pools other channels");
    node->pool = ev_small(r, EV_NODE_POOL, EV_POOL_MAX, EV_POOL_SUM, "unknown kind of pool");
    node->kernel_h = ev_small(r, EV_NODE_KERNEL_H, 1, EV_MAX_WINDOW, "kernel out of range");
    node->kernel_w = ev_small(r, EV_NODE_KERNEL_W, 1, EV_MAX_WINDOW, "kernel out of range");
    node->stride_h = ev_small(r, EV_NODE_STRIDE_H, 1, EV_MAX_WINDOW, "stride out of range");
    node->stride_w = ev_small(r, EV_NODE_STRIDE_W, 1, EV_MAX_WINDOW, "stride out of range");
    node->pad_top = ev_small(r, EV_NODE_PAD_TOP, 0, EV_MAX_WINDOW, "padding out of range");
    node->pad_left = ev_small(r, EV_NODE_PAD_LEFT, 0, EV_MAX_WINDOW, "padding out of range");
    ev_require(r, ev_extent(node->height, node->stride_h, 1, node->kernel_h) > 0 &&
                      ev_extent(node->width, node->stride_w, 1, node->kernel_w) > 0,
               "windows too far out");
}

static int bound_pool(ev_net *net, int32_t i, ev_fault *fault)
{
    ev_node *node = &net->node[i];
    const ev_node *from = &net->node[node->source];

    node->is_kept = 1;
    node->is_signed = from->is_signed;
    node->payload = from->payload;
    if (node->pool == EV_POOL_MAX) {
        node->format = from->format;
        return node->is_signed ? ev_bad(fault, i, "maximum of potentials") : EV_OK;
    }
    if (__builtin_mul_overflow(node->payload, (int64_t)node->kernel_h * node->kernel_w,
                               &node->payload) || node->payload >= EV_LIMIT)
        return ev_bad(fault, i, "the sum may exceed 62 bits");
    node->format = ev_narrowest(node->payload, node->is_signed);
    return EV_OK;
}

/* -- what it does ------------------------------------------------------------------------------- */

typedef struct {
    const ev_node *node, *from;
    const void *in;
    void *out;
} pool;

static int32_t least(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

/* The part of a window that lies inside the map: rows or columns first..last - 1. */
typedef struct {
    int32_t first, last;
} inside;

static inside window(int32_t output, int32_t stride, int32_t pad, int32_t kernel, int32_t size)
{
    int32_t from = output * stride - pad;

    return (inside){from < 0 ? 0 : from, least(from + kernel, size)};
}

/* Maxima of bytes, the usual case: whole pixels at a time, which the compiler makes vectors of. */
static void max_bytes(const pool *p, inside rows, inside columns, uint8_t *to)
{
    size_t channels = (size_t)p->node->channels;

    for (size_t c = 0; c < channels; c++)
        to[c] = 0;
    for (int32_t y = rows.first; y < rows.last; y++)
        for (int32_t x = columns.first; x < columns.last; x++) {
            const uint8_t *from = (const uint8_t *)p->in +
                                  ((size_t)y * (size_t)p->from->width + (size_t)x) * channels;

            for (size_t c = 0; c < channels; c++)
                to[c] = to[c] > from[c] ? to[c] : from[c];
        }
}

static int64_t pooled(const pool *p, inside rows, inside columns, size_t channel)
{
    size_t channels = (size_t)p->node->channels;
    int64_t result = 0;

    for (int32_t y = rows.first; y < rows.last; y++)
        for (int32_t x = columns.first; x < columns.last; x++) {
            size_t at = ((size_t)y * (size_t)p->from->width + (size_t)x) * channels + channel;
            int64_t value = ev_value(p->in, p->from->format, at);

            if (p->node->pool == EV_POOL_SUM)
                result += value;
            else if (value > result)
                result = value;
        }
    return result;
}

static void run_pixel(const pool *p, int32_t y, int32_t x)
{
    const ev_node *node = p->node;
    size_t channels = (size_t)node->channels;
    size_t at = ((size_t)y * (size_t)node->width + (size_t)x) * channels;
    inside rows = window(y, node->stride_h, node->pad_top, node->kernel_h, p->from->height);
    inside columns = window(x, node->stride_w, node->pad_left, node->kernel_w, p->from->width);

    if (node->pool == EV_POOL_MAX && node->format == EV_U8) {
        max_bytes(p, rows, columns, (uint8_t *)p->out + at);
        return;
    }
    for (size_t c = 0; c < channels; c++)
        ev_put(p->out, node->format, at + c, pooled(p, rows, columns, c));
}

static void run_pool(ev_state *state, int32_t i)
{
    const ev_node *node = &state->net->node[i];
    pool p = {node, &state->net->node[node->source], ev_values(state, node->source),
              ev_values(state, i)};

    for (int32_t y = 0; y < node->height; y++)
        for (int32_t x = 0; x < node->width; x++)
            run_pixel(&p, y, x);
}

const ev_node_kind ev_kind_pool = {
    .emits = 1,
    .is_train = 1,
    .read = read_pool,
    .bound = bound_pool,
    .source = ev_only_source,
    .run = run_pool,
};
