#include "builder.h"

#include <string.h>

void network_start(network *net, int64_t timesteps, shape source, int64_t payload)
{
    memset(net, 0, sizeof(*net));
    net->timesteps = timesteps;
    add_node(net, EV_SOURCE, source, 0);
    net->node[0][EV_NODE_PAYLOAD] = payload;
}

static void *space(network *net, int64_t bytes, int64_t *offset)
{
    void *at = (uint8_t *)net->data + net->data_bytes;

    *offset = net->data_bytes;
    net->data_bytes += (bytes + 7) / 8 * 8;
    CHECK(net->data_bytes <= MAX_DATA);
    return at;
}

int64_t add_integers(network *net, const int64_t *values, int64_t count)
{
    int64_t offset;
    void *at = space(net, 8 * count, &offset);

    memcpy(at, values, (size_t)count * 8);
    return offset;
}

shape shape_of(const network *net, int32_t node)
{
    const int64_t *field = net->node[node];

    return (shape){field[EV_NODE_CHANNELS], field[EV_NODE_HEIGHT], field[EV_NODE_WIDTH]};
}

static int64_t values_of(shape of)
{
    return of.channels * of.height * of.width;
}

/* -- nodes -------------------------------------------------------------------------------------- */

int32_t add_node(network *net, ev_kind kind, shape of, int32_t source)
{
    int64_t *field = net->node[net->nodes];

    CHECK(net->nodes < MAX_NODES);
    field[EV_NODE_KIND] = kind;
    field[EV_NODE_CHANNELS] = of.channels;
    field[EV_NODE_HEIGHT] = of.height;
    field[EV_NODE_WIDTH] = of.width;
    field[EV_NODE_SOURCE] = source;
    return (int32_t)net->nodes++;
}

/* Within +-range, which may be large. */
static int64_t any(rng *r, int64_t range)
{
    int64_t wide = (int64_t)draw(r, UINT32_MAX) << 31 | draw(r, INT32_MAX);

    return range == 0 ? 0 : wide % (2 * range + 1) - range;
}

int32_t add_accumulator(network *net, rng *r, shape of, int64_t bias, int is_map)
{
    int32_t node = add_node(net, EV_ACCUMULATOR, of, 0);
    int64_t count = is_map ? values_of(of) : of.channels;
    int64_t *values = space(net, 8 * count, &net->node[node][EV_NODE_BIAS]);

    for (int64_t i = 0; i < count; i++)
        values[i] = any(r, bias);
    net->node[node][EV_NODE_BIAS_IS_MAP] = is_map;
    net->node[node][EV_NODE_FIRST] = net->projections;
    return node;
}

/* Levels that rise by up to `scale` from one spike to the next. */
int32_t add_neuron(network *net, rng *r, shape of, int32_t source, int32_t ticks, int64_t scale)
{
    int32_t node = add_node(net, EV_NEURON, of, source);
    int64_t *levels = space(net, 8 * ticks * of.channels, &net->node[node][EV_NODE_LEVELS]);

    net->node[node][EV_NODE_TICKS] = ticks;
    for (int64_t i = 0; i < ticks * of.channels; i++)
        levels[i] = i < of.channels ? any(r, scale)
                                    : levels[i - of.channels] + llabs(any(r, scale));
    return node;
}

/* Decays of all channels alike, or of each. */
static void add_decay(network *net, rng *r, int64_t *field, int at, int at_shift)
{
    int64_t channels = field[EV_NODE_CHANNELS], *decay = space(net, 8 * channels, &field[at]);
    int is_own = draw(r, 2) == 1;

    field[at_shift] = between(r, 0, 8);
    for (int64_t c = 0; c < channels; c++)
        decay[c] = c == 0 || is_own ? between(r, 0, 1 << field[at_shift]) : decay[0];
}

void add_carry(network *net, rng *r, int32_t neuron, ev_carry carry, int64_t scale)
{
    int64_t *field = net->node[neuron], channels = field[EV_NODE_CHANNELS];
    int64_t *threshold = space(net, 8 * channels, &field[EV_NODE_THRESHOLD]);

    field[EV_NODE_CARRY] = carry;
    add_decay(net, r, field, EV_NODE_DECAY, EV_NODE_DECAY_SHIFT);
    field[EV_NODE_FRACTION] = between(r, 0, 12);
    if (draw(r, 2))
        add_decay(net, r, field, EV_NODE_CURRENT, EV_NODE_CURRENT_SHIFT);
    else
        memset(space(net, 8 * channels, &field[EV_NODE_CURRENT]), 0, 8 * (size_t)channels);
    for (int64_t c = 0; c < channels; c++)
        threshold[c] = any(r, scale);
}

static int64_t at_least_one(int64_t value)
{
    return value < 1 ? 1 : value;
}

int32_t add_pool(network *net, int32_t source, ev_pool_kind kind, shape of, window w)
{
    int32_t node = add_node(net, EV_POOL, of, source);
    int64_t *field = net->node[node];

    field[EV_NODE_POOL] = kind;
    field[EV_NODE_KERNEL_H] = at_least_one(w.kernel_h);
    field[EV_NODE_KERNEL_W] = at_least_one(w.kernel_w);
    field[EV_NODE_STRIDE_H] = at_least_one(w.stride_h);
    field[EV_NODE_STRIDE_W] = at_least_one(w.stride_w);
    field[EV_NODE_PAD_TOP] = w.pad_top;
    field[EV_NODE_PAD_LEFT] = w.pad_left;
    return node;
}

