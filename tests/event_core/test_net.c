/* Networks that are not valid: each fault is found, at its node and by its name. */
#include <string.h>

#include "builder.h"

typedef enum { HEAD, NODE, PROJECTION } place;

/* A field set to a value that does not fit, and what is then said of which node. */
typedef struct {
    place in;
    int32_t record, field;
    int64_t value;
    int32_t node;
    const char *what;
} fault_case;

enum { X, V1, N1, P1, V2, N2, Y };

static void base(network *net)
{
    rng r = {3};

    network_start(net, 2, (shape){4, 6, 6}, 4);
    add_accumulator(net, &r, (shape){8, 6, 6}, 100, 0);
    add_projection(net, &r, X, EV_CONV, (window){.kernel_h = 3, .kernel_w = 3, .pad_top = 1,
                                                 .pad_left = 1});
    add_neuron(net, &r, (shape){8, 6, 6}, V1, 3, 50);
    add_pool(net, N1, EV_POOL_MAX, (shape){8, 3, 3}, (window){.kernel_h = 2, .kernel_w = 2,
                                                             .stride_h = 2, .stride_w = 2});
    add_accumulator(net, &r, (shape){8, 3, 3}, 100, 1);
    add_projection(net, &r, P1, EV_CONV, (window){.groups = 2});
    add_projection(net, &r, P1, EV_IDENTITY, (window){.shift = 3});
    add_neuron(net, &r, (shape){8, 3, 3}, V2, 2, 50);
    add_carry(net, &r, N2, EV_CARRY_SOFT, 40);
    add_node(net, EV_READOUT, (shape){8, 3, 3}, N2);
}

