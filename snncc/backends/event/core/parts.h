/* What nodes need to run: values of any format, and the steps from an accumulator to its neurons. */
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

static inline void ev_put(void *values, ev_format format, size_t at, int64_t value)
{
    switch (format) {
    case EV_U8:
        ((uint8_t *)values)[at] = (uint8_t)value;
        break;
    case EV_U16:
        ((uint16_t *)values)[at] = (uint16_t)value;
        break;
    case EV_I32:
        ((int32_t *)values)[at] = (int32_t)value;
        break;
    case EV_I64:
        ((int64_t *)values)[at] = value;
        break;
    }
}

/* Pixels next to each other: a row, or where rows do not matter about as many as the cache likes. */
typedef struct {
    size_t first, pixels;
} ev_strip;

/* Strips first..last - 1 of an accumulator, once its projections are prepared: what they bring is summed,
 * and the neurons that read it fire. */
void ev_run_strips(ev_state *state, const ev_node *node, int32_t i, int32_t first, int32_t last);

/* Potentials [pixels][channels], the first of them `first`, to the spike counts of neuron i. */
void ev_fire_strip(ev_state *state, int32_t i, size_t first, size_t pixels, const int64_t *potential);

/* The padded map of projection k into `node`, and its events if it goes by them. */
void ev_prepare_projection(ev_state *state, const ev_node *node, int32_t k);

/* Adds to acc [pixels][lanes] what `part` of projection k into `node` makes of a digit, for a strip. */
void ev_deliver(ev_state *state, const ev_node *node, int32_t k, const ev_part *part, int32_t digit,
                ev_strip s, int32_t *acc);

#endif
