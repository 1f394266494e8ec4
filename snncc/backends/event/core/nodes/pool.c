/* Pools: maxima or sums over windows. Values beyond the map are neutral: a sum has none of them, and a
 * maximum is that of the values inside, which may all be negative. */
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

/* Whether each window has a value inside the map. */
static int all_meet(const ev_node *node, const ev_node *from)
{
    return node->pad_top < node->kernel_h && node->pad_left < node->kernel_w &&
           (node->height - 1) * node->stride_h - node->pad_top < from->height &&
           (node->width - 1) * node->stride_w - node->pad_left < from->width;
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
        return node->is_signed && !all_meet(node, from)
                   ? ev_bad(fault, i, "the maximum of no potential")
                   : EV_OK;
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

    return (inside){from < 0 ? 0 : least(from, size), least(from + kernel, size)};
}

static size_t place_of(const pool *p, int32_t y, int32_t x)
{
    return ((size_t)y * (size_t)p->from->width + (size_t)x) * (size_t)p->node->channels;
}

/* Maxima: whole pixels at a time, which the compiler makes vectors of. `at` is the first value of the
 * output. It begins as the least there is: 0 of what has no sign, else below every potential. */
#define MAXIMUM(name, T, LEAST)                                                 \
    static void name(const pool *p, inside rows, inside columns, size_t at)     \
    {                                                                           \
        size_t channels = (size_t)p->node->channels;                            \
        T *to = (T *)p->out + at, lowest = p->node->is_signed ? LEAST : 0;      \
                                                                                \
        for (size_t c = 0; c < channels; c++)                                   \
            to[c] = lowest;                                                     \
        for (int32_t y = rows.first; y < rows.last; y++) {                      \
            const T *from = (const T *)p->in + place_of(p, y, columns.first);   \
                                                                                \
            for (int32_t x = columns.first; x < columns.last; x++) {            \
                for (size_t c = 0; c < channels; c++)                           \
                    to[c] = to[c] > from[c] ? to[c] : from[c];                  \
                from += channels;                                               \
            }                                                                   \
        }                                                                       \
    }

MAXIMUM(max_bytes, uint8_t, 0)
MAXIMUM(max_words, uint16_t, 0)
MAXIMUM(max_32, int32_t, INT32_MIN)
MAXIMUM(max_64, int64_t, INT64_MIN)

static void maximum(const pool *p, inside rows, inside columns, size_t at)
{
    switch (p->node->format) {
    case EV_U8:
        max_bytes(p, rows, columns, at);
        break;
    case EV_U16:
        max_words(p, rows, columns, at);
        break;
    case EV_I32:
        max_32(p, rows, columns, at);
        break;
    case EV_I64:
        max_64(p, rows, columns, at);
        break;
    }
}

static int64_t sum(const pool *p, inside rows, inside columns, size_t channel)
{
    int64_t result = 0;

    for (int32_t y = rows.first; y < rows.last; y++)
        for (int32_t x = columns.first; x < columns.last; x++)
            result += ev_value(p->in, p->from->format, place_of(p, y, x) + channel);
    return result;
}

static void run_pixel(const pool *p, int32_t y, int32_t x)
{
    const ev_node *node = p->node;
    size_t channels = (size_t)node->channels;
    size_t at = ((size_t)y * (size_t)node->width + (size_t)x) * channels;
    inside rows = window(y, node->stride_h, node->pad_top, node->kernel_h, p->from->height);
    inside columns = window(x, node->stride_w, node->pad_left, node->kernel_w, p->from->width);

    if (node->pool == EV_POOL_MAX) {
        maximum(p, rows, columns, at);
        return;
    }
    for (size_t c = 0; c < channels; c++)
        ev_put(p->out, node->format, at + c, sum(p, rows, columns, c));
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