static const fault_case cases[] = {
    {HEAD, 0, EV_HEAD_MAGIC, 1, -1, "not a network of this version"},
    {HEAD, 0, EV_HEAD_TIMESTEPS, 0, -1, "timesteps out of range"},
    {HEAD, 0, EV_HEAD_TIMESTEPS, INT64_C(1) << 32, -1, "timesteps out of range"},
    {HEAD, 0, EV_HEAD_NODES, 0, -1, "number of nodes out of range"},
    {HEAD, 0, EV_HEAD_NODES, INT64_MAX, -1, "number of nodes out of range"},
    {HEAD, 0, EV_HEAD_PROJECTIONS, -1, -1, "number of projections out of range"},
    {HEAD, 0, EV_HEAD_NODES, 8, -1, "its size is not what its head says"},
    {HEAD, 0, EV_HEAD_DATA_BYTES, 8, -1, "its size is not what its head says"},

    {NODE, N1, EV_NODE_KIND, EV_KIND_COUNT, N1, "unknown kind of node"},
    {NODE, X, EV_NODE_KIND, EV_ACCUMULATOR, X, "the first node alone is the source"},
    {NODE, N1, EV_NODE_KIND, EV_SOURCE, N1, "the first node alone is the source"},
    {NODE, X, EV_NODE_CHANNELS, 0, X, "channels out of range"},
    {NODE, X, EV_NODE_HEIGHT, (1 << 24) + 1, X, "height out of range"},
    {NODE, X, EV_NODE_WIDTH, INT64_MIN, X, "width out of range"},
    {NODE, X, EV_NODE_HEIGHT, 1 << 24, -1, NULL}, /* large, but it fits */
    {NODE, V1, EV_NODE_WIDTH, 1 << 24, V1, "padded map is too large"},
    {NODE, X, EV_NODE_PAYLOAD, 0, X, "payload out of range"},
    {NODE, X, EV_NODE_PAYLOAD, INT64_C(1) << 31, X, "payload out of range"},

    {NODE, V1, EV_NODE_BIAS_IS_MAP, 2, V1, "bias is neither per channel nor a map"},
    {NODE, V1, EV_NODE_BIAS, -8, V1, "bias lies outside the data"},
    {NODE, V1, EV_NODE_BIAS, 4, V1, "bias lies outside the data"},
    {NODE, V1, EV_NODE_BIAS, INT64_MAX - 7, V1, "bias lies outside the data"},
    {NODE, V1, EV_NODE_FIRST, 1, V1, "projections out of order"},
    {NODE, V1, EV_NODE_FIRST, 4, V1, "projections out of range"},
    {NODE, V1, EV_NODE_COUNT, 0, V1, "no projection feeds it"},
    {NODE, V1, EV_NODE_COUNT, 4, V1, "projections out of range"},
    {NODE, V2, EV_NODE_COUNT, 1, -1, "projections that nothing reads"},
    {NODE, V1, EV_NODE_PATCHES_H, 2, V1, "patches out of range"},
    {NODE, V1, EV_NODE_PATCHES_W, 4097, V1, "patches out of range"},

    {NODE, N1, EV_NODE_SOURCE, N1, N1, "reads a node that does not come before"},
    {NODE, N1, EV_NODE_SOURCE, -1, N1, "reads a node that does not come before"},
    {NODE, N1, EV_NODE_SOURCE, X, N1, "reads another number of values"},
    {NODE, N1, EV_NODE_CHANNELS, 4, N1, "reads another number of values"},
    {NODE, N2, EV_NODE_SOURCE, P1, N2, "reads no accumulator"},
    {NODE, P1, EV_NODE_CHANNELS, 4, P1, "pools other channels"},
    {NODE, N1, EV_NODE_TICKS, 0, N1, "ticks out of range"},
    {NODE, N1, EV_NODE_TICKS, 256, N1, "ticks out of range"},
    {NODE, N1, EV_NODE_LEVELS, INT64_C(1) << 40, N1, "levels lie outside the data"},
    {NODE, N2, EV_NODE_CARRY, 5, N2, "unknown carry"},
    {NODE, N2, EV_NODE_CURRENT_SHIFT, 25, N2, "current out of range"},
    {NODE, N2, EV_NODE_CURRENT, -8, N2, "current out of range"},
    {NODE, N2, EV_NODE_DECAY_SHIFT, 25, N2, "decay out of range"},
    {NODE, N2, EV_NODE_DECAY, INT64_C(1) << 40, N2, "decay out of range"},
    {NODE, N2, EV_NODE_FRACTION, 62, N2, "fraction out of range"},
    {NODE, N2, EV_NODE_FRACTION, 61, N2, "the membrane may exceed 62 bits"},
    {NODE, N2, EV_NODE_THRESHOLD, -8, N2, "threshold outside the data"},
    {NODE, P1, EV_NODE_POOL, 2, P1, "unknown kind of pool"},
    {NODE, P1, EV_NODE_KERNEL_H, 0, P1, "kernel out of range"},
    {NODE, P1, EV_NODE_KERNEL_W, 4097, P1, "kernel out of range"},
    {NODE, P1, EV_NODE_STRIDE_H, 0, P1, "stride out of range"},
    {NODE, P1, EV_NODE_STRIDE_W, -1, P1, "stride out of range"},
    {NODE, P1, EV_NODE_PAD_TOP, -1, P1, "padding out of range"},
    {NODE, P1, EV_NODE_PAD_LEFT, 4097, P1, "padding out of range"},
    {NODE, P1, EV_NODE_SOURCE, V1, -1, NULL}, /* a maximum of potentials */

    {PROJECTION, 0, EV_PROJECTION_SOURCE, V1, V1, "reads a node that is not before it"},
    {PROJECTION, 0, EV_PROJECTION_KIND, 3, V1, "unknown kind of projection"},
    {PROJECTION, 0, EV_PROJECTION_KIND, EV_IDENTITY, V1, "identity changes the shape"},
    {PROJECTION, 0, EV_PROJECTION_KIND, EV_LINEAR, V1, "linear makes a map"},
    {PROJECTION, 0, EV_PROJECTION_KERNEL_H, 0, V1, "kernel out of range"},
    {PROJECTION, 0, EV_PROJECTION_STRIDE_W, 0, V1, "stride out of range"},
    {PROJECTION, 0, EV_PROJECTION_PAD_TOP, -1, V1, "padding out of range"},
    {PROJECTION, 0, EV_PROJECTION_DILATION_H, 4097, V1, "dilation out of range"},
    {PROJECTION, 0, EV_PROJECTION_GROUPS, 0, V1, "groups out of range"},
    {PROJECTION, 0, EV_PROJECTION_GROUPS, 5, V1, "groups out of range"},
    {PROJECTION, 0, EV_PROJECTION_GROUPS, 3, V1, "groups do not divide the channels"},
    {PROJECTION, 0, EV_PROJECTION_PARTS, 0, V1, "parts out of range"},
    {PROJECTION, 0, EV_PROJECTION_PARTS, 4, V1, "parts out of range"},
    {PROJECTION, 0, EV_PROJECTION_PART, 1 << 20, V1, "weights lie outside the data"},
    {PROJECTION, 0, EV_PROJECTION_PART + 1, 62, V1, "shift out of range"},
    {PROJECTION, 2, EV_PROJECTION_PART + 1, -1, V2, "shift out of range"},
    {PROJECTION, 2, EV_PROJECTION_DROP, -1, V2, "drop out of range"},
    {PROJECTION, 2, EV_PROJECTION_DROP, 62, V2, "drop out of range"},
};

