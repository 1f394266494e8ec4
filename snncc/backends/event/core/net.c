/* Life of a network. */
#include "net.h"

#include <stdlib.h>
#include <string.h>

#include "nodes/node.h"

/* What others read has a place of its own; neurons of an accumulator's shape fire while it runs. */
static void keep_sources(ev_net *net, const ev_node *node)
{
    int32_t from;

    for (int32_t k = 0; !node->is_fused && (from = ev_source_of(net, node, k)) >= 0; k++)
        net->node[from].is_kept = 1;
}

int ev_net_bound(ev_net *net, ev_fault *fault)
{
    int status = EV_OK;

    for (int32_t i = 0; i < net->nodes && status == EV_OK; i++) {
        status = ev_kind_of(&net->node[i])->bound(net, i, fault);
        keep_sources(net, &net->node[i]);
    }
    return status;
}

int ev_net_prepare(ev_net *net)
{
    int status = EV_OK;

    for (int32_t i = 0; i < net->nodes && status == EV_OK; i++) {
        const ev_node_kind *kind = ev_kind_of(&net->node[i]);

        if (kind->prepare != NULL)
            status = kind->prepare(net, &net->node[i]);
    }
    return status;
}

int ev_net_load(const void *bytes, size_t size, ev_net **out, ev_fault *fault)
{
    int status = EV_ERR_NO_MEMORY;
    ev_net *net = calloc(1, sizeof(*net));

    if (net == NULL)
        goto out;
    status = ev_net_read(net, bytes, size, fault);
    if (status == EV_OK)
        status = ev_net_bound(net, fault);
    if (status == EV_OK)
        status = ev_net_prepare(net);
out:
    if (status != EV_OK) {
        ev_net_free(net);
        net = NULL;
    }
    *out = net;
    return status;
}

void ev_net_free(ev_net *net)
{
    if (net == NULL)
        return;
    for (size_t i = 0; i < net->n_blocks; i++)
        free(net->blocks[i]);
    free(net->blocks);
    free(net);
}

static int grow(ev_net *net)
{
    size_t room = net->room == 0 ? 64 : 2 * net->room;
    void **blocks = realloc(net->blocks, room * sizeof(*blocks));

    if (blocks == NULL)
        return EV_ERR_NO_MEMORY;
    net->blocks = blocks;
    net->room = room;
    return EV_OK;
}

void *ev_net_alloc(ev_net *net, size_t size)
{
    size_t padded = (size + EV_SLACK + EV_ALIGN - 1) / EV_ALIGN * EV_ALIGN;
    void *block;

    if (net->n_blocks == net->room && grow(net) != EV_OK)
        return NULL;
    block = aligned_alloc(EV_ALIGN, padded);
    if (block != NULL) {
        memset(block, 0, padded);
        net->blocks[net->n_blocks++] = block;
    }
    return block;
}

void *ev_net_copied(ev_net *net, const void *from, size_t size)
{
    void *to = ev_net_alloc(net, size);

    if (to != NULL)
        memcpy(to, from, size);
    return to;
}

static int32_t clipped(int64_t value)
{
    return value > INT32_MAX ? INT32_MAX : value < INT32_MIN ? INT32_MIN : (int32_t)value;
}

int32_t *ev_net_narrowed(ev_net *net, const int64_t *from, int64_t rows, int32_t channels)
{
    int32_t lanes = ev_rounded(channels, EV_LANES);
    int32_t *to = ev_net_alloc(net, (size_t)rows * (size_t)lanes * sizeof(*to));

    for (int64_t i = 0; to != NULL && i < rows; i++)
        for (int32_t c = 0; c < channels; c++)
            to[i * lanes + c] = clipped(from[i * channels + c]);
    return to;
}
