/* Spike-driven attention: products of three bursts, head by head and without a softmax,
 *
 *     y[n][j] = sum over i and m of q[n][i] * k[m][i] * v[m][j]
 *
 * where a burst is its spike count. Most counts are 0, so each step adds rows for those that are
 * not: of the d by e matrix k^T v in the one order, of the products of q[n] with all k in the other. */
#include <string.h>

#include "nodes/bounds.h"
#include "nodes/node.h"
#include "parts.h"

/* -- what it is --------------------------------------------------------------------------------- */

static int is_train(const ev_node *node)
{
    return ev_kind_of(node)->is_train;
}

static void read_attention(ev_record *r, ev_net *net, ev_node *node)
{
    const ev_node *q, *k, *v;
    int32_t heads;

    node->source = ev_read_source(r, net, node, EV_NODE_SOURCE);
    node->k = ev_read_source(r, net, node, EV_NODE_K);
    node->v = ev_read_source(r, net, node, EV_NODE_V);
    heads = node->heads = ev_small(r, EV_NODE_HEADS, 1, EV_MAX_SIZE, "heads out of range");
    node->order = ev_small(r, EV_NODE_ORDER, EV_KV_FIRST, EV_QK_FIRST, "unknown order");
    q = &net->node[node->source];
    k = &net->node[node->k];
    v = &net->node[node->v];
    ev_require(r, is_train(q) && is_train(k) && is_train(v), "reads no spikes");
    ev_require(r, q->channels == k->channels && node->channels == v->channels &&
                      q->channels % heads == 0 && v->channels % heads == 0,
               "heads do not divide the channels");
    ev_require(r, node->height == q->height && node->width == q->width &&
                      (int64_t)k->height * k->width == (int64_t)v->height * v->width,
               "reads other positions");
    ev_require(r, (int64_t)(k->channels / heads) * (v->channels / heads) < EV_MAX_ELEMENTS,
               "heads are too large");
}

static int bound_attention(ev_net *net, int32_t i, ev_fault *fault)
{
    ev_node *node = &net->node[i];
    const ev_node *q = &net->node[node->source], *k = &net->node[node->k], *v = &net->node[node->v];
    int64_t positions = (int64_t)k->height * k->width, channels = k->channels / node->heads, first;

    node->is_kept = 1;
    if (q->format != EV_U8 || k->format != EV_U8 || v->format != EV_U8)
        return ev_bad(fault, i, "reads counts beyond a byte");
    first = node->order == EV_KV_FIRST ? positions * v->payload : channels * q->payload;
    if (first * k->payload > INT32_MAX)
        return ev_bad(fault, i, "the first product may exceed 32 bits");
    if (__builtin_mul_overflow(positions * v->payload * k->payload, channels * q->payload,
                               &node->payload) || node->payload >= EV_LIMIT)
        return ev_bad(fault, i, "the products may exceed 62 bits");
    node->format = node->payload <= INT32_MAX ? EV_I32 : EV_I64;
    return EV_OK;
}

static int32_t source_of(const ev_net *net, const ev_node *node, int32_t k)
{
    const int32_t sources[] = {node->source, node->k, node->v};

    (void)net;
    return k < 3 ? sources[k] : -1;
}

/* -- what it does ------------------------------------------------------------------------------- */

/* One head; pointers are at its first channel, distances in values. */
typedef struct {
    const ev_kernels *kernels;
    const uint8_t *q, *k, *v;
    size_t q_row, v_row; /* channels of all heads; k has those of q */
    size_t n, m, d, e;   /* positions of q, of k and v; channels of q and k, of v */
    int32_t *room;       /* for the products */
    ev_format format;    /* of y, EV_I32 or EV_I64 */
    void *y;             /* rows of v_row */
} head;

static void widen(const uint8_t *values, size_t count, int32_t *to)
{
    for (size_t i = 0; i < count; i++)
        to[i] = values[i];
}

