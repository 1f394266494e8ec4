/* Reading a network's bytes, which may be anybody's: every field is in range afterwards. */
#include <string.h>

#include "net.h"

enum { MAX_SIZE = 1 << 24, MAX_TIMESTEPS = 1 << 16, MAX_WINDOW = 1 << 12, MAX_COUNT = 1 << 20 };
enum { MAX_NODES = 1 << 14 }; /* planning their places takes time of its square */
#define MAX_ELEMENTS (INT64_C(1) << 31)

/* Of a padded map and of an output's window: kernels count in 32 bits, values of a row times EV_LANES,
 * weights of a window times up to 512, and padding makes four channels of one. */
enum { MAX_MAP = (1 << 29) - 1, MAX_ROW = (1 << 26) - 1, MAX_WEIGHTS = (1 << 22) - 1 };

/* The fields of a record; the first that does not hold is kept. */
typedef struct {
    const int64_t *field;
    const uint8_t *data;
    int64_t data_bytes;
    ev_fault *fault;
} record;

static int bad(ev_fault *fault, int node, const char *what)
{
    fault->node = node;
    fault->what = what;
    return EV_ERR_BAD_NETWORK;
}

static void require(record *r, int holds, const char *what)
{
    if (!holds && r->fault->what == NULL)
        r->fault->what = what;
}

static int64_t between(record *r, int field, int64_t low, int64_t high, const char *what)
{
    int64_t value = r->field[field];

    require(r, low <= value && value <= high, what);
    return low <= value && value <= high ? value : low;
}

static int32_t small(record *r, int field, int32_t low, int32_t high, const char *what)
{
    return (int32_t)between(r, field, low, high, what);
}

/* `count` values of `size` bytes in the data. */
static const void *array(record *r, int field, int64_t count, int64_t size, const char *what)
{
    int64_t offset = r->field[field];
    int fits = offset >= 0 && offset % 8 == 0 && offset <= r->data_bytes &&
               count <= (r->data_bytes - offset) / size;

    require(r, fits, what);
    return fits ? r->data + offset : NULL;
}

/* What windows of `size` outputs span; 0 if that is too much. */
static int32_t extent(int32_t size, int32_t stride, int32_t dilation, int32_t kernel)
{
    int64_t needed = (int64_t)(size - 1) * stride + (int64_t)dilation * (kernel - 1) + 1;

    return needed > MAX_SIZE ? 0 : (int32_t)needed;
}

/* -- nodes -------------------------------------------------------------------------------------- */

static void read_shape(record *r, ev_node *node)
{
    node->channels = small(r, EV_NODE_CHANNELS, 1, MAX_SIZE, "channels out of range");
    node->height = small(r, EV_NODE_HEIGHT, 1, MAX_SIZE, "height out of range");
    node->width = small(r, EV_NODE_WIDTH, 1, MAX_SIZE, "width out of range");
    if ((int64_t)node->channels * node->height < MAX_ELEMENTS && ev_elements(node) < MAX_ELEMENTS)
        return;
    require(r, 0, "shape is too large");
    node->height = node->width = 1; /* what is read next counts the elements */
}

static void check_range(record *r, const int64_t *values, int64_t count, const char *what)
{
    for (int64_t i = 0; values != NULL && i < count; i++)
        require(r, -EV_LIMIT < values[i] && values[i] < EV_LIMIT, what);
}

static void read_accumulator(record *r, const ev_net *net, ev_node *node)
{
    int64_t count;

    node->bias_is_map = small(r, EV_NODE_BIAS_IS_MAP, 0, 1, "bias is neither per channel nor a map");
    count = node->bias_is_map ? ev_elements(node) : node->channels;
    node->bias = array(r, EV_NODE_BIAS, count, 8, "bias lies outside the data");
    check_range(r, node->bias, count, "bias out of range");
    node->first = small(r, EV_NODE_FIRST, 0, net->projections, "projections out of range");
    node->count = small(r, EV_NODE_COUNT, 1, MAX_COUNT, "no projection feeds it");
    require(r, node->count <= net->projections - node->first, "projections out of range");
    node->patches_h = small(r, EV_NODE_PATCHES_H, 0, MAX_WINDOW, "patches out of range");
    node->patches_w = small(r, EV_NODE_PATCHES_W, 0, MAX_WINDOW, "patches out of range");
    require(r, (node->patches_h == 0) == (node->patches_w == 0), "patches out of range");
}

