/* Small networks of every kind do what the naive loop does, in every instruction set and policy. */
#include <string.h>

#include "agree.h"
#include "builder.h"

typedef void fill(network *net, rng *r);

static const window three = {.kernel_h = 3, .kernel_w = 3, .pad_top = 1, .pad_left = 1};

/* A layer that reads `source`: returns its neuron. */
static int32_t layer(network *net, rng *r, int32_t source, shape of, ev_projection_kind kind,
                     window w)
{
    int32_t node = add_accumulator(net, r, of, 200, 0);

    add_projection(net, r, source, kind, w);
    return add_neuron(net, r, of, node, 4, 200);
}

static void conv(network *net, rng *r)
{
    network_start(net, 1, (shape){3, 7, 9}, 255);
    layer(net, r, 0, (shape){70, 7, 9}, EV_CONV, three);
    layer(net, r, 2, (shape){128, 3, 5}, EV_CONV,
          (window){.kernel_h = 2, .kernel_w = 1, .stride_h = 2, .stride_w = 2});
    layer(net, r, 4, (shape){10, 3, 5}, EV_CONV, (window){.bits = 16});
}

static void beyond_the_map(network *net, rng *r)
{
    network_start(net, 1, (shape){4, 2, 2}, 4);
    layer(net, r, 0, (shape){32, 9, 9}, EV_CONV,
          (window){.kernel_h = 3, .kernel_w = 3, .pad_top = 7, .pad_left = 6});
    layer(net, r, 0, (shape){32, 2, 2}, EV_CONV, (window){.pad_top = 9, .pad_left = 12});
}

static void dilated(network *net, rng *r)
{
    window w = three;

    w.dilation_h = 2;
    w.dilation_w = 3;
    network_start(net, 1, (shape){5, 6, 6}, 15);
    layer(net, r, 0, (shape){17, 5, 4}, EV_CONV, w);
}

static void depthwise(network *net, rng *r)
{
    window w = three;

    w.groups = 20;
    network_start(net, 1, (shape){20, 6, 6}, 255);
    layer(net, r, 0, (shape){20, 6, 6}, EV_CONV, w);
    w.bits = 16;
    w.stride_w = 2;
    layer(net, r, 2, (shape){20, 6, 3}, EV_CONV, w);
}

static void grouped(network *net, rng *r)
{
    window w = three;

    w.groups = 4;
    network_start(net, 1, (shape){8, 6, 6}, 15);
    layer(net, r, 0, (shape){12, 6, 6}, EV_CONV, w);
    layer(net, r, 2, (shape){24, 6, 6}, EV_CONV, (window){.groups = 12});
}

static void linear(network *net, rng *r)
{
    network_start(net, 1, (shape){5, 3, 3}, 40000);
    layer(net, r, 0, (shape){64, 1, 1}, EV_LINEAR, (window){0});
    layer(net, r, 2, (shape){33, 1, 1}, EV_LINEAR, (window){.bits = 16});
    add_node(net, EV_READOUT, (shape){33, 1, 1}, 3);
}

static void pools(network *net, rng *r)
{
    window w = {.kernel_h = 3, .kernel_w = 2, .stride_h = 2, .stride_w = 2, .pad_top = 1,
                .pad_left = 1};
    window small = three; /* sums of 32 bits, over pools of potentials, too */
    int32_t sum;

    small.bits = 3;
    network_start(net, 1, (shape){6, 7, 7}, 300);
    add_pool(net, 0, EV_POOL_MAX, (shape){6, 4, 4}, w);
    sum = add_pool(net, 1, EV_POOL_SUM, (shape){6, 3, 5}, w);
    layer(net, r, sum, (shape){6, 3, 5}, EV_CONV, small);
    add_pool(net, 4, EV_POOL_MAX, (shape){6, 2, 9}, w); /* some windows lie outside */
    add_pool(net, 3, EV_POOL_SUM, (shape){6, 2, 2}, w); /* of potentials */
    layer(net, r, 6, (shape){6, 2, 2}, EV_CONV, small);
    add_node(net, EV_READOUT, (shape){6, 2, 9}, 5);
}

