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

/* Sums what the projections bring, strip by strip, and fires the neurons that read them. */
void ev_run_accumulator(ev_state *state, const ev_node *node, int32_t i);

/* Strips first..last - 1 of it, once its projections are prepared. */
void ev_run_strips(ev_state *state, const ev_node *node, int32_t i, int32_t first, int32_t last);

/* Maxima or sums over windows. */
void ev_run_pool(ev_state *state, int32_t i);

/* Products of three bursts; `ev_products` values of state->products are used for it. */
void ev_run_attention(ev_state *state, int32_t i);
size_t ev_products(const ev_net *net, const ev_node *node);

/* Potentials [pixels][channels], the first of them `first`, to the spike counts of neuron i. */
void ev_fire_strip(ev_state *state, int32_t i, size_t first, size_t pixels, const int64_t *potential);

/* A neuron of another shape than its accumulator: the same values in channels-first order. */
void ev_fire_reshaped(ev_state *state, int32_t i);

/* The padded map of projection k into `node`, and its events if it goes by them. */
void ev_prepare_projection(ev_state *state, const ev_node *node, int32_t k);

/* Adds to acc [pixels][lanes] what `part` of projection k into `node` brings to a strip of it. */
void ev_deliver(ev_state *state, const ev_node *node, int32_t k, const ev_part *part, size_t first,
                size_t pixels, int32_t *acc);

#endif