/* Adds row [e] times a factor to y at position n. */
static void emit(const head *h, size_t n, const int32_t *row, int32_t factor)
{
    int64_t *to = (int64_t *)h->y + n * h->v_row;

    if (h->format == EV_I32) {
        h->kernels->add_scaled((int32_t *)h->y + n * h->v_row, row, factor, h->e);
        return;
    }
    for (size_t j = 0; j < h->e; j++)
        to[j] += (int64_t)row[j] * factor;
}

/* k^T v first. */
static void run_kv(const head *h)
{
    int32_t *matrix = h->room, *row = h->room + h->d * h->e;

    memset(matrix, 0, h->d * h->e * sizeof(*matrix));
    for (size_t m = 0; m < h->m; m++) {
        widen(h->v + m * h->v_row, h->e, row);
        for (size_t i = 0; i < h->d; i++)
            if (h->k[m * h->q_row + i] != 0)
                h->kernels->add_scaled(matrix + i * h->e, row, h->k[m * h->q_row + i], h->e);
    }
    for (size_t n = 0; n < h->n; n++)
        for (size_t i = 0; i < h->d; i++)
            if (h->q[n * h->q_row + i] != 0)
                emit(h, n, matrix + i * h->e, h->q[n * h->q_row + i]);
}

/* q k^T first, a row of it at a time. */
static void run_qk(const head *h)
{
    int32_t *keys = h->room, *values = keys + h->d * h->m, *row = values + h->m * h->e;

    for (size_t m = 0; m < h->m; m++) {
        for (size_t i = 0; i < h->d; i++)
            keys[i * h->m + m] = h->k[m * h->q_row + i];
        widen(h->v + m * h->v_row, h->e, values + m * h->e);
    }
    for (size_t n = 0; n < h->n; n++) {
        memset(row, 0, h->m * sizeof(*row));
        for (size_t i = 0; i < h->d; i++)
            if (h->q[n * h->q_row + i] != 0)
                h->kernels->add_scaled(row, keys + i * h->m, h->q[n * h->q_row + i], h->m);
        for (size_t m = 0; m < h->m; m++)
            if (row[m] != 0)
                emit(h, n, values + m * h->e, row[m]);
    }
}

static size_t scratch_of(const ev_net *net, const ev_node *node)
{
    const ev_node *k = &net->node[node->k];
    size_t heads = (size_t)node->heads, m = (size_t)k->height * (size_t)k->width;
    size_t d = (size_t)k->channels / heads, e = (size_t)node->channels / heads;

    return (node->order == EV_KV_FIRST ? d * e + e : d * m + m * e + m) * sizeof(int32_t);
}

static void run_attention(ev_state *state, int32_t i)
{
    const ev_node *node = &state->net->node[i], *k = &state->net->node[node->k];
    size_t heads = (size_t)node->heads;
    head h = {
        .kernels = state->kernels,
        .q = ev_values(state, node->source),
        .k = ev_values(state, node->k),
        .v = ev_values(state, node->v),
        .q_row = (size_t)k->channels,
        .v_row = (size_t)node->channels,
        .n = (size_t)node->height * (size_t)node->width,
        .m = (size_t)k->height * (size_t)k->width,
        .d = (size_t)k->channels / heads,
        .e = (size_t)node->channels / heads,
        .room = (int32_t *)(void *)state->scratch,
        .format = node->format,
        .y = ev_values(state, i),
    };

    memset(h.y, 0, (size_t)ev_elements(node) * ev_bytes_of(node->format));
    for (size_t done = 0; done < heads; done++) {
        if (node->order == EV_KV_FIRST)
            run_kv(&h);
        else
            run_qk(&h);
        h.q += h.d;
        h.k += h.d;
        h.v += h.e;
        h.y = (uint8_t *)h.y + h.e * ev_bytes_of(node->format);
    }
}

const ev_node_kind ev_kind_attention = {
    .emits = 1,
    .read = read_attention,
    .bound = bound_attention,
    .source = source_of,
    .scratch = scratch_of,
    .run = run_attention,
};
