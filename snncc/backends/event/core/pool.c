/* Pools: one loop over windows, for each format of what comes in and goes out. */
#include "parts.h"

typedef struct {
    const ev_node *node, *from;
    const void *in;
    void *out;
} pool;

static void put(void *values, ev_format format, size_t at, int64_t value)
{
    switch (format) {
    case EV_U8:
        ((uint8_t *)values)[at] = (uint8_t)value;
        break;
    case EV_U16:
        ((uint16_t *)values)[at] = (uint16_t)value;
        break;
    case EV_I32:
        ((int32_t *)values)[at] = (int32_t)value;
        break;
    case EV_I64:
        ((int64_t *)values)[at] = value;
        break;
    }
}

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
        put(p->out, node->format, at + c, pooled(p, rows, columns, c));
}

void ev_run_pool(ev_state *state, int32_t i)
{
    const ev_node *node = &state->net->node[i];
    pool p = {node, &state->net->node[node->source], ev_values(state, node->source),
              ev_values(state, i)};

    for (int32_t y = 0; y < node->height; y++)
        for (int32_t x = 0; x < node->width; x++)
            run_pixel(&p, y, x);
}
