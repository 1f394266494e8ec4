/* Networks at random. */
#include "builder.h"

static int64_t any_channels(rng *r)
{
    static const int64_t some[] = {1, 2, 3, 4, 5, 8, 12, 16, 17, 20, 32, 36, 64, 70};

    return some[draw(r, draw(r, 8) ? 8 : 14)];
}

static shape any_shape(rng *r)
{
    return (shape){any_channels(r), between(r, 1, 6), between(r, 1, 6)};
}

/* Mostly 2^0 to 2^17, some larger. */
static int64_t any_scale(rng *r)
{
    return INT64_C(1) << (draw(r, 8) ? between(r, 0, 17) : between(r, 18, 45));
}

static int64_t any_groups(rng *r, int64_t from, int64_t to)
{
    int64_t groups[] = {1, from, 2, 4, 3};
    int64_t chosen = groups[draw(r, 5)];

    return from % chosen == 0 && to % chosen == 0 ? chosen : 1;
}

static window any_window(rng *r)
{
    window w = {.kernel_h = between(r, 1, 3), .kernel_w = between(r, 1, 3)};

    w.stride_h = draw(r, 3) ? 1 : between(r, 1, 3);
    w.stride_w = draw(r, 3) ? 1 : between(r, 1, 3);
    w.pad_top = between(r, 0, draw(r, 8) ? 1 : 5);
    w.pad_left = between(r, 0, draw(r, 8) ? 1 : 5);
    w.dilation_h = draw(r, 5) ? 1 : 2;
    w.dilation_w = draw(r, 5) ? 1 : 2;
    w.bits = draw(r, 3) ? 8 : between(r, 2, 16);
    w.parts = draw(r, 4) ? 1 : between(r, 1, EV_MAX_PARTS);
    w.shift = draw(r, 8) ? 8 : between(r, 0, draw(r, 4) ? 10 : 30);
    w.first = draw(r, 6) ? 0 : between(r, 1, draw(r, 4) ? 10 : 40);
    return w;
}

static int has_room(const network *net, int64_t nodes)
{
    return net->nodes + nodes <= MAX_NODES && net->data_bytes <= MAX_DATA / 4;
}

static int32_t any_emitting(const network *net, rng *r)
{
    int32_t node = (int32_t)draw(r, (uint32_t)net->nodes);

    if (draw(r, 2) != 0)
        node = (int32_t)net->nodes - 1;
    while (net->node[node][EV_NODE_KIND] == EV_READOUT)
        node--;
    return node;
}

static int64_t elements(shape of)
{
    return of.channels * of.height * of.width;
}

static int same(shape a, shape b)
{
    return a.channels == b.channels && a.height == b.height && a.width == b.width;
}

enum { MOST_WEIGHTS = 1 << 13 };

static int64_t weights_of(shape from, shape to, window w)
{
    return from.channels * to.channels / w.groups * w.kernel_h * w.kernel_w * w.parts;
}

static void draw_conv(network *net, rng *r, int32_t from, shape of, window w)
{
    w.groups = any_groups(r, shape_of(net, from).channels, of.channels);
    if (weights_of(shape_of(net, from), of, w) > MOST_WEIGHTS)
        w.kernel_h = w.kernel_w = w.parts = 1;
    add_projection(net, r, from, EV_CONV, w);
}

static void draw_projection(network *net, rng *r, int32_t to)
{
    int32_t from = any_emitting(net, r);
    shape of = shape_of(net, to), inputs;
    window w = any_window(r), linear = w;

    linear.kernel_h = linear.kernel_w = linear.groups = 1;
    linear.pad_top = linear.pad_left = 0;
    while (from >= to || net->node[from][EV_NODE_KIND] == EV_READOUT)
        from--;
    if (same(of, shape_of(net, from)) && draw(r, 2)) {
        w.shift = draw(r, 4) ? 0 : between(r, 0, 12);
        w.drop = draw(r, 3) ? 0 : between(r, 1, draw(r, 2) ? 8 : 40);
        add_projection(net, r, from, EV_IDENTITY, w);
        return;
    }
    inputs = (shape){elements(shape_of(net, from)), 1, 1};
    if (of.height * of.width == 1 && draw(r, 2) &&
        weights_of(inputs, of, linear) <= MOST_WEIGHTS) {
        add_projection(net, r, from, EV_LINEAR, linear);
        return;
    }
    draw_conv(net, r, from, of, w);
}