static void read_levels(record *r, ev_node *node)
{
    int64_t count = (int64_t)node->ticks * node->channels;

    node->levels = array(r, EV_NODE_LEVELS, count, 8, "levels lie outside the data");
    check_range(r, node->levels, count, "levels out of range");
    for (int64_t i = node->channels; node->levels != NULL && i < count; i++)
        require(r, node->levels[i - node->channels] <= node->levels[i], "levels decrease");
}

static void read_carry(record *r, ev_node *node)
{
    node->carry = small(r, EV_NODE_CARRY, EV_CARRY_NONE, EV_CARRY_DELAYED, "unknown carry");
    if (node->carry == EV_CARRY_NONE)
        return;
    node->decay_shift = small(r, EV_NODE_DECAY_SHIFT, 0, 24, "decay out of range");
    node->decay = between(r, EV_NODE_DECAY, 0, INT64_C(1) << node->decay_shift, "decay out of range");
    node->fraction = small(r, EV_NODE_FRACTION, 0, 61, "fraction out of range");
    node->threshold = array(r, EV_NODE_THRESHOLD, node->channels, 8, "threshold outside the data");
    check_range(r, node->threshold, node->channels, "threshold out of range");
}

static void read_neuron(record *r, ev_node *node)
{
    node->ticks = small(r, EV_NODE_TICKS, 1, EV_MAX_TICKS, "ticks out of range");
    read_levels(r, node);
    read_carry(r, node);
    node->payload = node->ticks;
}

static void read_pool(record *r, ev_node *node)
{
    node->pool = small(r, EV_NODE_POOL, EV_POOL_MAX, EV_POOL_SUM, "unknown kind of pool");
    node->kernel_h = small(r, EV_NODE_KERNEL_H, 1, MAX_WINDOW, "kernel out of range");
    node->kernel_w = small(r, EV_NODE_KERNEL_W, 1, MAX_WINDOW, "kernel out of range");
    node->stride_h = small(r, EV_NODE_STRIDE_H, 1, MAX_WINDOW, "stride out of range");
    node->stride_w = small(r, EV_NODE_STRIDE_W, 1, MAX_WINDOW, "stride out of range");
    node->pad_top = small(r, EV_NODE_PAD_TOP, 0, MAX_WINDOW, "padding out of range");
    node->pad_left = small(r, EV_NODE_PAD_LEFT, 0, MAX_WINDOW, "padding out of range");
    require(r, extent(node->height, node->stride_h, 1, node->kernel_h) > 0 &&
                   extent(node->width, node->stride_w, 1, node->kernel_w) > 0, "windows too far out");
}

/* Whether q, k and v fit each other and what the node emits. */
static void check_trains(record *r, const ev_net *net, const ev_node *node)
{
    const ev_node *q = &net->node[node->source], *k = &net->node[node->k], *v = &net->node[node->v];
    int32_t heads = node->heads;

    require(r, (k->kind == EV_NEURON || k->kind == EV_POOL) &&
                   (v->kind == EV_NEURON || v->kind == EV_POOL), "reads no spikes");
    require(r, q->channels == k->channels && node->channels == v->channels &&
                   q->channels % heads == 0 && v->channels % heads == 0,
            "heads do not divide the channels");
    require(r, node->height == q->height && node->width == q->width &&
                   (int64_t)k->height * k->width == (int64_t)v->height * v->width,
            "reads other positions");
    require(r, (int64_t)(k->channels / heads) * (v->channels / heads) < MAX_ELEMENTS,
            "heads are too large");
}

static void read_attention(record *r, const ev_net *net, ev_node *node)
{
    int32_t before = (int32_t)(node - net->node) - 1;

    node->k = small(r, EV_NODE_K, 0, before, "reads a node that does not come before");
    node->v = small(r, EV_NODE_V, 0, before, "reads a node that does not come before");
    node->heads = small(r, EV_NODE_HEADS, 1, MAX_SIZE, "heads out of range");
    node->order = small(r, EV_NODE_ORDER, EV_KV_FIRST, EV_QK_FIRST, "unknown order");
    check_trains(r, net, node);
}

static void read_kind(record *r, const ev_net *net, ev_node *node)
{
    if (node->kind == EV_SOURCE)
        node->payload = between(r, EV_NODE_PAYLOAD, 1, INT32_MAX, "payload out of range");
    else if (node->kind == EV_ACCUMULATOR)
        read_accumulator(r, net, node);
    else if (node->kind == EV_NEURON)
        read_neuron(r, node);
    else if (node->kind == EV_POOL)
        read_pool(r, node);
    else if (node->kind == EV_ATTENTION)
        read_attention(r, net, node);
}

static int reads_one(const ev_node *node)
{
    return node->kind != EV_SOURCE && node->kind != EV_ACCUMULATOR;
}

