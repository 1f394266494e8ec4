/* Accumulators: a row of potentials at a time, in a tile that stays in the cache. */
#include <string.h>

#include "parts.h"
#include "team.h"

static size_t row_values(const ev_node *node)
{
    return (size_t)node->width * (size_t)node->channels;
}

/* -- in 32 bits: all projections add to one tile, which starts as the bias ---------------------- */

static void start_tile(const ev_state *state, const ev_node *node, int32_t row)
{
    size_t line = (size_t)node->width * (size_t)node->lanes;

    if (node->bias_is_map) {
        memcpy(state->tile, node->bias32 + (size_t)row * line, line * sizeof(int32_t));
        return;
    }
    for (size_t x = 0; x < (size_t)node->width; x++)
        memcpy(state->tile + x * (size_t)node->lanes, node->bias32,
               (size_t)node->lanes * sizeof(int32_t));
}

static void add_identity(const ev_state *state, const ev_node *node, const ev_projection *p,
                         int32_t row)
{
    ev_format format = state->net->node[p->source].format;
    const void *values = ev_values(state, p->source);
    size_t channels = (size_t)node->channels, at = (size_t)row * row_values(node);

    for (size_t x = 0; x < (size_t)node->width; x++)
        for (size_t c = 0; c < channels; c++, at++)
            state->tile[x * (size_t)node->lanes + c] +=
                (int32_t)(ev_value(values, format, at) * (INT64_C(1) << p->part[0].shift));
}

/* What a part brings by itself, in state->part. */
static void fill_part(ev_state *state, const ev_node *node, int32_t k, const ev_part *part,
                      int32_t row)
{
    memset(state->part, 0, (size_t)node->width * (size_t)node->lanes * sizeof(int32_t));
    ev_deliver_row(state, k, part, row, node->width, state->part);
}

static void add_part(ev_state *state, const ev_node *node, int32_t k, const ev_part *part,
                     int32_t row)
{
    size_t count = (size_t)node->width * (size_t)node->lanes;

    if (part->shift == 0) {
        ev_deliver_row(state, k, part, row, node->width, state->tile);
        return;
    }
    if (part->reach == 0) /* its shift may be beyond 32 bits */
        return;
    fill_part(state, node, k, part, row);
    for (size_t i = 0; i < count; i++)
        state->tile[i] += state->part[i] * (INT32_C(1) << part->shift);
}

static void sum_tile(ev_state *state, const ev_node *node, int32_t row)
{
    start_tile(state, node, row);
    for (int32_t k = node->first; k < node->first + node->count; k++) {
        const ev_projection *p = &state->net->projection[k];

        if (p->kind == EV_IDENTITY)
            add_identity(state, node, p, row);
        for (int32_t i = 0; i < p->parts; i++)
            add_part(state, node, k, &p->part[i], row);
    }
}

/* -- in 64 bits: each part adds to a tile of its own -------------------------------------------- */

static void start_wide(const ev_state *state, const ev_node *node, int32_t row)
{
    size_t values = row_values(node), channels = (size_t)node->channels;

    if (node->bias_is_map) {
        memcpy(state->wide, node->bias + (size_t)row * values, values * sizeof(int64_t));
        return;
    }
    for (size_t x = 0; x < (size_t)node->width; x++)
        memcpy(state->wide + x * channels, node->bias, channels * sizeof(int64_t));
}

static void add_wide_identity(const ev_state *state, const ev_node *node, const ev_projection *p,
                              int32_t row)
{
    ev_format format = state->net->node[p->source].format;
    const void *values = ev_values(state, p->source);
    size_t count = row_values(node), at = (size_t)row * count;

    for (size_t i = 0; i < count; i++)
        state->wide[i] += ev_value(values, format, at + i) * (INT64_C(1) << p->part[0].shift);
}

static void add_wide_part(ev_state *state, const ev_node *node, int32_t k, const ev_part *part,
                          int32_t row)
{
    size_t lanes = (size_t)node->lanes, channels = (size_t)node->channels;

    fill_part(state, node, k, part, row);
    for (size_t x = 0; x < (size_t)node->width; x++)
        for (size_t c = 0; c < channels; c++)
            state->wide[x * channels + c] +=
                state->part[x * lanes + c] * (INT64_C(1) << part->shift);
}

static void sum_wide(ev_state *state, const ev_node *node, int32_t row)
{
    start_wide(state, node, row);
    for (int32_t k = node->first; k < node->first + node->count; k++) {
        const ev_projection *p = &state->net->projection[k];

        if (p->kind == EV_IDENTITY)
            add_wide_identity(state, node, p, row);
        for (int32_t i = 0; i < p->parts; i++)
            add_wide_part(state, node, k, &p->part[i], row);
    }
}

static void widen(const ev_state *state, const ev_node *node)
{
    size_t lanes = (size_t)node->lanes, channels = (size_t)node->channels;

    for (size_t x = 0; x < (size_t)node->width; x++)
        for (size_t c = 0; c < channels; c++)
            state->wide[x * channels + c] = state->tile[x * lanes + c];
}

/* -- rows --------------------------------------------------------------------------------------- */

/* Masked outputs are 0. The source's last channel says which patches are: not 0 in masked ones. */
static void mask_row(const ev_state *state, const ev_node *node, int32_t row)
{
    const ev_node *source = &state->net->node[0];
    size_t y = (size_t)row * (size_t)node->patches_h / (size_t)node->height;
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

static void keep_row(const ev_state *state, const ev_node *node, int32_t i, int32_t row)
{
    size_t channels = (size_t)node->channels, lanes = (size_t)node->lanes;
    uint8_t *kept = (uint8_t *)ev_values(state, i) +
                    (size_t)row * row_values(node) * ev_bytes_of(node->format);

    if (node->is_wide) {
        memcpy(kept, state->wide, row_values(node) * sizeof(int64_t));
        return;
    }
    for (size_t x = 0; x < (size_t)node->width; x++)
        memcpy(kept + x * channels * sizeof(int32_t), state->tile + x * lanes,
               channels * sizeof(int32_t));
}

static void fire_neurons(ev_state *state, const ev_node *node, int32_t row)
{
    int is_widened = node->is_wide;

    for (int32_t i = node->neuron; i != 0; i = state->net->node[i].next) {
        const ev_node *neuron = &state->net->node[i];
        uint8_t *counts = (uint8_t *)ev_values(state, i) + (size_t)row * row_values(node);

        if (neuron->levels32 != NULL) {
            state->kernels->fire(state->tile, NULL, 0, neuron->levels32, neuron->ticks, node->width,
                                 node->channels, node->lanes, counts);
            continue;
        }
        if (!is_widened)
            widen(state, node);
        is_widened = 1;
        ev_fire_row(state, i, row, state->wide);
    }
}

void ev_run_rows(ev_state *state, const ev_node *node, int32_t i, int32_t first, int32_t last)
{
    for (int32_t row = first; row < last; row++) {
        if (node->is_wide)
            sum_wide(state, node, row);
        else
            sum_tile(state, node, row);
        if (node->patches_h > 0)
            mask_row(state, node, row);
        if (node->is_kept)
            keep_row(state, node, i, row);
        fire_neurons(state, node, row);
    }
}

void ev_run_accumulator(ev_state *state, const ev_node *node, int32_t i)
{
    for (int32_t k = node->first; k < node->first + node->count; k++)
        ev_prepare_projection(state, node, k);
    if (state->team != NULL && node->height >= state->team->size)
        ev_team_rows(state->team, node, i);
    else
        ev_run_rows(state, node, i, 0, node->height);
}
