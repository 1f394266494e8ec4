/* Proof that no sum of a network overflows, and with it how narrow each can be. */
#include "net.h"

/* Of a strip of a line: pixels, and sums in all. */
enum { STRIP_LEAST = 6, STRIP_MOST = 60, STRIP_SUMS = 1 << 15 };
enum { LINE_VALUES = (1 << 26) - 1 }; /* as of a row, see net_read.c */

static int bad(ev_fault *fault, int32_t node, const char *what)
{
    fault->node = node;
    fault->what = what;
    return EV_ERR_BAD_NETWORK;
}

static int64_t magnitude(int64_t value)
{
    return value < 0 ? -value : value;
}

/* a + (b << shift) if that is below EV_LIMIT, else EV_LIMIT. */
static int64_t added(int64_t a, int64_t b, int32_t shift)
{
    if (a >= EV_LIMIT || b > (EV_LIMIT >> shift))
        return EV_LIMIT;
    a += b << shift;
    return a < EV_LIMIT ? a : EV_LIMIT;
}

/* Whether what a node emits may be negative. */
static int is_signed(const ev_net *net, const ev_node *node)
{
    while (node->kind == EV_POOL)
        node = &net->node[node->source];
    return node->kind == EV_ACCUMULATOR;
}

static ev_format narrowest(int64_t payload, int has_sign)
{
    if (!has_sign && payload <= UINT8_MAX)
        return EV_U8;
    if (!has_sign && payload <= INT16_MAX)
        return EV_U16;
    return payload <= INT32_MAX ? EV_I32 : EV_I64;
}

/* -- projections -------------------------------------------------------------------------------- */

static int64_t widest_row(const int16_t *weights, int64_t rows, int64_t length)
{
    int64_t widest = 0;

    for (int64_t i = 0; i < rows; i++) {
        int64_t sum = 0;

        for (int64_t k = 0; k < length; k++)
            sum += magnitude(weights[i * length + k]);
        widest = sum > widest ? sum : widest;
    }
    return widest;
}

static int weights_fit_a_byte(const ev_projection *p, int64_t count)
{
    for (int32_t i = 0; i < p->parts; i++)
        for (int64_t k = 0; k < count; k++)
            if (magnitude(p->part[i].weights[k]) > INT8_MAX)
                return 0;
    return 1;
}

static ev_method method_of(const ev_projection *p, const ev_node *from, int32_t outputs)
{
    int dilated = (p->dilation_h > 1 && p->kernel_h > 1) || (p->dilation_w > 1 && p->kernel_w > 1);

    if (from->format >= EV_I32 || dilated)
        return EV_PLAIN;
    if (p->groups == 1)
        return EV_BY_DENSITY;
    return p->groups == p->channels && p->groups == outputs ? EV_DEPTHWISE : EV_PLAIN;
}

/* How the projection is computed, and the map that takes. */
static void choose(const ev_net *net, ev_projection *p, const ev_node *to)
{
    const ev_node *from = &net->node[p->source];
    int64_t length = (int64_t)p->kernel_h * p->kernel_w * (p->channels / p->groups);
    int is_byte = from->payload <= UINT8_MAX && weights_fit_a_byte(p, length * to->channels);

    p->method = method_of(p, from, to->channels);
    p->map_format = p->method == EV_PLAIN ? EV_I32 : is_byte ? EV_U8 : EV_U16;
    p->map_channels = p->channels;
    if (p->method == EV_BY_DENSITY)
        p->map_channels = ev_rounded(p->channels, EV_GRAIN);
    if (p->method == EV_DEPTHWISE)
        p->map_channels = ev_rounded(p->channels, EV_LANES);
}