/* Whether `node` may read what comes before it. */
static void check_source(record *r, const ev_net *net, const ev_node *node)
{
    const ev_node *from = &net->node[node->source];
    int resizes = node->kind == EV_POOL || node->kind == EV_ATTENTION;
    int is_train = from->kind == EV_NEURON || from->kind == EV_POOL;

    require(r, from->kind != EV_READOUT, "a readout emits nothing");
    require(r, resizes || ev_elements(from) == ev_elements(node), "reads another number of values");
    require(r, node->kind != EV_NEURON || from->kind == EV_ACCUMULATOR, "reads no accumulator");
    require(r, node->kind != EV_ATTENTION || is_train, "reads no spikes");
    require(r, node->kind != EV_POOL || from->channels == node->channels, "pools other channels");
}

static void read_node(record *r, ev_net *net, int32_t i)
{
    ev_node *node = &net->node[i];

    node->kind = (ev_kind)small(r, EV_NODE_KIND, EV_SOURCE, EV_READOUT, "unknown kind of node");
    require(r, (i == 0) == (node->kind == EV_SOURCE), "the first node alone is the source");
    read_shape(r, node);
    if (reads_one(node)) {
        node->source = small(r, EV_NODE_SOURCE, 0, i - 1, "reads a node that does not come before");
        check_source(r, net, node);
    }
    if (r->fault->what == NULL)
        read_kind(r, net, node);
}

/* -- projections -------------------------------------------------------------------------------- */

static void read_window(record *r, ev_projection *p)
{
    p->kernel_h = small(r, EV_PROJECTION_KERNEL_H, 1, MAX_WINDOW, "kernel out of range");
    p->kernel_w = small(r, EV_PROJECTION_KERNEL_W, 1, MAX_WINDOW, "kernel out of range");
    p->stride_h = small(r, EV_PROJECTION_STRIDE_H, 1, MAX_WINDOW, "stride out of range");
    p->stride_w = small(r, EV_PROJECTION_STRIDE_W, 1, MAX_WINDOW, "stride out of range");
    p->pad_top = small(r, EV_PROJECTION_PAD_TOP, 0, MAX_WINDOW, "padding out of range");
    p->pad_left = small(r, EV_PROJECTION_PAD_LEFT, 0, MAX_WINDOW, "padding out of range");
    p->dilation_h = small(r, EV_PROJECTION_DILATION_H, 1, MAX_WINDOW, "dilation out of range");
    p->dilation_w = small(r, EV_PROJECTION_DILATION_W, 1, MAX_WINDOW, "dilation out of range");
}

/* The padded map that `to` outputs need. */
static void size_map(record *r, ev_projection *p, const ev_node *to)
{
    p->map_height = extent(to->height, p->stride_h, p->dilation_h, p->kernel_h);
    p->map_width = extent(to->width, p->stride_w, p->dilation_w, p->kernel_w);
    require(r, p->map_height > 0 && p->map_width > 0, "padded map is too large");
    require(r, p->map_width <= MAX_ROW / p->channels &&
                   (int64_t)p->map_height * p->map_width <= MAX_MAP / p->channels,
            "padded map is too large");
    require(r, p->kernel_h * p->kernel_w <= MAX_WEIGHTS / ev_rounded(p->channels, EV_GRAIN),
            "kernel is too large");
}

static void read_part(record *r, ev_projection *p, const ev_node *to, int32_t i)
{
    ev_part *part = &p->part[i];
    int field = EV_PROJECTION_PART + 2 * i;
    int64_t count = (int64_t)p->kernel_h * p->kernel_w * (p->channels / p->groups);

    part->weights = array(r, field, count * to->channels, 2, "weights lie outside the data");
    part->shift = small(r, field + 1, 0, EV_MAX_SHIFT, "shift out of range");
}

static void read_geometry(record *r, ev_projection *p, const ev_node *from, const ev_node *to)
{
    int linear = p->kind == EV_LINEAR;

    p->height = linear ? 1 : from->height;
    p->width = linear ? 1 : from->width;
    require(r, !linear || ev_elements(from) < MAX_SIZE, "too many inputs");
    p->channels = linear && ev_elements(from) < MAX_SIZE ? (int32_t)ev_elements(from)
                                                         : from->channels;
    p->groups = small(r, EV_PROJECTION_GROUPS, 1, p->channels, "groups out of range");
    require(r, p->channels % p->groups == 0 && to->channels % p->groups == 0,
            "groups do not divide the channels");
    read_window(r, p);
    size_map(r, p, to);
    require(r, !linear || ev_elements(to) == to->channels, "linear makes a map");
}

