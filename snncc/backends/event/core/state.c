#include "nodes/node.h"

#include <stdlib.h>
#include <string.h>

static size_t aligned(size_t size)
{
    return (size + EV_SLACK + EV_ALIGN - 1) / EV_ALIGN * EV_ALIGN;
}

/* Zeros that live as long as the state; NULL if there is no memory. */
static void *alloc(ev_state *state, ev_block which, size_t size)
{
    void *block = aligned_alloc(EV_ALIGN, aligned(size));

    if (block != NULL)
        memset(block, 0, aligned(size));
    state->block[which] = block;
    return block;
}

static void at_least(size_t *size, size_t needed)
{
    if (*size < needed)
        *size = needed;
}

/* -- places of values: from when a node emits to when its last reader is done ------------------- */

typedef struct {
    int32_t first, last; /* steps in which it is needed */
    size_t size;
} span;

static void extend(span *spans, int32_t node, int32_t reader)
{
    if (spans[node].last < reader)
        spans[node].last = reader;
}

static void find_spans(const ev_net *net, span *spans)
{
    for (int32_t i = 0; i < net->nodes; i++) {
        const ev_node *node = &net->node[i];
        int32_t from;

        spans[i].first = node->is_fused ? node->source : i;
        spans[i].last = i;
        if (node->is_kept)
            spans[i].size = aligned((size_t)ev_elements(node) * ev_bytes_of(node->format));
        for (int32_t k = 0; (from = ev_source_of(net, node, k)) >= 0; k++)
            extend(spans, from, i);
    }
}

static int overlap(const span *a, const span *b)
{
    return a->first <= b->last && b->first <= a->last;
}

/* The lowest place that no node placed so far needs at the same time. */
static size_t free_place(const span *spans, const size_t *place, int32_t node)
{
    size_t at = 0;
    int moved = 1;

    while (moved) {
        moved = 0;
        for (int32_t i = 0; i < node; i++)
            if (spans[i].size > 0 && overlap(&spans[i], &spans[node]) &&
                at < place[i] + spans[i].size && place[i] < at + spans[node].size) {
                at = place[i] + spans[i].size;
                moved = 1;
            }
    }
    return at;
}

/* Fills `place`, and `total` with the bytes that all places take. */
static int plan_places(const ev_net *net, size_t *place, size_t *total)
{
    span *spans = calloc((uint32_t)net->nodes, sizeof(*spans));

    if (spans == NULL)
        return EV_ERR_NO_MEMORY;
    find_spans(net, spans);
    for (int32_t i = 0; i < net->nodes; i++) {
        place[i] = free_place(spans, place, i);
        at_least(total, place[i] + spans[i].size);
    }
    free(spans);
    return EV_OK;
}

/* -- room for the maps and events of an accumulator; other nodes have no projections ------------ */

size_t ev_map_bytes(const ev_net *net, const ev_projection *p)
{
    const ev_node *from = &net->node[p->source];
    int same = p->map_height == p->height && p->map_width == p->width &&
               p->map_channels == p->channels && p->pad_top == 0 && p->pad_left == 0 &&
               p->map_format == from->format;

    if (p->kind == EV_IDENTITY || (same && p->digits.count == 1))
        return 0;
    return aligned((size_t)p->map_height * (size_t)p->map_width * (size_t)p->map_channels *
                   ev_bytes_of(p->map_format));
}

static size_t map_pixels(const ev_projection *p)
{
    return (size_t)p->map_height * (size_t)p->map_width;
}

/* Bytes of the lists: a start for each pixel, an index and a payload for each value there can be. */
static size_t list_bytes(const ev_projection *p, size_t *index_at, size_t *payload_at)
{
    size_t values = map_pixels(p) * (size_t)p->map_channels;

    if (p->kind == EV_IDENTITY || p->method != EV_BY_DENSITY || p->is_graded)
        return 0;
    *index_at = aligned((map_pixels(p) + 1) * sizeof(uint32_t));
    *payload_at = *index_at + aligned(values * sizeof(uint32_t));
    return *payload_at + aligned(values * ev_bytes_of(p->map_format));
}

/* Bytes of the blocks that a state needs. */
typedef struct {
    size_t values, maps, lists, tile, wide, membranes, scratch;
} room;

static void add_room(const ev_net *net, const ev_node *node, room *most)
{
    size_t maps = 0, lists = 0, index_at, payload_at;

    for (int32_t k = node->first; k < node->first + node->count; k++) {
        maps += ev_map_bytes(net, &net->projection[k]) *
                (size_t)net->projection[k].digits.count;
        lists += list_bytes(&net->projection[k], &index_at, &payload_at);
    }
    at_least(&most->maps, maps);
    at_least(&most->lists, lists);
    at_least(&most->tile, (size_t)node->strip * (size_t)node->lanes * sizeof(int32_t));
    at_least(&most->wide, (size_t)node->strip * (size_t)node->channels * sizeof(int64_t));
}