static void set(int64_t *bytes, const fault_case *c)
{
    int64_t *nodes = bytes + EV_HEAD_WORDS;

    if (c->in == HEAD)
        bytes[c->field] = c->value;
    else if (c->in == NODE)
        nodes[c->record * EV_NODE_WORDS + c->field] = c->value;
    else
        nodes[bytes[EV_HEAD_NODES] * EV_NODE_WORDS + c->record * EV_PROJECTION_WORDS + c->field] =
            c->value;
}

static void expect(const void *bytes, size_t size, int32_t node, const char *what)
{
    ev_fault fault = {-1, NULL};
    ev_net *net = NULL;
    int status = ev_net_load(bytes, size, &net, &fault);

    if (what == NULL) {
        CHECK(status == EV_OK && net != NULL);
    } else {
        if (status != EV_ERR_BAD_NETWORK || strcmp(fault.what, what) != 0 || fault.node != node)
            fprintf(stderr, "node %d, %s, instead of node %d, %s\n", fault.node,
                    fault.what ? fault.what : "no fault", node, what);
        CHECK(status == EV_ERR_BAD_NETWORK && net == NULL);
        CHECK(strcmp(fault.what, what) == 0 && fault.node == node);
    }
    ev_net_free(net);
}

/* Each field by itself, in a network that is valid without. */
static void expect_faults(const network *net, const fault_case *faults, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        size_t size;
        int64_t *bytes = network_bytes(net, &size);

        expect(bytes, size, -1, NULL);
        set(bytes, &faults[i]);
        expect(bytes, size, faults[i].node, faults[i].what);
        free(bytes);
    }
}

static void test_fields(void)
{
    network net;

    base(&net);
    expect_faults(&net, cases, sizeof(cases) / sizeof(*cases));
}

/* No prefix is a network, and nothing is read after it. */
static void test_prefixes(void)
{
    network net;
    size_t size;
    void *bytes;

    base(&net);
    bytes = network_bytes(&net, &size);
    for (size_t length = 0; length < size; length++) {
        void *prefix = zeros(length, 1);

        memcpy(prefix, bytes, length);
        expect(prefix, length, -1, length < 48 ? "not a network of this version"
                                               : "its size is not what its head says");
        free(prefix);
    }
    free(bytes);
}

static void expect_of(const network *net, int32_t node, const char *what)
{
    size_t size;
    void *bytes = network_bytes(net, &size);

    expect(bytes, size, node, what);
    free(bytes);
}

static int64_t *data_of(network *net, int32_t node, int field)
{
    return net->data + net->node[node][field] / 8;
}

static void test_data(void)
{
    network net;

    base(&net);
    *data_of(&net, V1, EV_NODE_BIAS) = EV_LIMIT;
    expect_of(&net, V1, "bias out of range");
    *data_of(&net, V1, EV_NODE_BIAS) = EV_LIMIT - 1;
    expect_of(&net, V1, "the potential may exceed 62 bits");
    base(&net);
    *data_of(&net, N1, EV_NODE_LEVELS) = -EV_LIMIT;
    expect_of(&net, N1, "levels out of range");
    *data_of(&net, N1, EV_NODE_LEVELS) = EV_LIMIT - 1;
    expect_of(&net, N1, "levels decrease");
    base(&net);
    *data_of(&net, N2, EV_NODE_THRESHOLD) = INT64_MIN;
    expect_of(&net, N2, "threshold out of range");
    *data_of(&net, N2, EV_NODE_THRESHOLD) = EV_LIMIT / 2;
    expect_of(&net, N2, "the membrane may exceed 62 bits");
    base(&net);
    data_of(&net, N2, EV_NODE_DECAY)[7] = -1;
    expect_of(&net, N2, "decay out of range");
    data_of(&net, N2, EV_NODE_DECAY)[7] = 257;
    expect_of(&net, N2, "decay out of range");
    base(&net);
    data_of(&net, N2, EV_NODE_CURRENT)[7] = 257;
    expect_of(&net, N2, "current out of range");
}

