/* Reading a network's bytes, which may be anybody's: every field is in range afterwards. */
#include "nodes/bounds.h"
#include "nodes/node.h"

enum { MAX_TIMESTEPS = 1 << 16 };
enum { MAX_NODES = 1 << 14 }; /* planning their places takes time of its square */

/* -- nodes -------------------------------------------------------------------------------------- */

static void read_shape(ev_record *r, ev_node *node)
{
    node->channels = ev_small(r, EV_NODE_CHANNELS, 1, EV_MAX_SIZE, "channels out of range");
    node->height = ev_small(r, EV_NODE_HEIGHT, 1, EV_MAX_SIZE, "height out of range");
    node->width = ev_small(r, EV_NODE_WIDTH, 1, EV_MAX_SIZE, "width out of range");
    if ((int64_t)node->channels * node->height < EV_MAX_ELEMENTS &&
        ev_elements(node) < EV_MAX_ELEMENTS)
        return;
    ev_require(r, 0, "shape is too large");
}

int32_t ev_read_source(ev_record *r, const ev_net *net, const ev_node *node, int field)
{
    int32_t before = (int32_t)(node - net->node) - 1;
    int32_t source = ev_small(r, field, 0, before, "reads a node that does not come before");

    ev_require(r, ev_kind_of(&net->node[source])->emits, "a readout emits nothing");
    return source;
}

static void read_node(ev_record *r, ev_net *net, int32_t i)
{
    ev_node *node = &net->node[i];

    node->kind = (ev_kind)ev_small(r, EV_NODE_KIND, 0, EV_KIND_COUNT - 1, "unknown kind of node");
    ev_require(r, (i == 0) == (node->kind == EV_SOURCE), "the first node alone is the source");
    read_shape(r, node);
    if (r->fault->what == NULL)
        ev_kind_of(node)->read(r, net, node);
}

/* -- the whole ---------------------------------------------------------------------------------- */

static int read_head(ev_net *net, const int64_t *head, size_t size, ev_fault *fault)
{
    int64_t words, data;

    if (size < EV_HEAD_WORDS * 8 || head[EV_HEAD_MAGIC] != EV_MAGIC)
        return ev_bad(fault, -1, "not a network of this version");
    if (head[EV_HEAD_TIMESTEPS] < 1 || head[EV_HEAD_TIMESTEPS] > MAX_TIMESTEPS)
        return ev_bad(fault, -1, "timesteps out of range");
    if (head[EV_HEAD_NODES] < 1 || head[EV_HEAD_NODES] > MAX_NODES)
        return ev_bad(fault, -1, "number of nodes out of range");
    if (head[EV_HEAD_PROJECTIONS] < 0 || head[EV_HEAD_PROJECTIONS] > EV_MAX_COUNT)
        return ev_bad(fault, -1, "number of projections out of range");
    net->timesteps = (int32_t)head[EV_HEAD_TIMESTEPS];
    net->keeps_all = head[EV_HEAD_KEEP] == 1;
    net->nodes = (int32_t)head[EV_HEAD_NODES];
    net->projections = (int32_t)head[EV_HEAD_PROJECTIONS];
    words = EV_HEAD_WORDS + (int64_t)net->nodes * EV_NODE_WORDS +
            (int64_t)net->projections * EV_PROJECTION_WORDS;
    data = head[EV_HEAD_DATA_BYTES];
    if (data < 0 || words > (int64_t)(size / 8) || data != (int64_t)size - 8 * words)
        return ev_bad(fault, -1, "its size is not what its head says");
    net->node = ev_net_alloc(net, (size_t)net->nodes * sizeof(*net->node));
    net->projection = ev_net_alloc(net, (size_t)net->projections * sizeof(*net->projection));
    return net->node == NULL || net->projection == NULL ? EV_ERR_NO_MEMORY : EV_OK;
}

int ev_net_read(ev_net *net, const void *bytes, size_t size, ev_fault *fault)
{
    const int64_t *nodes;
    ev_record r = {.fault = fault};
    int status = read_head(net, bytes, size, fault);

    if (status != EV_OK)
        return status;
    nodes = (const int64_t *)bytes + EV_HEAD_WORDS;
    r.projections = nodes + (size_t)net->nodes * EV_NODE_WORDS;
    r.data = (const uint8_t *)(r.projections + (size_t)net->projections * EV_PROJECTION_WORDS);
    r.data_bytes = ((const int64_t *)bytes)[EV_HEAD_DATA_BYTES];
    for (int32_t i = 0; i < net->nodes; i++) {
        fault->node = i;
        fault->what = NULL;
        r.field = nodes + (size_t)i * EV_NODE_WORDS;
        read_node(&r, net, i);
        if (fault->what != NULL)
            return EV_ERR_BAD_NETWORK;
    }
    return r.next == net->projections ? EV_OK : ev_bad(fault, -1, "projections that nothing reads");
}
