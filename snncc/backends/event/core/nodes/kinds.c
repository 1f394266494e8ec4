/* The table of each kind, by its number. */
#include "nodes/node.h"

#define EV_TABLE_OF(NAME, name) [EV_##NAME] = &ev_kind_##name,

const ev_node_kind *ev_kind_of(const ev_node *node)
{
    static const ev_node_kind *const kinds[] = {EV_KINDS(EV_TABLE_OF)};

    return kinds[node->kind];
}