/* How many digits the only projection reads: the largest value is that of all digits together, and no
 * product of one with the only weight exceeds 32 bits. */
static void expect_digits(network *of, int64_t payload, int64_t weight, int32_t count)
{
    size_t size;
    int64_t *bytes = network_bytes(of, &size);
    ev_fault fault = {-1, NULL};
    ev_net *net = NULL;

    CHECK(ev_net_load(bytes, size, &net, &fault) == EV_OK);
    const ev_digits *digits = &net->projection[0].digits;
    int64_t largest = digits->top << digits->bits * (count - 1);

    CHECK(digits->count == count);
    for (int32_t digit = 0; digit < count - 1; digit++)
        largest += (digits->low - 1) << digits->bits * digit;
    CHECK(largest >= payload && digits->most >= payload);
    CHECK(digits->top * weight < INT32_MAX && digits->low * weight < INT32_MAX);
    CHECK(digits->top <= INT16_MAX && digits->low <= INT16_MAX);
    ev_net_free(net);
    free(bytes);
}

/* Sums that may overflow are taken in digits; potentials that may are refused. */
static void test_bounds(void)
{
    static const struct {
        int64_t payload;
        int16_t weight;
        int32_t digits;
    } sums[] = {
        {INT16_MAX, 127, 1},   {INT16_MAX + 1, 127, 2},     {INT32_MAX, 127, 3},
        {INT16_MAX, 32767, 1}, {INT32_MAX, INT16_MIN, 3},   {INT32_MAX, 0, 3},
    };
    network net;
    int16_t *weight;

    for (size_t i = 0; i < sizeof sums / sizeof *sums; i++) {
        rng r = {1};

        network_start(&net, 1, (shape){1, 1, 1}, sums[i].payload);
        add_accumulator(&net, &r, (shape){1, 1, 1}, 0, 0);
        weight = (int16_t *)(void *)((uint8_t *)net.data + net.data_bytes);
        add_projection(&net, &r, X, EV_CONV, (window){0});
        *weight = sums[i].weight;
        expect_of(&net, V1, NULL);
        expect_digits(&net, sums[i].payload, labs(sums[i].weight), sums[i].digits);
    }
    network_start(&net, 1, (shape){1, 1, 1}, INT32_MAX);
    for (int32_t node = 0; node < 3; node++)
        add_pool(&net, node, EV_POOL_SUM, (shape){1, 1, 1}, (window){.kernel_h = 64,
                                                                     .kernel_w = 64});
    expect_of(&net, 3, "the sum may exceed 62 bits");
}

