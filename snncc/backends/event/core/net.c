/* Life of a network. */
#include "net.h"

#include <stdlib.h>
#include <string.h>

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