static void streams(network *net, rng *r)
{
    shape of = {12, 4, 4};
    int32_t first, second;

    network_start(net, 2, of, 4);
    first = add_accumulator(net, r, of, 50, 1);
    add_projection(net, r, 0, EV_CONV, three);
    add_neuron(net, r, of, first, 4, 100);
    second = add_accumulator(net, r, of, 50, 0);
    add_projection(net, r, first, EV_IDENTITY, (window){.shift = 2});
    add_projection(net, r, 2, EV_CONV, three);
    add_projection(net, r, 0, EV_IDENTITY, (window){.shift = 5});
    add_neuron(net, r, of, second, 8, 500);
    add_neuron(net, r, of, second, 2, 500);
}

static void wide(network *net, rng *r)
{
    window w = three;
    int32_t node;

    w.bits = 16;
    w.parts = 3;
    w.shift = 8;
    network_start(net, 1, (shape){6, 5, 5}, 255);
    node = add_accumulator(net, r, (shape){20, 5, 5}, INT64_C(1) << 40, 0);
    add_projection(net, r, 0, EV_CONV, w);
    add_neuron(net, r, (shape){20, 5, 5}, node, 15, INT64_C(1) << 33);
    add_accumulator(net, r, (shape){20, 5, 5}, INT64_C(1) << 50, 1);
    add_projection(net, r, node, EV_IDENTITY, (window){.shift = 10});
    add_accumulator(net, r, (shape){20, 5, 5}, INT64_C(1) << 20, 1);
    add_projection(net, r, node, EV_IDENTITY, (window){.drop = 19});
    add_node(net, EV_READOUT, (shape){20, 5, 5}, 4);
}

/* Two parts that are not shifted do not fit one tile either. */
static void parts(network *net, rng *r)
{
    network_start(net, 1, (shape){4, 3, 3}, 4);
    layer(net, r, 0, (shape){16, 3, 3}, EV_CONV, (window){.parts = 2});
}

/* Shifted parts whose sums still fit 32 bits; a part without weights may have any shift. */
static void shifted(network *net, rng *r)
{
    int64_t *field;

    network_start(net, 1, (shape){4, 5, 5}, 4);
    layer(net, r, 0, (shape){16, 5, 5}, EV_CONV, (window){.first = 3, .parts = 2, .shift = 4});
    field = net->projection[0] + EV_PROJECTION_PART;
    layer(net, r, 2, (shape){20, 5, 5}, EV_CONV, (window){.groups = 4, .first = 7});
    memset((uint8_t *)net->data + field[2], 0, 4 * 16 * sizeof(int16_t));
    field[3] = EV_MAX_SHIFT;
}

/* The largest payload there is takes 32 bits. */
static void largest_payload(network *net, rng *r)
{
    network_start(net, 1, (shape){4, 3, 3}, INT32_MAX);
    add_accumulator(net, r, (shape){4, 3, 3}, 9, 0);
    add_projection(net, r, 0, EV_IDENTITY, (window){0});
    add_neuron(net, r, (shape){4, 3, 3}, 1, 3, INT64_C(1) << 30);
    add_pool(net, 0, EV_POOL_MAX, (shape){4, 2, 2}, (window){.kernel_h = 2, .kernel_w = 2});
    add_node(net, EV_READOUT, (shape){4, 2, 2}, 3);
}

static void carries(network *net, rng *r)
{
    shape of = {18, 3, 3};
    int32_t node;

    network_start(net, 4, of, 15);
    node = add_accumulator(net, r, of, 300, 0);
    add_projection(net, r, 0, EV_CONV, three);
    for (ev_carry carry = EV_CARRY_SOFT; carry <= EV_CARRY_RAISED; carry++) {
        add_carry(net, r, add_neuron(net, r, of, node, 4, 900), carry, 900);
        add_carry(net, r, add_neuron(net, r, (shape){3, 18, 3}, node, 9, 900), carry, 900);
    }
}

static void masked(network *net, rng *r)
{
    network_start(net, 2, (shape){4, 6, 6}, 255);
    for (int32_t i = 0; i < 2; i++) {
        int32_t node = add_accumulator(net, r, (shape){7, 3, 6}, INT64_C(1) << (i * 40), 0);

        add_projection(net, r, 0, EV_CONV, (window){.stride_h = 2});
        net->node[node][EV_NODE_PATCHES_H] = 3;
        net->node[node][EV_NODE_PATCHES_W] = 2;
        add_neuron(net, r, (shape){7, 3, 6}, node, 4, 300);
    }
}