/* Windows whose maps, or distances in them, exceed what the kernels count in. */
static void test_sizes(void)
{
    rng r = {1};
    network net;

    network_start(&net, 1, (shape){1 << 16, 1, 1}, 1); /* 2^24 * 2^24 * 2^16 values */
    add_accumulator(&net, &r, (shape){1, 4096, 4096}, 0, 0);
    add_projection(&net, &r, X, EV_CONV, (window){.stride_h = 4096, .stride_w = 4096});
    expect_of(&net, V1, "padded map is too large");
    network_start(&net, 1, (shape){64, 1, 1}, 1);
    add_accumulator(&net, &r, (shape){1, 1, 512}, 0, 0);
    add_projection(&net, &r, X, EV_CONV, (window){.stride_w = 4096});
    expect_of(&net, V1, "padded map is too large");
    network_start(&net, 1, (shape){1, 1, 1}, 1);
    add_accumulator(&net, &r, (shape){1, 1, 1}, 0, 0);
    add_projection(&net, &r, X, EV_CONV, (window){0});
    net.projection[0][EV_PROJECTION_KERNEL_H] = 1024;
    net.projection[0][EV_PROJECTION_KERNEL_W] = 1024;
    expect_of(&net, V1, "kernel is too large");
    net.projection[0][EV_PROJECTION_KERNEL_W] = 4096;
    net.projection[0][EV_PROJECTION_STRIDE_H] = 4096;
    net.projection[0][EV_PROJECTION_DILATION_W] = 4096;
    expect_of(&net, V1, "padded map is too large");
    network_start(&net, 1, (shape){1, 1, 1}, 1);
    add_pool(&net, X, EV_POOL_MAX, (shape){1, 4098, 1}, (window){.stride_h = 4096});
    expect_of(&net, 1, "windows too far out");
    network_start(&net, 1, (shape){1 << 12, 1 << 12, 1}, 1);
    add_accumulator(&net, &r, (shape){1, 1, 1}, 0, 0);
    add_projection(&net, &r, X, EV_CONV, (window){0});
    net.projection[0][EV_PROJECTION_KIND] = EV_LINEAR;
    expect_of(&net, V1, "too many inputs");
    network_start(&net, 1, (shape){1 << 10, 1 << 10, 1 << 11}, 1);
    expect_of(&net, X, "shape is too large");
    network_start(&net, 1, (shape){1 << 24, 1 << 24, 1 << 24}, 1);
    expect_of(&net, X, "shape is too large");
    base(&net); /* its values are compared with those it reads */
    for (int field = EV_NODE_CHANNELS; field <= EV_NODE_WIDTH; field++)
        net.node[N1][field] = 1 << 24;
    expect_of(&net, N1, "shape is too large");
}

/* q, k and v of 6, 6 and 10 channels at 4 positions, and 2 heads of them. */
static void attend(network *net)
{
    const shape of[] = {{6, 2, 2}, {6, 2, 2}, {10, 4, 1}};
    rng r = {1};

    network_start(net, 1, (shape){3, 1, 1}, 4);
    for (int32_t i = 0; i < 3; i++) {
        add_accumulator(net, &r, of[i], 10, 0);
        add_projection(net, &r, X, EV_CONV, (window){0});
        add_neuron(net, &r, of[i], 2 * i + 1, 4, 9);
    }
    add_attention(net, 2, 4, 6, 2, EV_KV_FIRST);
}

static void test_attention(void)
{
    static const fault_case faults[] = {
        {NODE, 7, EV_NODE_SOURCE, 1, 7, "reads no spikes"},
        {NODE, 7, EV_NODE_SOURCE, 7, 7, "reads a node that does not come before"},
        {NODE, 7, EV_NODE_K, 3, 7, "reads no spikes"},
        {NODE, 7, EV_NODE_K, 7, 7, "reads a node that does not come before"},
        {NODE, 7, EV_NODE_V, 0, 7, "reads no spikes"},
        {NODE, 7, EV_NODE_V, -1, 7, "reads a node that does not come before"},
        {NODE, 7, EV_NODE_K, 6, 7, "heads do not divide the channels"},
        {NODE, 7, EV_NODE_HEADS, 0, 7, "heads out of range"},
        {NODE, 7, EV_NODE_HEADS, 3, 7, "heads do not divide the channels"},
        {NODE, 7, EV_NODE_CHANNELS, 6, 7, "heads do not divide the channels"},
        {NODE, 7, EV_NODE_HEIGHT, 1, 7, "reads other positions"},
        {NODE, 7, EV_NODE_ORDER, 2, 7, "unknown order"},
    };
    network net;

    attend(&net);
    expect_faults(&net, faults, sizeof(faults) / sizeof(*faults));
}

/* Counts of a byte times so many positions or channels. */
static void test_products(void)
{
    network net;
    rng r = {1};
    shape of = {1, 1 << 12, 9};

    network_start(&net, 1, (shape){1, 1, 1}, 4);
    add_accumulator(&net, &r, of, 0, 0);
    add_projection(&net, &r, X, EV_CONV, (window){0});
    add_neuron(&net, &r, of, V1, 255, 1);
    add_attention(&net, N1, N1, N1, 1, EV_QK_FIRST);
    expect_of(&net, 3, NULL);
    net.node[3][EV_NODE_ORDER] = EV_KV_FIRST; /* 36,864 * 255^2 > 2^31 */
    expect_of(&net, 3, "the first product may exceed 32 bits");
    net.node[3][EV_NODE_KIND] = EV_POOL;
    net.node[3][EV_NODE_POOL] = EV_POOL_SUM;
    net.node[3][EV_NODE_KERNEL_H] = net.node[3][EV_NODE_KERNEL_W] = 2;
    net.node[3][EV_NODE_STRIDE_H] = net.node[3][EV_NODE_STRIDE_W] = 1;
    add_attention(&net, 3, N1, N1, 1, EV_QK_FIRST);
    expect_of(&net, 4, "reads counts beyond a byte");
}

