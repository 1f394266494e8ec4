/* What the proofs that no sum overflows have in common. */
#ifndef EV_BOUNDS_H
#define EV_BOUNDS_H

#include "net.h"

static inline int ev_bad(ev_fault *fault, int32_t node, const char *what)
{
    fault->node = node;
    fault->what = what;
    return EV_ERR_BAD_NETWORK;
}

static inline int64_t ev_magnitude(int64_t value)
{
    return value < 0 ? -value : value;
}

static inline int64_t ev_largest(const int64_t *values, int64_t count)
{
    int64_t found = 0;

    for (int64_t i = 0; i < count; i++)
        found = ev_magnitude(values[i]) > found ? ev_magnitude(values[i]) : found;
    return found;
}

/* A value without its lowest bits; halves go up. */
static inline int64_t ev_coarse(int64_t value, int32_t drop)
{
    return drop == 0 ? value : (value + (INT64_C(1) << (drop - 1))) >> drop;
}

/* a + (b << shift) if that is below EV_LIMIT, else EV_LIMIT. */
static inline int64_t ev_added(int64_t a, int64_t b, int32_t shift)
{
    if (b == 0)
        return a;
    if (a >= EV_LIMIT || shift > 61 || b > (EV_LIMIT >> shift))
        return EV_LIMIT;
    a += b << shift;
    return a < EV_LIMIT ? a : EV_LIMIT;
}

static inline ev_format ev_narrowest(int64_t payload, int has_sign)
{
    if (!has_sign && payload <= UINT8_MAX)
        return EV_U8;
    if (!has_sign && payload <= INT16_MAX)
        return EV_U16;
    return payload <= INT32_MAX ? EV_I32 : EV_I64;
}

#endif
