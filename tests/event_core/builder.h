/* Networks written in C: records and data as layout.py writes them. */
#ifndef EV_BUILDER_H
#define EV_BUILDER_H

#include "net.h"
#include "testing.h"

enum { MAX_NODES = 64, MAX_PROJECTIONS = 64, MAX_DATA = 1 << 18 };

typedef struct {
    int64_t timesteps, keep, nodes, projections, data_bytes;
    int64_t node[MAX_NODES][EV_NODE_WORDS];
    int64_t projection[MAX_PROJECTIONS][EV_PROJECTION_WORDS];
    int64_t data[MAX_DATA / 8];
} network;

typedef struct {
    int64_t channels, height, width;
} shape;

/* How weights are drawn and windows lie; zeros mean a 1x1 kernel, stride 1, one group, 8 bits. */
typedef struct {
    int64_t kernel_h, kernel_w, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w, groups;
    int64_t bits;      /* of a part's weights, up to 16 */
    int64_t parts;     /* shifted by `first`, and each by `shift` more than the one before */
    int64_t first, shift;
    int64_t drop; /* of an identity */
} window;

void network_start(network *net, int64_t timesteps, shape source, int64_t payload);

/* Space in the data, returned as an offset. */
int64_t add_integers(network *net, const int64_t *values, int64_t count);

/* The node's index. An accumulator's bias is drawn within +-bias; projections are added to the last
 * accumulator. */
int32_t add_node(network *net, ev_kind kind, shape of, int32_t source);
int32_t add_accumulator(network *net, rng *r, shape of, int64_t bias, int is_map);
int32_t add_neuron(network *net, rng *r, shape of, int32_t source, int32_t ticks, int64_t scale);
int32_t add_pool(network *net, int32_t source, ev_pool_kind kind, shape of, window w);
int32_t add_attention(network *net, int32_t q, int32_t k, int32_t v, int64_t heads, ev_order order);
/* Which may read what has one pixel; `most` is what b can fire. */
int32_t add_gate(network *net, int32_t a, int32_t b, ev_gate_kind kind, int64_t most);
int32_t add_sum(network *net, int32_t a, int32_t b);
void add_carry(network *net, rng *r, int32_t neuron, ev_carry carry, int64_t scale);
int64_t *add_projection(network *net, rng *r, int32_t source, ev_projection_kind kind, window w);

shape shape_of(const network *net, int32_t node);

/* The bytes, to be freed; exactly `size`, so that sanitizers see what is read after them. */
void *network_bytes(const network *net, size_t *size);

/* Any network: layers of all kinds, usually valid. */
void network_draw(network *net, rng *r);

#endif
