/* Accumulators: a strip of potentials at a time, in a tile that stays in the cache. */
#include <string.h>

#include "nodes/bounds.h"
#include "nodes/node.h"
#include "parts.h"
#include "projection.h"
#include "team.h"

/* -- what it is --------------------------------------------------------------------------------- */

/* Of a strip of a line: pixels, and sums in all. */
enum { STRIP_LEAST = 6, STRIP_MOST = 60, STRIP_SUMS = 1 << 15 };

static void read_accumulator(ev_record *r, ev_net *net, ev_node *node)
{
    int64_t count;

    node->bias_is_map = ev_small(r, EV_NODE_BIAS_IS_MAP, 0, 1, "bias is neither per channel nor a map");
    count = node->bias_is_map ? ev_elements(node) : node->channels;
    node->bias = ev_array(r, EV_NODE_BIAS, count, 8, "bias lies outside the data");
    ev_check_range(r, node->bias, count, "bias out of range");
    node->first = ev_small(r, EV_NODE_FIRST, 0, net->projections, "projections out of range");
    node->count = ev_small(r, EV_NODE_COUNT, 1, EV_MAX_COUNT, "no projection feeds it");
    ev_require(r, node->count <= net->projections - node->first, "projections out of range");
    node->patches_h = ev_small(r, EV_NODE_PATCHES_H, 0, EV_MAX_WINDOW, "patches out of range");
    node->patches_w = ev_small(r, EV_NODE_PATCHES_W, 0, EV_MAX_WINDOW, "patches out of range");
    ev_require(r, (node->patches_h == 0) == (node->patches_w == 0), "patches out of range");
    ev_require(r, node->first == r->next, "projections out of order");
    for (int32_t k = 0; k < node->count && r->fault->what == NULL; k++)
        ev_read_projection(r, net, node);
}