/* The largest sum of the projection; of 32 bits for each part. */
static int64_t reach_of(const ev_net *net, ev_projection *p, const ev_node *to)
{
    int64_t payload = net->node[p->source].payload, total = 0, length;

    if (p->kind == EV_IDENTITY)
        return added(0, payload, p->part[0].shift);
    length = (int64_t)p->kernel_h * p->kernel_w * (p->channels / p->groups);
    for (int32_t i = 0; i < p->parts; i++) {
        int64_t row = widest_row(p->part[i].weights, to->channels, length);

        if (payload > INT32_MAX || (row > 0 && payload > (INT32_MAX - 1) / row))
            return -1;
        p->part[i].reach = payload * row;
        total = added(total, p->part[i].reach, p->part[i].shift);
    }
    return total;
}

/* -- nodes -------------------------------------------------------------------------------------- */

static int64_t largest(const int64_t *values, int64_t count)
{
    int64_t found = 0;

    for (int64_t i = 0; i < count; i++)
        found = magnitude(values[i]) > found ? magnitude(values[i]) : found;
    return found;
}

/* Each output reads the pixel at its own place alone, so that rows do not matter. */
static int is_pointwise(const ev_projection *p)
{
    if (p->kind == EV_IDENTITY)
        return 1;
    return p->kernel_h == 1 && p->kernel_w == 1 && p->stride_h == 1 && p->stride_w == 1 &&
           p->pad_top == 0 && p->pad_left == 0 && p->map_height == p->height &&
           p->map_width == p->width && (int64_t)p->height * p->width <= LINE_VALUES / p->map_channels;
}

static void flatten(ev_projection *p)
{
    p->width *= p->height;
    p->map_width *= p->map_height;
    p->height = p->map_height = 1;
}