/* Half of the shapes are those of the node before, so that identities fit. */
static int32_t draw_accumulator(network *net, rng *r)
{
    shape of = draw(r, 2) ? any_shape(r) : shape_of(net, (int32_t)net->nodes - 1);
    int32_t node;

    if (draw(r, 4) == 0)
        of.height = of.width = 1;
    node = add_accumulator(net, r, of, any_scale(r), draw(r, 4) == 0);
    for (uint32_t left = 1 + draw(r, 3) / 2; left > 0; left--)
        draw_projection(net, r, node);
    if (draw(r, 6) == 0) {
        net->node[node][EV_NODE_PATCHES_H] = between(r, 1, 4);
        net->node[node][EV_NODE_PATCHES_W] = between(r, 1, 4);
    }
    return node;
}

static void draw_neuron(network *net, rng *r, int32_t source)
{
    static const int32_t some[] = {1, 2, 3, 4, 4, 8, 15, 255};
    shape of = shape_of(net, source);
    int64_t scale = any_scale(r);
    int32_t node, ticks = some[draw(r, draw(r, 8) ? 7 : 8)];

    if (draw(r, 4) == 0)
        of = (shape){of.width, of.channels, of.height};
    node = add_neuron(net, r, of, source, of.channels > 20 && ticks > 15 ? 15 : ticks, scale);
    if (draw(r, 3) == 0)
        add_carry(net, r, node, EV_CARRY_SOFT + draw(r, 4), scale);
}

static void draw_pool(network *net, rng *r)
{
    int32_t from = any_emitting(net, r);
    shape of = shape_of(net, from);

    if (!has_room(net, 1))
        return;
    of.height = between(r, 1, 4);
    of.width = between(r, 1, 4);
    add_pool(net, from, draw(r, 2) ? EV_POOL_SUM : EV_POOL_MAX, of, any_window(r));
}

/* How many outputs there are at most whose windows begin before the end of the map. */
static int64_t beginning(int64_t size, int64_t pad, int64_t stride)
{
    return (size + pad - 1) / stride + 1;
}

/* A maximum of what `from` emits, whose windows all have a value inside the map. */
static int32_t draw_maximum_of(network *net, rng *r, int32_t from)
{
    window w = any_window(r);
    shape of = shape_of(net, from);

    w.pad_top = draw(r, (uint32_t)w.kernel_h);
    w.pad_left = draw(r, (uint32_t)w.kernel_w);
    of.height = 1 + draw(r, (uint32_t)beginning(of.height, w.pad_top, w.stride_h));
    of.width = 1 + draw(r, (uint32_t)beginning(of.width, w.pad_left, w.stride_w));
    return add_pool(net, from, EV_POOL_MAX, of, w);
}

/* One of potentials, or of their maxima, that neurons read through an identity. */
static void draw_maximum(network *net, rng *r)
{
    int32_t from = any_emitting(net, r), node;
    window through = {.shift = draw(r, 4)};

    through.drop = draw(r, 4);
    while (from > 0 && net->node[from][EV_NODE_KIND] != EV_ACCUMULATOR)
        from--;
    if (from == 0 || !has_room(net, 9))
        return;
    from = draw_maximum_of(net, r, from);
    if (draw(r, 3) == 0)
        from = draw_maximum_of(net, r, from);
    node = add_accumulator(net, r, shape_of(net, from), draw(r, 2) ? 0 : any_scale(r), 0);
    add_projection(net, r, from, EV_IDENTITY, through);
    for (uint32_t neurons = 1 + draw(r, 2); neurons > 0; neurons--)
        draw_neuron(net, r, node);
    add_node(net, EV_READOUT, shape_of(net, from), from);
}

/* Spikes of a layer of its own, which takes two nodes. */
static int32_t draw_train(network *net, rng *r, int32_t from, shape of, int32_t ticks)
{
    int32_t node = add_accumulator(net, r, of, 200, 0);

    add_projection(net, r, from, EV_CONV, (window){0});
    return add_neuron(net, r, of, node, ticks, 100);
}

/* A node that the naive loop is compared in: what pools, gates and the like emit is no result. */
static void draw_readout(network *net, rng *r)
{
    int32_t from = any_emitting(net, r);

    if (has_room(net, 1))
        add_node(net, EV_READOUT, shape_of(net, from), from);
}

