/* The steps of run.c: what each kind of node does. */
#ifndef EV_PARTS_H
#define EV_PARTS_H

#include "state.h"

static inline int64_t ev_value(const void *values, ev_format format, size_t at)
{
    switch (format) {
    case EV_U8:
        return ((const uint8_t *)values)[at];
    case EV_U16:
        return ((const uint16_t *)values)[at];
    case EV_I32:
        return ((const int32_t *)values)[at];
    default:
        return ((const int64_t *)values)[at];
    }
}

/* Sums what the projections bring, row by row, and fires the neurons that read the rows. */
void ev_run_accumulator(ev_state *state, const ev_node *node, int32_t i);

/* Rows first..last - 1 of it, once its projections are prepared. */
void ev_run_rows(ev_state *state, const ev_node *node, int32_t i, int32_t first, int32_t last);

/* Maxima or sums over windows. */
void ev_run_pool(ev_state *state, int32_t i);

/* A row of potentials [width][channels] to the spike counts of neuron i, which has that shape. */
void ev_fire_row(ev_state *state, int32_t i, int32_t row, const int64_t *potential);

/* A neuron of another shape than its accumulator: the same values in channels-first order. */
void ev_fire_reshaped(ev_state *state, int32_t i);

/* The padded map of projection k into `node`, and its events if it goes by them. */
void ev_prepare_projection(ev_state *state, const ev_node *node, int32_t k);

/* Adds to acc [width][lanes] what `part` of projection k brings to row `row` of its outputs. */
void ev_deliver_row(ev_state *state, int32_t k, const ev_part *part, int32_t row, int32_t width,
                    int32_t *acc);

#endif