/* Where each projection's map and events are; those of different accumulators share the room. */
static void place_lists(ev_state *state, const ev_node *node)
{
    uint8_t *map = state->maps, *list = state->lists;

    for (int32_t k = node->first; k < node->first + node->count; k++) {
        const ev_projection *p = &state->net->projection[k];
        size_t bytes = ev_map_bytes(state->net, p) * (size_t)p->digits.count, index_at = 0, payload_at = 0;
        size_t listed = list_bytes(p, &index_at, &payload_at);

        state->map[k] = bytes > 0 ? map : ev_values(state, p->source);
        map += bytes;
        if (listed > 0)
            state->events[k] = (ev_events){
                .start = (uint32_t *)(void *)list,
                .index = (uint32_t *)(void *)(list + index_at),
                .payload = list + payload_at,
            };
        list += listed;
    }
}

static size_t membrane_bytes(const ev_node *node)
{
    return node->carry == EV_CARRY_NONE ? 0 : (size_t)ev_memory(node) * sizeof(int64_t);
}

static void add_scratch(const ev_net *net, const ev_node *node, room *most)
{
    const ev_node_kind *kind = ev_kind_of(node);

    if (kind->scratch != NULL)
        at_least(&most->scratch, kind->scratch(net, node));
}

static int plan(const ev_net *net, size_t *place, room *most)
{
    for (int32_t i = 0; i < net->nodes; i++) {
        most->membranes += membrane_bytes(&net->node[i]);
        add_room(net, &net->node[i], most);
        add_scratch(net, &net->node[i], most);
    }
    return plan_places(net, place, &most->values);
}

int ev_state_bytes(const ev_net *net, int64_t *bytes)
{
    room most = {0};
    size_t *place = calloc((uint32_t)net->nodes, sizeof(*place));
    int status = place == NULL ? EV_ERR_NO_MEMORY : plan(net, place, &most);

    free(place);
    *bytes = (int64_t)(most.values + most.maps + most.lists + 2 * most.tile + most.wide +
                       most.membranes + most.scratch);
    return status;
}

static int alloc_rooms(ev_state *state)
{
    room most = {0};
    int status = plan(state->net, state->place, &most);

    if (status != EV_OK)
        return status;
    state->values = alloc(state, EV_BLOCK_VALUES, most.values);
    state->maps = alloc(state, EV_BLOCK_MAPS, most.maps);
    state->lists = alloc(state, EV_BLOCK_LISTS, most.lists);
    state->tile = alloc(state, EV_BLOCK_TILE, most.tile);
    state->part = alloc(state, EV_BLOCK_PART, most.tile);
    state->wide = alloc(state, EV_BLOCK_WIDE, most.wide);
    state->membranes = alloc(state, EV_BLOCK_MEMBRANES, most.membranes);
    state->scratch = alloc(state, EV_BLOCK_SCRATCH, most.scratch);
    return state->values && state->maps && state->lists && state->tile && state->part &&
                   state->wide && state->membranes && state->scratch
               ? EV_OK
               : EV_ERR_NO_MEMORY;
}

/* Each accumulator's lists and each carrying neuron's membranes in their rooms. */
static void share_rooms(ev_state *state)
{
    uint8_t *membrane = state->membranes;

    for (int32_t i = 0; i < state->net->nodes; i++) {
        const ev_node *node = &state->net->node[i];

        place_lists(state, node);
        if (membrane_bytes(node) > 0)
            state->membrane[i] = (int64_t *)(void *)membrane;
        membrane += membrane_bytes(node);
    }
}

/* -- life --------------------------------------------------------------------------------------- */

static int alloc_tables(ev_state *state)
{
    size_t nodes = (size_t)state->net->nodes, projections = (size_t)state->net->projections;

    state->place = alloc(state, EV_BLOCK_PLACE, nodes * sizeof(*state->place));
    state->nonzero = alloc(state, EV_BLOCK_NONZERO, nodes * sizeof(*state->nonzero));
    state->membrane = alloc(state, EV_BLOCK_MEMBRANE, nodes * sizeof(*state->membrane));
    state->map = alloc(state, EV_BLOCK_MAP, projections * sizeof(*state->map));
    state->events = alloc(state, EV_BLOCK_EVENTS, projections * sizeof(*state->events));
    state->by_events = alloc(state, EV_BLOCK_BY_EVENTS, projections * sizeof(*state->by_events));
    state->work = alloc(state, EV_BLOCK_WORK, projections * sizeof(*state->work));
    state->cost = alloc(state, EV_BLOCK_COST, nodes * sizeof(*state->cost));
    if (!state->place || !state->nonzero || !state->membrane || !state->map || !state->events ||
        !state->by_events || !state->work || !state->cost)
        return EV_ERR_NO_MEMORY;
    return EV_OK;
}

int ev_state_new(const ev_net *net, const ev_kernels *kernels, ev_policy policy, ev_state **out)
{
    int status = EV_ERR_NO_MEMORY;
    ev_state *state = calloc(1, sizeof(*state));

    if (state == NULL)
        goto out;
    state->net = net;
    state->kernels = kernels;
    state->policy = policy;
    status = alloc_tables(state);
    if (status == EV_OK)
        status = alloc_rooms(state);
    if (status == EV_OK)
        share_rooms(state);
out:
    if (status != EV_OK) {
        ev_state_free(state);
        state = NULL;
    }
    *out = state;
    return status;
}

void ev_state_free(ev_state *state)
{
    if (state == NULL)
        return;
    for (size_t i = 0; i < EV_BLOCKS; i++)
        free(state->block[i]);
    free(state);
}