static void draw_attention(network *net, rng *r)
{
    int32_t from = any_emitting(net, r), q, k, v, node;
    int64_t heads = between(r, 1, 3), d = between(r, 1, 6), e = between(r, 1, 20);
    shape of_q = shape_of(net, from), of_v = of_q;

    if (!has_room(net, 9))
        return;
    of_q.channels = heads * d;
    of_v.channels = heads * e;
    q = draw_train(net, r, from, of_q, draw(r, 4) ? 4 : 200);
    k = draw(r, 4) ? draw_train(net, r, from, of_q, draw(r, 4) ? 4 : 200) : q;
    v = draw_train(net, r, from, of_v, draw(r, 4) ? 4 : 200);
    node = add_attention(net, q, k, v, heads, draw(r, 2) ? EV_KV_FIRST : EV_QK_FIRST);
    node = add_accumulator(net, r, shape_of(net, node), 100, 0);
    add_projection(net, r, node - 1, EV_IDENTITY, (window){0});
    add_neuron(net, r, shape_of(net, node), node, 4, any_scale(r));
}

/* Of two trains, or one and a train of one pixel, or a gate and its own train. */
static void draw_gate(network *net, rng *r)
{
    static const int32_t some[] = {1, 1, 2, 4, 15};
    int32_t from = any_emitting(net, r), a, b, of_b = some[draw(r, 5)];
    shape of = shape_of(net, from), one = {of.channels, 1, 1};
    ev_gate_kind kind = draw(r, 2) ? EV_GATE_AND_NOT : EV_GATE_AND;

    if (!has_room(net, 7))
        return;
    a = draw_train(net, r, from, of, some[draw(r, 5)]);
    b = draw_train(net, r, from, draw(r, 2) ? of : one, of_b);
    a = draw(r, 2) ? add_gate(net, a, b, kind, of_b + (int32_t)draw(r, 2)) :
                     add_gate(net, b, a, kind, 17);
    draw_readout(net, r);
    if (draw(r, 2))
        add_gate(net, a, b, draw(r, 2) ? EV_GATE_AND_NOT : EV_GATE_AND, of_b);
    draw_readout(net, r);
}

static int is_potential(const network *net, int32_t node)
{
    while (net->node[node][EV_NODE_KIND] == EV_POOL)
        node = (int32_t)net->node[node][EV_NODE_SOURCE];
    return net->node[node][EV_NODE_KIND] == EV_ACCUMULATOR;
}

/* A chain: each adds a train, or what was there, to the one before. */
static void draw_sums(network *net, rng *r)
{
    int32_t from = any_emitting(net, r), sum, other;
    shape of = shape_of(net, from);

    if (!has_room(net, 14))
        return;
    other = draw_train(net, r, from, of, of.channels > 20 || draw(r, 4) ? 4 : 200);
    sum = is_potential(net, from) ? other : from;
    for (uint32_t left = 1 + draw(r, 4); left > 0; left--) {
        if (draw(r, 3) == 0)
            other = draw_train(net, r, from, of, of.channels > 20 || draw(r, 4) ? 4 : 200);
        sum = draw(r, 2) ? add_sum(net, sum, other) : add_sum(net, other, sum);
        if (draw(r, 4) == 0)
            other = sum;
    }
    draw_readout(net, r);
    if (draw(r, 2))
        draw_pool(net, r);
}

void network_draw(network *net, rng *r)
{
    static const int64_t payloads[] = {1, 4, 15, 255, 255, 256, 32767, 40000, INT32_MAX};

    network_start(net, between(r, 1, 3), any_shape(r), payloads[draw(r, draw(r, 4) ? 5 : 9)]);
    net->keep = draw(r, 2);
    for (uint32_t left = 1 + draw(r, 4); left > 0 && has_room(net, 3) &&
         net->data_bytes < MAX_DATA / 16; left--) {
        int32_t node = draw_accumulator(net, r);

        for (uint32_t neurons = draw(r, 5) ? 1 : draw(r, 3); neurons > 0; neurons--)
            draw_neuron(net, r, node);
        if (draw(r, 3) == 0)
            draw_pool(net, r);
        if (draw(r, 4) == 0)
            draw_attention(net, r);
        if (draw(r, 4) == 0)
            draw_gate(net, r);
        if (draw(r, 4) == 0)
            draw_sums(net, r);
        if (draw(r, 4) == 0)
            draw_maximum(net, r);
    }
    for (uint32_t left = draw(r, 3); left > 0; left--)
        draw_readout(net, r);
}