static void read_projection(record *r, ev_net *net, int32_t i, int32_t reader)
{
    ev_projection *p = &net->projection[i];
    const ev_node *from, *to = &net->node[reader];

    p->source = small(r, EV_PROJECTION_SOURCE, 0, reader - 1, "reads a node that is not before it");
    p->kind = small(r, EV_PROJECTION_KIND, EV_CONV, EV_IDENTITY, "unknown kind of projection");
    from = &net->node[p->source];
    require(r, from->kind != EV_READOUT, "a readout emits nothing");
    if (p->kind == EV_IDENTITY) {
        require(r, from->channels == to->channels && from->height == to->height &&
                       from->width == to->width, "identity changes the shape");
        p->part[0].shift = small(r, EV_PROJECTION_PART + 1, 0, EV_MAX_SHIFT, "shift out of range");
        return;
    }
    read_geometry(r, p, from, to);
    p->parts = small(r, EV_PROJECTION_PARTS, 1, EV_MAX_PARTS, "parts out of range");
    for (int32_t k = 0; k < p->parts && r->fault->what == NULL; k++)
        read_part(r, p, to, k);
}

/* -- the whole ---------------------------------------------------------------------------------- */

static int read_head(ev_net *net, const int64_t *head, size_t size, ev_fault *fault)
{
    int64_t words, data;

    if (size < EV_HEAD_WORDS * 8 || head[EV_HEAD_MAGIC] != EV_MAGIC)
        return bad(fault, -1, "not a network of this version");
    if (head[EV_HEAD_TIMESTEPS] < 1 || head[EV_HEAD_TIMESTEPS] > MAX_TIMESTEPS)
        return bad(fault, -1, "timesteps out of range");
    if (head[EV_HEAD_NODES] < 1 || head[EV_HEAD_NODES] > MAX_NODES)
        return bad(fault, -1, "number of nodes out of range");
    if (head[EV_HEAD_PROJECTIONS] < 0 || head[EV_HEAD_PROJECTIONS] > MAX_COUNT)
        return bad(fault, -1, "number of projections out of range");
    net->timesteps = (int32_t)head[EV_HEAD_TIMESTEPS];
    net->keeps_all = head[EV_HEAD_KEEP] == 1;
    net->nodes = (int32_t)head[EV_HEAD_NODES];
    net->projections = (int32_t)head[EV_HEAD_PROJECTIONS];
    words = EV_HEAD_WORDS + (int64_t)net->nodes * EV_NODE_WORDS +
            (int64_t)net->projections * EV_PROJECTION_WORDS;
    data = head[EV_HEAD_DATA_BYTES];
    if (data < 0 || words > (int64_t)(size / 8) || data != (int64_t)size - 8 * words)
        return bad(fault, -1, "its size is not what its head says");
    net->node = ev_net_alloc(net, (size_t)net->nodes * sizeof(*net->node));
    net->projection = ev_net_alloc(net, (size_t)net->projections * sizeof(*net->projection));
    return net->node == NULL || net->projection == NULL ? EV_ERR_NO_MEMORY : EV_OK;
}

int ev_net_read(ev_net *net, const void *bytes, size_t size, ev_fault *fault)
{
    const int64_t *nodes, *projections;
    record r = {.fault = fault};
    int32_t next = 0;
    int status = read_head(net, bytes, size, fault);

    if (status != EV_OK)
        return status;
    nodes = (const int64_t *)bytes + EV_HEAD_WORDS;
    projections = nodes + (size_t)net->nodes * EV_NODE_WORDS;
    r.data = (const uint8_t *)(projections + (size_t)net->projections * EV_PROJECTION_WORDS);
    r.data_bytes = ((const int64_t *)bytes)[EV_HEAD_DATA_BYTES];
    for (int32_t i = 0; i < net->nodes; i++) {
        ev_node *node = &net->node[i];

        fault->node = i;
        fault->what = NULL;
        r.field = nodes + (size_t)i * EV_NODE_WORDS;
        read_node(&r, net, i);
        require(&r, node->kind != EV_ACCUMULATOR || node->first == next, "projections out of order");
        for (; fault->what == NULL && node->kind == EV_ACCUMULATOR &&
               next < node->first + node->count; next++) {
            r.field = projections + (size_t)next * EV_PROJECTION_WORDS;
            read_projection(&r, net, next, i);
        }
        if (fault->what != NULL)
            return EV_ERR_BAD_NETWORK;
    }
    return next == net->projections ? EV_OK : bad(fault, -1, "projections that nothing reads");
}