/* Rounded up. */
static int64_t divided(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

/* Where all projections are pointwise the pixels are one line. Its strips are large enough for whole
 * blocks of the dense kernels, which read the weights once a strip, and small enough for sums to stay
 * in the cache. */
static void choose_strips(ev_net *net, ev_node *node)
{
    int64_t all = (int64_t)node->height * node->width, strip = STRIP_SUMS / node->lanes;
    int is_line = node->patches_h == 0;

    for (int32_t k = node->first; k < node->first + node->count; k++)
        is_line = is_line && is_pointwise(&net->projection[k]);
    for (int32_t k = node->first; is_line && k < node->first + node->count; k++)
        flatten(&net->projection[k]);
    node->line = is_line ? (int32_t)all : node->width;
    strip = strip < STRIP_LEAST ? STRIP_LEAST : strip > STRIP_MOST ? STRIP_MOST : strip;
    if (!is_line)
        strip = node->width;
    strip = divided(all, divided(all, strip)); /* strips of about the same length */
    node->strip = (int32_t)strip;
    node->strips = (int32_t)divided(all, strip);
}

static int bound_accumulator(ev_net *net, int32_t i, ev_fault *fault)
{
    ev_node *node = &net->node[i];
    int64_t total = largest(node->bias, node->bias_is_map ? ev_elements(node) : node->channels);

    for (int32_t k = node->first; k < node->first + node->count; k++) {
        ev_projection *p = &net->projection[k];
        int64_t reach = reach_of(net, p, node);

        if (reach < 0)
            return bad(fault, i, "a sum may exceed 32 bits");
        total = added(total, reach, 0);
        if (p->kind != EV_IDENTITY)
            choose(net, p, node);
    }
    if (total >= EV_LIMIT)
        return bad(fault, i, "the potential may exceed 62 bits");
    node->is_kept |= net->keeps_all;
    node->lanes = ev_rounded(node->channels, EV_LANES);
    choose_strips(net, node);
    node->payload = total;
    node->is_wide = total >= INT32_MAX;
    node->format = node->is_wide ? EV_I64 : EV_I32;
    return EV_OK;
}

/* Follows the membrane over the timesteps: its product with the decay, too, must hold. */
static int membrane_holds(const ev_net *net, const ev_node *node, int64_t drive)
{
    int64_t loss = 0, reach = drive, product, before, after;

    if (node->carry != EV_CARRY_HARD)
        loss = largest(node->threshold, node->channels);
    if (__builtin_mul_overflow(loss, (int64_t)node->ticks, &loss) || loss >= EV_LIMIT)
        return 0;
    before = node->carry == EV_CARRY_DELAYED ? 0 : loss;
    after = loss - before;
    for (int32_t t = 1; t < net->timesteps; t++) {
        int64_t next;

        if (__builtin_mul_overflow(node->decay, reach + before, &product) || product >= EV_LIMIT)
            return 0;
        next = added((product >> node->decay_shift) + 1 + after, drive, 0);
        if (next >= EV_LIMIT)
            return 0;
        if (next == reach)
            break;
        reach = next;
    }
    return added(reach, loss, 0) < EV_LIMIT;
}

static int bound_neuron(ev_net *net, int32_t i, ev_fault *fault)
{
    ev_node *node = &net->node[i], *from = &net->node[node->source];

    node->format = EV_U8;
    node->is_fused = node->channels == from->channels && node->height == from->height &&
                     node->width == from->width;
    if (node->is_fused) {
        node->next = from->neuron;
        from->neuron = i;
    } else {
        from->is_kept = 1;
    }
    if (node->carry == EV_CARRY_NONE)
        return EV_OK;
    if (!membrane_holds(net, node, added(0, from->payload, node->fraction)))
        return bad(fault, i, "the membrane may exceed 62 bits");
    return EV_OK;
}

static int bound_pool(ev_net *net, int32_t i, ev_fault *fault)
{
    ev_node *node = &net->node[i], *from = &net->node[node->source];
    int has_sign = is_signed(net, from);

    from->is_kept = 1;
    node->payload = from->payload;
    if (node->pool == EV_POOL_MAX) {
        node->format = from->format;
        return has_sign ? bad(fault, i, "maximum of potentials") : EV_OK;
    }
    if (__builtin_mul_overflow(node->payload, (int64_t)node->kernel_h * node->kernel_w,
                               &node->payload) || node->payload >= EV_LIMIT)
        return bad(fault, i, "the sum may exceed 62 bits");
    node->format = narrowest(node->payload, has_sign);
    return EV_OK;
}

static int bound_attention(ev_net *net, int32_t i, ev_fault *fault)
{
    ev_node *node = &net->node[i];
    const ev_node *q = &net->node[node->source], *k = &net->node[node->k], *v = &net->node[node->v];
    int64_t positions = (int64_t)k->height * k->width, channels = k->channels / node->heads, first;

    if (q->format != EV_U8 || k->format != EV_U8 || v->format != EV_U8)
        return bad(fault, i, "reads counts beyond a byte");
    first = node->order == EV_KV_FIRST ? positions * v->payload : channels * q->payload;
    if (first * k->payload > INT32_MAX)
        return bad(fault, i, "the first product may exceed 32 bits");
    if (__builtin_mul_overflow(positions * v->payload * k->payload, channels * q->payload,
                               &node->payload) || node->payload >= EV_LIMIT)
        return bad(fault, i, "the products may exceed 62 bits");
    node->format = node->payload <= INT32_MAX ? EV_I32 : EV_I64;
    return EV_OK;
}

static int bound_node(ev_net *net, int32_t i, ev_fault *fault)
{
    ev_node *node = &net->node[i];

    switch (node->kind) {
    case EV_SOURCE:
        node->format = narrowest(node->payload, 0);
        return EV_OK;
    case EV_ACCUMULATOR:
        return bound_accumulator(net, i, fault);
    case EV_NEURON:
        return bound_neuron(net, i, fault);
    case EV_POOL:
        return bound_pool(net, i, fault);
    case EV_ATTENTION:
        return bound_attention(net, i, fault);
    case EV_READOUT:
        break;
    }
    net->node[node->source].is_kept = 1;
    return EV_OK;
}

int ev_net_bound(ev_net *net, ev_fault *fault)
{
    for (int32_t i = 0; i < net->nodes; i++) {
        int status = bound_node(net, i, fault);

        if (status != EV_OK)
            return status;
    }
    for (int32_t k = 0; k < net->projections; k++)
        net->node[net->projection[k].source].is_kept = 1;
    return EV_OK;
}
