/* Projections: read and checked with the accumulator that they feed, bounded and packed with it. */
#ifndef EV_PROJECTION_H
#define EV_PROJECTION_H

#include "nodes/record.h"

/* The next projection of the record, into `to`. */
void ev_read_projection(ev_record *r, ev_net *net, const ev_node *to);

/* The largest sum that it may come to, negative: one of its parts may exceed 32 bits. Chooses how it
 * is computed. */
int64_t ev_bound_projection(const ev_net *net, ev_projection *p, const ev_node *to);

/* The largest absolute value of a digit of what it reads. */
int64_t ev_largest_digit(const ev_projection *p, int32_t digit);

/* Each output reads the pixel at its own place alone, so that rows do not matter; and then: all pixels
 * as one row. */
int ev_is_pointwise(const ev_projection *p);
void ev_flatten(ev_projection *p);

/* Its weights in the form that its method reads. */
int ev_pack_projection(ev_net *net, ev_projection *p, const ev_node *to) EV_MUST_CHECK;

#endif
