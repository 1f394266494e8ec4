/* A readout: what a node emits, brought to whoever runs the network. */
#include "nodes/node.h"

static void read_readout(ev_record *r, ev_net *net, ev_node *node)
{
    node->source = ev_read_source(r, net, node, EV_NODE_SOURCE);
    ev_require(r, ev_elements(&net->node[node->source]) == ev_elements(node),
               "reads another number of values");
}

static int bound_readout(ev_net *net, int32_t i, ev_fault *fault)
{
    (void)net;
    (void)i;
    (void)fault;
    return EV_OK;
}

static int32_t result_of_readout(const ev_net *net, int32_t i)
{
    return net->node[i].source;
}

const ev_node_kind ev_kind_readout = {
    .read = read_readout,
    .bound = bound_readout,
    .source = ev_only_source,
    .result = result_of_readout,
    .result_bytes = 8,
};