static void reshaped(network *net, rng *r)
{
    int32_t node;

    network_start(net, 2, (shape){4, 3, 3}, 4);
    node = add_accumulator(net, r, (shape){12, 3, 4}, 90, 0);
    add_projection(net, r, 0, EV_CONV, three);
    add_neuron(net, r, (shape){3, 4, 12}, node, 4, 90);
    add_neuron(net, r, (shape){144, 1, 1}, node, 4, 90);
    layer(net, r, 2, (shape){10, 1, 1}, EV_LINEAR, (window){0});
    add_node(net, EV_READOUT, (shape){9, 4, 4}, node);
}

/* Populations q, k and v, whose products are attended to. */
static void attend(network *net, rng *r, ev_order order, int64_t heads, shape of_k, int32_t ticks)
{
    const shape of[] = {{6, 3, 5}, of_k, {18, of_k.width, of_k.height}};
    int32_t train[3], node;

    network_start(net, 2, (shape){4, 1, 1}, 255);
    for (int i = 0; i < 3; i++) {
        node = add_accumulator(net, r, of[i], 100, 1);
        add_projection(net, r, 0, EV_CONV, (window){0});
        train[i] = add_neuron(net, r, of[i], node, ticks, 200 / ticks + 1);
    }
    node = add_attention(net, train[0], train[1], train[2], heads, order);
    add_accumulator(net, r, shape_of(net, node), 9, 0);
    add_projection(net, r, node, EV_IDENTITY, (window){0});
    add_neuron(net, r, shape_of(net, node), node + 1, 4, ticks * ticks * ticks);
    add_node(net, EV_READOUT, shape_of(net, node), node + 1);
}

static void attention_kv(network *net, rng *r)
{
    attend(net, r, EV_KV_FIRST, 2, (shape){6, 3, 2}, 4);
}

static void attention_qk(network *net, rng *r)
{
    attend(net, r, EV_QK_FIRST, 2, (shape){6, 3, 2}, 4);
}

/* 6 channels times 25 positions times 255^3 exceed 32 bits. */
static void attention_wide(network *net, rng *r)
{
    attend(net, r, draw(r, 2) ? EV_KV_FIRST : EV_QK_FIRST, 1, (shape){6, 5, 5}, 255);
}

/* Products of whole trains, and of one that has a value for each channel with another. */
static void gates(network *net, rng *r)
{
    int32_t a, b, one;

    network_start(net, 2, (shape){3, 4, 5}, 255);
    a = layer(net, r, 0, (shape){35, 4, 5}, EV_CONV, three);
    b = layer(net, r, 0, (shape){35, 4, 5}, EV_CONV, three);
    one = layer(net, r, 0, (shape){35, 1, 1}, EV_LINEAR, (window){.bits = 4});
    for (ev_gate_kind kind = EV_GATE_AND; kind <= EV_GATE_AND_NOT; kind++) {
        layer(net, r, add_gate(net, a, b, kind, 4), (shape){8, 4, 5}, EV_CONV, three);
        add_node(net, EV_READOUT, (shape){35, 4, 5}, add_gate(net, one, b, kind, 4));
        add_node(net, EV_READOUT, (shape){35, 4, 5}, add_gate(net, a, one, kind, 7));
        add_node(net, EV_READOUT, (shape){35, 1, 1}, add_gate(net, one, one, kind, 4));
    }
}

/* Of bytes into bytes and words, of words, of both, of 32 and 64 bits, and of one node with itself. */
static void sums(network *net, rng *r)
{
    static const window nine = {.kernel_h = 3, .kernel_w = 3, .pad_top = 1, .pad_left = 1};
    shape of = {17, 4, 5};
    int32_t a, node, pool;

    network_start(net, 2, of, 200);
    a = layer(net, r, 0, of, EV_CONV, three);
    node = layer(net, r, add_sum(net, a, 0), of, EV_CONV, three); /* 204 */
    pool = add_pool(net, 0, EV_POOL_SUM, of, nine);               /* 1,800 */
    for (int i = 0; i < 4; i++)
        node = add_sum(net, i % 2 ? node : a, i % 2 ? 0 : node); /* up to 408 */
    layer(net, r, node, of, EV_CONV, three);
    node = add_sum(net, a, pool);
    node = add_sum(net, node, pool);
    node = add_sum(net, node, node); /* 7,208 */
    layer(net, r, node, of, EV_CONV, (window){.bits = 4, .groups = 17});
    pool = add_pool(net, node, EV_POOL_SUM, of, nine);
    node = add_sum(net, pool, node); /* beyond 16 bits */
    layer(net, r, add_sum(net, pool, pool), of, EV_CONV, (window){.bits = 3});
    for (int i = 0; i < 5; i++)
        pool = add_pool(net, i == 0 ? node : pool, EV_POOL_SUM, of, nine);
    add_sum(net, node, add_sum(net, pool, pool)); /* beyond 32 bits, and both */
    for (int32_t i = 0; i < net->nodes; i++)
        if (net->node[i][EV_NODE_KIND] == EV_SUM)
            add_node(net, EV_READOUT, of, i);
}