/* Trains of 4 and 3 spikes, and of 2 for each channel. */
static void gate(network *net)
{
    const shape of[] = {{6, 2, 2}, {6, 2, 2}, {6, 1, 1}};
    rng r = {1};

    network_start(net, 1, (shape){3, 1, 1}, 4);
    for (int32_t i = 0; i < 3; i++) {
        add_accumulator(net, &r, of[i], 10, 0);
        add_projection(net, &r, X, EV_CONV, (window){0});
        add_neuron(net, &r, of[i], 2 * i + 1, 4 - i, 9);
    }
    add_gate(net, 2, 4, EV_GATE_AND_NOT, 3);
    add_gate(net, 2, 6, EV_GATE_AND, 2);
    add_gate(net, 6, 2, EV_GATE_AND, 4);
}

static void test_gates(void)
{
    static const fault_case faults[] = {
        {NODE, 7, EV_NODE_SOURCE, 3, 7, "reads no spikes"},
        {NODE, 7, EV_NODE_SOURCE, 7, 7, "reads a node that does not come before"},
        {NODE, 7, EV_NODE_B, 0, 7, "reads no spikes"},
        {NODE, 7, EV_NODE_B, 8, 7, "reads a node that does not come before"},
        {NODE, 7, EV_NODE_GATE, 2, 7, "unknown kind of gate"},
        {NODE, 7, EV_NODE_GATE, -1, 7, "unknown kind of gate"},
        {NODE, 7, EV_NODE_PAYLOAD, 256, 7, "payload out of range"},
        {NODE, 7, EV_NODE_PAYLOAD, -1, 7, "payload out of range"},
        {NODE, 7, EV_NODE_PAYLOAD, 2, 7, "its silence may be less than none"},
        {NODE, 7, EV_NODE_PAYLOAD, 64, 7, "a product may exceed a byte"},
        {NODE, 7, EV_NODE_PAYLOAD, 63, -1, NULL},
        {NODE, 8, EV_NODE_PAYLOAD, 0, -1, NULL}, /* of an AND it is not read */
        {NODE, 8, EV_NODE_CHANNELS, 3, 8, "reads other shapes"},
        {NODE, 8, EV_NODE_SOURCE, 6, 8, "reads other shapes"}, /* both of one pixel */
        {NODE, 8, EV_NODE_HEIGHT, 4, 8, "reads other shapes"},
        {NODE, 9, EV_NODE_WIDTH, 1, 9, "reads other shapes"},
    };
    network net;
    window two = {.kernel_h = 2, .kernel_w = 2};

    gate(&net);
    expect_faults(&net, faults, sizeof(faults) / sizeof(*faults));
    add_pool(&net, 7, EV_POOL_SUM, (shape){6, 2, 2}, two); /* 4 * 12 */
    add_gate(&net, 10, 2, EV_GATE_AND, 4);
    expect_of(&net, 11, NULL);
    add_gate(&net, 10, 11, EV_GATE_AND, 4);
    expect_of(&net, 12, "a product may exceed a byte");
    net.node[12][EV_NODE_GATE] = EV_GATE_AND_NOT;
    expect_of(&net, 12, "its silence may be less than none");
    net.nodes = 11;
    add_pool(&net, 10, EV_POOL_SUM, (shape){6, 2, 2}, two); /* 16 * 12 */
    add_pool(&net, 11, EV_POOL_SUM, (shape){6, 2, 2}, two);
    add_gate(&net, 12, 2, EV_GATE_AND, 4);
    expect_of(&net, 13, "reads counts beyond a byte");
}

