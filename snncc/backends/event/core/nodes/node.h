/* What a kind of node answers: all that the rest of the core knows of it, in one table for each. */
#ifndef EV_NODE_H
#define EV_NODE_H

#include "nodes/kinds.h"
#include "nodes/record.h"
#include "state.h"

/* Where NULL is said to be allowed it means that there is no such thing. */
typedef struct {
    int emits;    /* others may read it */
    int is_train; /* what it emits are spikes, as attention reads them */

    /* Fills its own fields from its record and checks them. Kind and shape are there, and right. */
    void (*read)(ev_record *r, ev_net *net, ev_node *node);
    /* Proves that no sum of node i overflows: fills payload, format and is_signed, and is_kept where
     * it has values even if nobody reads them. What it reads was bounded before. */
    int (*bound)(ev_net *net, int32_t i, ev_fault *fault);
    /* Copies what it keeps of the network's bytes, in the form that it reads; or NULL. */
    int (*prepare)(ev_net *net, ev_node *node);
    /* Index of the k-th node that it reads, negative: there are no more; or NULL. A place is used
     * again after the last node that reads it here. */
    int32_t (*source)(const ev_net *net, const ev_node *node, int32_t k);
    /* Bytes of state->scratch that it uses while it runs; or NULL. */
    size_t (*scratch)(const ev_net *net, const ev_node *node);
    /* Computes what node i emits in a timestep; or NULL. */
    void (*run)(ev_state *state, int32_t i);
    /* The node whose values are the result of node i, negative: it has none; or NULL. */
    int32_t (*result)(const ev_net *net, int32_t i);
    size_t result_bytes; /* of a value of it: 1, uint8; 8, int64 */
} ev_node_kind;

#define EV_DECLARE_KIND(NAME, name) extern const ev_node_kind ev_kind_##name;
EV_KINDS(EV_DECLARE_KIND)

const ev_node_kind *ev_kind_of(const ev_node *node);

/* Index of a node before this one which emits something; the field says which. */
int32_t ev_read_source(ev_record *r, const ev_net *net, const ev_node *node, int field);

/* The answer `source` of kinds that read one node. */
static inline int32_t ev_only_source(const ev_net *net, const ev_node *node, int32_t k)
{
    (void)net;
    return k == 0 ? node->source : -1;
}

/* The k-th node that it reads, negative: there are no more. */
static inline int32_t ev_source_of(const ev_net *net, const ev_node *node, int32_t k)
{
    const ev_node_kind *kind = ev_kind_of(node);

    return kind->source == NULL ? -1 : kind->source(net, node, k);
}

/* The node whose values are the result of node i, negative: it has none. */
static inline int32_t ev_result_of(const ev_net *net, int32_t i)
{
    const ev_node_kind *kind = ev_kind_of(&net->node[i]);

    return kind->result == NULL ? -1 : kind->result(net, i);
}

/* Bytes of one value of the result of node i, 0: it has none. */
static inline size_t ev_result_bytes(const ev_net *net, int32_t i)
{
    return ev_result_of(net, i) < 0 ? 0 : ev_kind_of(&net->node[i])->result_bytes;
}

#endif