/* Rounded up. */
static int64_t divided(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

/* Where all projections are pointwise the pixels are one line. Its strips are large enough for whole
 * blocks of the dense kernels, which read the weights once a strip, and small enough for sums to stay
 * in the cache. */
static void choose_strips(ev_net *net, ev_node *node)
{
    int64_t all = (int64_t)node->height * node->width, strip = STRIP_SUMS / node->lanes;
    int is_line = node->patches_h == 0;

    for (int32_t k = node->first; k < node->first + node->count; k++)
        is_line = is_line && ev_is_pointwise(&net->projection[k]);
    for (int32_t k = node->first; is_line && k < node->first + node->count; k++)
        ev_flatten(&net->projection[k]);
    node->line = is_line ? (int32_t)all : node->width;
    strip = strip < STRIP_LEAST ? STRIP_LEAST : strip > STRIP_MOST ? STRIP_MOST : strip;
    if (!is_line)
        strip = node->width;
    strip = divided(all, divided(all, strip)); /* strips of about the same length */
    node->strip = (int32_t)strip;
    node->strips = (int32_t)divided(all, strip);
}

static int bound_accumulator(ev_net *net, int32_t i, ev_fault *fault)
{
    ev_node *node = &net->node[i];
    int64_t total = ev_largest(node->bias, node->bias_is_map ? ev_elements(node) : node->channels);

    for (int32_t k = node->first; k < node->first + node->count; k++) {
        int64_t reach = ev_bound_projection(net, &net->projection[k], node);

        if (reach < 0)
            return ev_bad(fault, i, "a sum may exceed 32 bits");
        total = ev_added(total, reach, 0);
    }
    if (total >= EV_LIMIT)
        return ev_bad(fault, i, "the potential may exceed 62 bits");
    node->is_kept = net->keeps_all;
    node->is_signed = 1;
    node->lanes = ev_rounded(node->channels, EV_LANES);
    choose_strips(net, node);
    node->payload = total;
    node->is_wide = total >= INT32_MAX;
    node->format = node->is_wide ? EV_I64 : EV_I32;
    return EV_OK;
}

static int prepare_accumulator(ev_net *net, ev_node *node)
{
    int64_t rows = node->bias_is_map ? (int64_t)node->height * node->width : 1;
    int status = EV_OK;

    if (!node->is_wide) {
        node->bias32 = ev_net_narrowed(net, node->bias, rows, node->channels);
        if (node->bias32 == NULL)
            return EV_ERR_NO_MEMORY;
    }
    node->bias = ev_net_copied(net, node->bias, (size_t)(rows * node->channels) * sizeof(*node->bias));
    if (node->bias == NULL)
        return EV_ERR_NO_MEMORY;
    for (int32_t k = node->first; k < node->first + node->count && status == EV_OK; k++)
        status = ev_pack_projection(net, &net->projection[k], node);
    return status;
}

/* The source says which patches are masked. */
static int32_t source_of(const ev_net *net, const ev_node *node, int32_t k)
{
    if (k < node->count)
        return net->projection[node->first + k].source;
    return k == node->count && node->patches_h > 0 ? 0 : -1;
}

/* -- what it does ------------------------------------------------------------------------------- */

static ev_strip strip_of(const ev_node *node, int32_t index)
{
    size_t all = (size_t)node->height * (size_t)node->width;
    size_t first = (size_t)index * (size_t)node->strip, left = all - first;

    return (ev_strip){first, left < (size_t)node->strip ? left : (size_t)node->strip};
}

/* -- in 32 bits: all projections add to one tile, which starts as the bias ---------------------- */

static void start_tile(const ev_state *state, const ev_node *node, ev_strip s)
{
    size_t lanes = (size_t)node->lanes;

    if (node->bias_is_map) {
        memcpy(state->tile, node->bias32 + s.first * lanes, s.pixels * lanes * sizeof(int32_t));
        return;
    }
    for (size_t x = 0; x < s.pixels; x++)
        memcpy(state->tile + x * lanes, node->bias32, lanes * sizeof(int32_t));
}

static void add_identity(const ev_state *state, const ev_node *node, const ev_projection *p,
                         ev_strip s)
{
    const ev_node *from = &state->net->node[p->source];
    const void *values = ev_values(state, p->source);
    size_t channels = (size_t)node->channels, lanes = (size_t)node->lanes, at = s.first * channels;
    int64_t factor = INT64_C(1) << p->part[0].shift; /* beyond 32 bits only if all values are 0 */

    for (size_t x = 0; x < s.pixels; x++, at += channels)
        if (from->format == EV_I32 && p->drop == 0)
            state->kernels->add_scaled(state->tile + x * lanes, (const int32_t *)values + at,
                                       from->payload == 0 ? 0 : (int32_t)factor, channels);
        else
            for (size_t c = 0; c < channels; c++)
                state->tile[x * lanes + c] +=
                    (int32_t)(ev_coarse(ev_value(values, from->format, at + c), p->drop) * factor);
}

/* What a part makes of a digit by itself, in state->part. */
static void fill_part(ev_state *state, const ev_node *node, int32_t k, const ev_part *part,
                      int32_t digit, ev_strip s)
{
    memset(state->part, 0, s.pixels * (size_t)node->lanes * sizeof(int32_t));
    ev_deliver(state, node, k, part, digit, s, state->part);
}

/* Whether a part makes anything of a digit; if not its shift may be beyond all bits. */
static int matters(const ev_projection *p, const ev_part *part, int32_t digit)
{
    return part->row > 0 && ev_largest_digit(p, digit) > 0;
}

static void add_part(ev_state *state, const ev_node *node, int32_t k, const ev_part *part,
                     int32_t digit, ev_strip s)
{
    const ev_projection *p = &state->net->projection[k];
    int32_t shift = part->shift + digit * p->digits.bits;
    size_t count = s.pixels * (size_t)node->lanes;

    if (!matters(p, part, digit))
        return;
    if (shift == 0) {
        ev_deliver(state, node, k, part, digit, s, state->tile);
        return;
    }
    fill_part(state, node, k, part, digit, s);
    for (size_t i = 0; i < count; i++)
        state->tile[i] += state->part[i] * (INT32_C(1) << shift);
}

static void sum_tile(ev_state *state, const ev_node *node, ev_strip s)
{
    start_tile(state, node, s);
    for (int32_t k = node->first; k < node->first + node->count; k++) {
        const ev_projection *p = &state->net->projection[k];

        if (p->kind == EV_IDENTITY)
            add_identity(state, node, p, s);
        for (int32_t i = 0; i < p->parts; i++)
            for (int32_t digit = 0; digit < p->digits.count; digit++)
                add_part(state, node, k, &p->part[i], digit, s);
    }
}

/* -- in 64 bits: each part adds to a tile of its own -------------------------------------------- */

static void start_wide(const ev_state *state, const ev_node *node, ev_strip s)
{
    size_t channels = (size_t)node->channels;

    if (node->bias_is_map) {
        memcpy(state->wide, node->bias + s.first * channels, s.pixels * channels * sizeof(int64_t));
        return;
    }
    for (size_t x = 0; x < s.pixels; x++)
        memcpy(state->wide + x * channels, node->bias, channels * sizeof(int64_t));
}

static void add_wide_identity(const ev_state *state, const ev_node *node, const ev_projection *p,
                              ev_strip s)
{
    ev_format format = state->net->node[p->source].format;
    const void *values = ev_values(state, p->source);
    size_t count = s.pixels * (size_t)node->channels, at = s.first * (size_t)node->channels;

    for (size_t i = 0; i < count; i++)
        state->wide[i] += ev_coarse(ev_value(values, format, at + i), p->drop) *
                          (INT64_C(1) << p->part[0].shift);
}

static void add_wide_part(ev_state *state, const ev_node *node, int32_t k, const ev_part *part,
                          int32_t digit, ev_strip s)
{
    const ev_projection *p = &state->net->projection[k];
    int32_t shift = part->shift + digit * p->digits.bits;
    size_t lanes = (size_t)node->lanes, channels = (size_t)node->channels;

    if (!matters(p, part, digit))
        return;
    fill_part(state, node, k, part, digit, s);
    for (size_t x = 0; x < s.pixels; x++)
        for (size_t c = 0; c < channels; c++)
            state->wide[x * channels + c] +=
                state->part[x * lanes + c] * (INT64_C(1) << shift);
}

static void sum_wide(ev_state *state, const ev_node *node, ev_strip s)
{
    start_wide(state, node, s);
    for (int32_t k = node->first; k < node->first + node->count; k++) {
        const ev_projection *p = &state->net->projection[k];

        if (p->kind == EV_IDENTITY)
            add_wide_identity(state, node, p, s);
        for (int32_t i = 0; i < p->parts; i++)
            for (int32_t digit = 0; digit < p->digits.count; digit++)
                add_wide_part(state, node, k, &p->part[i], digit, s);
    }
}

static void widen(const ev_state *state, const ev_node *node, size_t pixels)
{
    size_t lanes = (size_t)node->lanes, channels = (size_t)node->channels;

    for (size_t x = 0; x < pixels; x++)
        for (size_t c = 0; c < channels; c++)
            state->wide[x * channels + c] = state->tile[x * lanes + c];
}

/* -- strips ------------------------------------------------------------------------------------- */

/* Masked outputs are 0. The source's last channel says which patches are: not 0 in masked ones. */
static void mask_strip(const ev_state *state, const ev_node *node, ev_strip s)
{
    const ev_node *source = &state->net->node[0];
    size_t row = s.first / (size_t)node->width;
    size_t y = row * (size_t)node->patches_h / (size_t)node->height;
    size_t from_y = y * (size_t)source->height / (size_t)node->patches_h;
    size_t pixels = (size_t)source->width, channels = (size_t)source->channels;

    for (size_t x = 0; x < (size_t)node->width; x++) {
        size_t patch = x * (size_t)node->patches_w / (size_t)node->width;
        size_t from_x = patch * pixels / (size_t)node->patches_w;
        size_t at = (from_y * pixels + from_x) * channels + channels - 1;

        if (ev_value(ev_values(state, 0), source->format, at) == 0)
            continue;
        if (node->is_wide)
            memset(state->wide + x * (size_t)node->channels, 0,
                   (size_t)node->channels * sizeof(int64_t));
        else
            memset(state->tile + x * (size_t)node->lanes, 0,
                   (size_t)node->lanes * sizeof(int32_t));
    }
}

static void keep_strip(const ev_state *state, const ev_node *node, int32_t i, ev_strip s)
{
    size_t channels = (size_t)node->channels, lanes = (size_t)node->lanes;
    uint8_t *kept =
        (uint8_t *)ev_values(state, i) + s.first * channels * ev_bytes_of(node->format);

    if (node->is_wide) {
        memcpy(kept, state->wide, s.pixels * channels * sizeof(int64_t));
        return;
    }
    for (size_t x = 0; x < s.pixels; x++)
        memcpy(kept + x * channels * sizeof(int32_t), state->tile + x * lanes,
               channels * sizeof(int32_t));
}

static void fire_neurons(ev_state *state, const ev_node *node, ev_strip s)
{
    int is_widened = node->is_wide;

    for (int32_t i = node->neuron; i != 0; i = state->net->node[i].next) {
        const ev_node *neuron = &state->net->node[i];
        size_t first = s.first * (size_t)node->channels;
        uint8_t *counts = (uint8_t *)ev_values(state, i) + first;

        if (neuron->levels32 != NULL) {
            state->kernels->fire(state->tile, NULL, 0, neuron->levels32, neuron->ticks,
                                 (int32_t)s.pixels, node->channels, node->lanes, counts);
            continue;
        }
        if (!is_widened)
            widen(state, node, s.pixels);
        is_widened = 1;
        ev_fire_strip(state, i, first, s.pixels, state->wide);
    }
}

void ev_run_strips(ev_state *state, const ev_node *node, int32_t i, int32_t first, int32_t last)
{
    for (int32_t index = first; index < last; index++) {
        ev_strip s = strip_of(node, index);

        if (node->is_wide)
            sum_wide(state, node, s);
        else
            sum_tile(state, node, s);
        if (node->patches_h > 0)
            mask_strip(state, node, s);
        if (node->is_kept)
            keep_strip(state, node, i, s);
        fire_neurons(state, node, s);
    }
}

static void run_accumulator(ev_state *state, int32_t i)
{
    const ev_node *node = &state->net->node[i];

    for (int32_t k = node->first; k < node->first + node->count; k++)
        ev_prepare_projection(state, node, k);
    if (state->offer != NULL)
        ev_offer_strips(state->offer, state, node, i);
    else
        ev_run_strips(state, node, i, 0, node->strips);
}

static int32_t result_of_accumulator(const ev_net *net, int32_t i)
{
    return net->node[i].is_kept ? i : -1;
}

const ev_node_kind ev_kind_accumulator = {
    .emits = 1,
    .read = read_accumulator,
    .bound = bound_accumulator,
    .prepare = prepare_accumulator,
    .source = source_of,
    .run = run_accumulator,
    .result = result_of_accumulator,
    .result_bytes = 8,
};