static void test_sums(void)
{
    static const fault_case faults[] = {
        {NODE, 4, EV_NODE_SOURCE, 4, 4, "reads a node that does not come before"},
        {NODE, 4, EV_NODE_B, -1, 4, "reads a node that does not come before"},
        {NODE, 4, EV_NODE_B, 1, 4, "a sum of potentials, which accumulators take"},
        {NODE, 4, EV_NODE_SOURCE, 1, 4, "a sum of potentials, which accumulators take"},
        {NODE, 4, EV_NODE_B, 3, 4, "a sum of potentials, which accumulators take"},
        {NODE, 4, EV_NODE_CHANNELS, 5, 4, "reads other shapes"},
        {NODE, 4, EV_NODE_HEIGHT, 3, 4, "reads other shapes"},
        {NODE, 4, EV_NODE_WIDTH, 2, 4, "reads other shapes"},
        {NODE, 4, EV_NODE_GATE, 9, -1, NULL}, /* not read */
    };
    shape of = {4, 1, 1};
    rng r = {1};
    network net;

    network_start(&net, 1, of, INT32_MAX);
    add_accumulator(&net, &r, of, 10, 0);
    add_projection(&net, &r, X, EV_IDENTITY, (window){0});
    add_neuron(&net, &r, of, V1, 4, 9);
    add_pool(&net, V1, EV_POOL_SUM, of, (window){0});
    add_sum(&net, 2, X);
    expect_faults(&net, faults, sizeof(faults) / sizeof(*faults));
    for (int32_t left = 30; left > 0; left--)
        add_sum(&net, (int32_t)net.nodes - 1, (int32_t)net.nodes - 1);
    expect_of(&net, -1, NULL); /* (2^31 + 3) * 2^30 */
    add_sum(&net, (int32_t)net.nodes - 1, (int32_t)net.nodes - 1);
    expect_of(&net, (int32_t)net.nodes - 1, "the sum may exceed 62 bits");
}

/* A maximum of potentials has one inside each of its windows; spikes beyond the map are none. */
static void test_maxima(void)
{
    static const fault_case faults[] = {
        {NODE, 2, EV_NODE_PAD_TOP, 2, 2, "the maximum of no potential"},
        {NODE, 2, EV_NODE_PAD_LEFT, 3, 2, "the maximum of no potential"},
        {NODE, 2, EV_NODE_HEIGHT, 5, 2, "the maximum of no potential"},
        {NODE, 2, EV_NODE_WIDTH, 5, 2, "the maximum of no potential"},
        {NODE, 2, EV_NODE_STRIDE_W, 4096, 2, "the maximum of no potential"},
        {NODE, 2, EV_NODE_SOURCE, X, -1, NULL},
        {NODE, 2, EV_NODE_POOL, EV_POOL_SUM, -1, NULL},
        {NODE, 3, EV_NODE_PAD_TOP, 1, 3, "the maximum of no potential"},
    };
    shape of = {4, 6, 6};
    rng r = {1};
    network net;

    network_start(&net, 1, of, 4);
    add_accumulator(&net, &r, of, 10, 0);
    add_projection(&net, &r, X, EV_CONV, (window){0});
    add_pool(&net, V1, EV_POOL_MAX, (shape){4, 4, 4},
             (window){.kernel_h = 2, .kernel_w = 2, .stride_h = 2, .stride_w = 2, .pad_top = 1,
                      .pad_left = 1});
    add_pool(&net, 2, EV_POOL_MAX, (shape){4, 2, 2}, (window){0});
    expect_faults(&net, faults, sizeof(faults) / sizeof(*faults));
}

static void test_readout(void)
{
    network net;

    base(&net);
    add_node(&net, EV_READOUT, (shape){8, 3, 3}, Y);
    expect_of(&net, Y + 1, "a readout emits nothing");
}

static void test_messages(void)
{
    CHECK(strcmp(ev_strerror(EV_ERR_NO_MEMORY), "out of memory (EV_ERR_NO_MEMORY)") == 0);
    for (int status = EV_OK; status >= EV_ERR_NO_THREAD; status--)
        CHECK(strstr(ev_strerror(status), "(EV_") != NULL);
}

int main(void)
{
    test_fields();
    test_prefixes();
    test_data();
    test_bounds();
    test_sizes();
    test_attention();
    test_products();
    test_gates();
    test_sums();
    test_maxima();
    test_readout();
    test_messages();
    return 0;
}