/* Of k the shape may differ from that of q, of v the channels. */
int32_t add_attention(network *net, int32_t q, int32_t k, int32_t v, int64_t heads, ev_order order)
{
    shape of = shape_of(net, q);
    int32_t node;

    of.channels = shape_of(net, v).channels;
    node = add_node(net, EV_ATTENTION, of, q);
    net->node[node][EV_NODE_K] = k;
    net->node[node][EV_NODE_V] = v;
    net->node[node][EV_NODE_HEADS] = heads;
    net->node[node][EV_NODE_ORDER] = order;
    return node;
}

int32_t add_gate(network *net, int32_t a, int32_t b, ev_gate_kind kind, int64_t most)
{
    shape of_a = shape_of(net, a), of_b = shape_of(net, b);
    int32_t node = add_node(net, EV_GATE, values_of(of_a) > values_of(of_b) ? of_a : of_b, a);

    net->node[node][EV_NODE_B] = b;
    net->node[node][EV_NODE_GATE] = kind;
    net->node[node][EV_NODE_PAYLOAD] = most;
    return node;
}

int32_t add_sum(network *net, int32_t a, int32_t b)
{
    int32_t node = add_node(net, EV_SUM, shape_of(net, a), a);

    net->node[node][EV_NODE_B] = b;
    return node;
}

/* -- projections -------------------------------------------------------------------------------- */

/* Some of the weights are the extremes, some zero. */
static int16_t any_weight(rng *r, int64_t bits)
{
    int32_t most = (1 << (bits - 1)) - 1;

    switch (draw(r, 8)) {
    case 0:
        return (int16_t)most;
    case 1:
        return (int16_t)-most;
    case 2:
        return 0;
    default:
        return (int16_t)between(r, -most, most);
    }
}

static void add_parts(network *net, rng *r, int64_t *field, int64_t count, window w)
{
    for (int64_t part = 0; part < at_least_one(w.parts); part++) {
        int64_t at = EV_PROJECTION_PART + 2 * part;
        int16_t *weights = space(net, 2 * count, &field[at]);

        for (int64_t i = 0; i < count; i++)
            weights[i] = any_weight(r, w.bits == 0 ? 8 : w.bits);
        field[at + 1] = w.first + part * w.shift;
    }
}

int64_t *add_projection(network *net, rng *r, int32_t source, ev_projection_kind kind, window w)
{
    int64_t *field = net->projection[net->projections], *to = net->node[net->nodes - 1];
    shape from = shape_of(net, source);
    int64_t inputs = kind == EV_LINEAR ? values_of(from) : from.channels;

    CHECK(net->projections < MAX_PROJECTIONS);
    net->projections++;
    to[EV_NODE_COUNT]++;
    field[EV_PROJECTION_SOURCE] = source;
    field[EV_PROJECTION_KIND] = kind;
    if (kind == EV_IDENTITY) {
        field[EV_PROJECTION_PART + 1] = w.shift;
        field[EV_PROJECTION_DROP] = w.drop;
        return field;
    }
    field[EV_PROJECTION_KERNEL_H] = at_least_one(w.kernel_h);
    field[EV_PROJECTION_KERNEL_W] = at_least_one(w.kernel_w);
    field[EV_PROJECTION_STRIDE_H] = at_least_one(w.stride_h);
    field[EV_PROJECTION_STRIDE_W] = at_least_one(w.stride_w);
    field[EV_PROJECTION_PAD_TOP] = w.pad_top;
    field[EV_PROJECTION_PAD_LEFT] = w.pad_left;
    field[EV_PROJECTION_DILATION_H] = at_least_one(w.dilation_h);
    field[EV_PROJECTION_DILATION_W] = at_least_one(w.dilation_w);
    field[EV_PROJECTION_GROUPS] = at_least_one(w.groups);
    field[EV_PROJECTION_PARTS] = at_least_one(w.parts);
    add_parts(net, r, field, to[EV_NODE_CHANNELS] * at_least_one(w.kernel_h) *
                                 at_least_one(w.kernel_w) * (inputs / at_least_one(w.groups)), w);
    return field;
}

/* -- bytes -------------------------------------------------------------------------------------- */

static uint8_t *put(uint8_t *at, const void *from, int64_t words)
{
    memcpy(at, from, (size_t)words * 8);
    return at + words * 8;
}

void *network_bytes(const network *net, size_t *size)
{
    int64_t head[EV_HEAD_WORDS] = {EV_MAGIC, net->timesteps, net->nodes, net->projections, net->keep,
                                   net->data_bytes};
    int64_t words = EV_HEAD_WORDS + net->nodes * EV_NODE_WORDS +
                    net->projections * EV_PROJECTION_WORDS + net->data_bytes / 8;
    uint8_t *bytes = zeros((size_t)words, 8), *at = put(bytes, head, EV_HEAD_WORDS);

    at = put(at, net->node, net->nodes * EV_NODE_WORDS);
    at = put(at, net->projection, net->projections * EV_PROJECTION_WORDS);
    put(at, net->data, net->data_bytes / 8);
    *size = (size_t)words * 8;
    return bytes;
}