/* Maxima of potentials, most of them negative: of 32 and of 64 bits, and of maxima. */
static void maxima(network *net, rng *r)
{
    window w = {.kernel_h = 3, .kernel_w = 2, .stride_h = 2, .stride_w = 2, .pad_top = 2, .pad_left = 1};
    shape of = {19, 7, 7}, less = {19, 4, 4};
    int32_t node, most;

    network_start(net, 3, (shape){3, 7, 7}, 4);
    for (int32_t bits = 10; bits <= 40; bits += 30) {
        node = add_accumulator(net, r, of, 0, 0);
        add_projection(net, r, 0, EV_CONV, three);
        for (int32_t c = 0; c < 19; c++)
            net->data[net->node[node][EV_NODE_BIAS] / 8 + c] = -(INT64_C(1) << (bits + c % 3));
        most = add_pool(net, node, EV_POOL_MAX, less, w);
        add_node(net, EV_READOUT, less, most);
        add_accumulator(net, r, less, 300, 0);
        add_projection(net, r, most, EV_IDENTITY, (window){0});
        add_neuron(net, r, less, most + 2, 4, INT64_C(1) << bits);
        add_carry(net, r, add_neuron(net, r, less, most + 2, 4, 900), EV_CARRY_SOFT, 900);
        most = add_pool(net, most, EV_POOL_MAX, (shape){19, 3, 3}, w);
        add_node(net, EV_READOUT, (shape){19, 3, 3}, most);
    }
}

static void many(network *net, rng *r)
{
    network_draw(net, r);
}

static const struct {
    const char *name;
    fill *fill;
    int times, least; /* networks, and how many of them must be valid */
} cases[] = {
    {"conv", conv, 8, 8},
    {"beyond the map", beyond_the_map, 8, 8},
    {"dilated", dilated, 8, 8},
    {"depthwise", depthwise, 8, 8},
    {"grouped", grouped, 8, 8},
    {"linear", linear, 8, 8},
    {"pools", pools, 8, 8},
    {"streams", streams, 8, 8},
    {"wide", wide, 8, 8},
    {"parts", parts, 8, 8},
    {"shifted", shifted, 8, 8},
    {"largest payload", largest_payload, 8, 8},
    {"carries", carries, 8, 8},
    {"masked", masked, 8, 8},
    {"reshaped", reshaped, 8, 8},
    {"attention, kv", attention_kv, 8, 8},
    {"attention, qk", attention_qk, 8, 8},
    {"attention, wide", attention_wide, 8, 8},
    {"gates", gates, 8, 8},
    {"sums", sums, 8, 8},
    {"maxima", maxima, 8, 8},
    {"any", many, 400, 200},
};

static int one(fill *of, rng *r, int keep)
{
    network net;
    ev_fault fault = {-1, NULL};
    size_t size;
    void *bytes;
    agreement result;

    of(&net, r);
    net.keep = keep;
    bytes = network_bytes(&net, &size);
    result = agree(bytes, size, draw(r, INT32_MAX), &fault);
    free(bytes);
    CHECK(result != AGREE_WRONG);
    if (result == AGREE_REFUSED && of != many)
        fprintf(stderr, "node %d: %s\n", fault.node, fault.what);
    return result == AGREE_EQUAL;
}

int main(void)
{
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        rng r = {i};
        int run = 0;

        for (int k = 0; k < cases[i].times; k++)
            run += one(cases[i].fill, &r, k % 2);
        printf("%s: %d of %d networks run and equal\n", cases[i].name, run, cases[i].times);
        CHECK(run >= cases[i].least);
    }
    return 0;
}
