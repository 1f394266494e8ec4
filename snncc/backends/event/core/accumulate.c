/* Accumulators: a strip of potentials at a time, in a tile that stays in the cache. */
#include <string.h>

#include "parts.h"
#include "team.h"

/* Pixels next to each other: a row, or where rows do not matter about as many as the cache likes. */
typedef struct {
    size_t first, pixels;
} strip;

static strip strip_of(const ev_node *node, int32_t index)
{
    size_t all = (size_t)node->height * (size_t)node->width;
    size_t first = (size_t)index * (size_t)node->strip, left = all - first;

    return (strip){first, left < (size_t)node->strip ? left : (size_t)node->strip};
}

/* -- in 32 bits: all projections add to one tile, which starts as the bias ---------------------- */

static void start_tile(const ev_state *state, const ev_node *node, strip s)
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
                         strip s)
{
    const ev_node *from = &state->net->node[p->source];
    const void *values = ev_values(state, p->source);
    size_t channels = (size_t)node->channels, lanes = (size_t)node->lanes, at = s.first * channels;
    int64_t factor = INT64_C(1) << p->part[0].shift; /* beyond 32 bits only if all values are 0 */

    for (size_t x = 0; x < s.pixels; x++, at += channels)
        if (from->format == EV_I32)
            state->kernels->add_scaled(state->tile + x * lanes, (const int32_t *)values + at,
                                       from->payload == 0 ? 0 : (int32_t)factor, channels);
        else
            for (size_t c = 0; c < channels; c++)
                state->tile[x * lanes + c] +=
                    (int32_t)(ev_value(values, from->format, at + c) * factor);
}

/* What a part brings by itself, in state->part. */
static void fill_part(ev_state *state, const ev_node *node, int32_t k, const ev_part *part,
                      strip s)
{
    memset(state->part, 0, s.pixels * (size_t)node->lanes * sizeof(int32_t));
    ev_deliver(state, node, k, part, s.first, s.pixels, state->part);
}

static void add_part(ev_state *state, const ev_node *node, int32_t k, const ev_part *part,
                     strip s)
{
    size_t count = s.pixels * (size_t)node->lanes;

    if (part->shift == 0) {
        ev_deliver(state, node, k, part, s.first, s.pixels, state->tile);
        return;
    }
    if (part->reach == 0) /* its shift may be beyond 32 bits */
        return;
    fill_part(state, node, k, part, s);
    for (size_t i = 0; i < count; i++)
        state->tile[i] += state->part[i] * (INT32_C(1) << part->shift);
}

static void sum_tile(ev_state *state, const ev_node *node, strip s)
{
    start_tile(state, node, s);
    for (int32_t k = node->first; k < node->first + node->count; k++) {
        const ev_projection *p = &state->net->projection[k];

        if (p->kind == EV_IDENTITY)
            add_identity(state, node, p, s);
        for (int32_t i = 0; i < p->parts; i++)
            add_part(state, node, k, &p->part[i], s);
    }
}

/* -- in 64 bits: each part adds to a tile of its own -------------------------------------------- */

static void start_wide(const ev_state *state, const ev_node *node, strip s)
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
                              strip s)
{
    ev_format format = state->net->node[p->source].format;
    const void *values = ev_values(state, p->source);
    size_t count = s.pixels * (size_t)node->channels, at = s.first * (size_t)node->channels;

    for (size_t i = 0; i < count; i++)
        state->wide[i] += ev_value(values, format, at + i) * (INT64_C(1) << p->part[0].shift);
}

static void add_wide_part(ev_state *state, const ev_node *node, int32_t k, const ev_part *part,
                          strip s)
{
    size_t lanes = (size_t)node->lanes, channels = (size_t)node->channels;

    fill_part(state, node, k, part, s);
    for (size_t x = 0; x < s.pixels; x++)
        for (size_t c = 0; c < channels; c++)
            state->wide[x * channels + c] +=
                state->part[x * lanes + c] * (INT64_C(1) << part->shift);
}

static void sum_wide(ev_state *state, const ev_node *node, strip s)
{
    start_wide(state, node, s);
    for (int32_t k = node->first; k < node->first + node->count; k++) {
        const ev_projection *p = &state->net->projection[k];

        if (p->kind == EV_IDENTITY)
            add_wide_identity(state, node, p, s);
        for (int32_t i = 0; i < p->parts; i++)
            add_wide_part(state, node, k, &p->part[i], s);
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
static void mask_strip(const ev_state *state, const ev_node *node, strip s)
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

static void keep_strip(const ev_state *state, const ev_node *node, int32_t i, strip s)
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

static void fire_neurons(ev_state *state, const ev_node *node, strip s)
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
        strip s = strip_of(node, index);

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

void ev_run_accumulator(ev_state *state, const ev_node *node, int32_t i)
{
    for (int32_t k = node->first; k < node->first + node->count; k++)
        ev_prepare_projection(state, node, k);
    if (state->offer != NULL)
        ev_offer_strips(state->offer, state, node, i);
    else
        ev_run_strips(state, node, i, 0, node->strips);
}
