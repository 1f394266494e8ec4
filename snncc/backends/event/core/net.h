/* A network as the event engine runs it: read from bytes, checked, weights packed.
 *
 * The bytes are little-endian: EV_HEAD_WORDS int64, then EV_NODE_WORDS int64 for each node, then
 * EV_PROJECTION_WORDS for each projection (fields in the order of the enums below), then data, to
 * which offsets in bytes point. Nodes are in topological order. snncc/backends/event/layout.py writes
 * them. Arrays have channels last. */
#ifndef EV_NET_H
#define EV_NET_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/kernels.h"
#include "nodes/kinds.h"
#include "status.h"

#define EV_LIMIT (INT64_C(1) << 62) /* no potential, level or membrane may reach it */
#define EV_MAGIC INT64_C(0x3130564543434e53) /* "SNCCEV01" */

enum {
    EV_HEAD_MAGIC,
    EV_HEAD_TIMESTEPS,
    EV_HEAD_NODES,
    EV_HEAD_PROJECTIONS,
    EV_HEAD_KEEP, /* 1: all potentials can be read */
    EV_HEAD_DATA_BYTES,
    EV_HEAD_WORDS
};

typedef enum { EV_CARRY_NONE, EV_CARRY_SOFT, EV_CARRY_HARD, EV_CARRY_DELAYED, EV_CARRY_RAISED } ev_carry;
typedef enum { EV_POOL_MAX, EV_POOL_SUM } ev_pool_kind;
typedef enum { EV_GATE_AND, EV_GATE_AND_NOT } ev_gate_kind;
typedef enum { EV_KV_FIRST, EV_QK_FIRST } ev_order;
typedef enum { EV_CONV, EV_LINEAR, EV_IDENTITY } ev_projection_kind;

enum {
    EV_NODE_KIND,
    EV_NODE_CHANNELS,
    EV_NODE_HEIGHT,
    EV_NODE_WIDTH,
    EV_NODE_SOURCE,  /* index of the node it reads, or of the first; not sources, accumulators */
    EV_NODE_PAYLOAD, /* sources; gates: what b could fire, of which its silence is the rest */
    EV_NODE_FIRST,   /* accumulators: first projection */
    EV_NODE_COUNT,   /* and how many */
    EV_NODE_BIAS,    /* offset of int64 [channels], or [height][width][channels] */
    EV_NODE_BIAS_IS_MAP,
    EV_NODE_TICKS,  /* neurons: D */
    EV_NODE_LEVELS, /* offset of int64 [D][channels] */
    EV_NODE_CARRY,
    EV_NODE_DECAY, /* offset of int64 [channels], over 2^shift */
    EV_NODE_DECAY_SHIFT,
    EV_NODE_FRACTION,
    EV_NODE_THRESHOLD, /* offset of int64 [channels] */
    EV_NODE_CURRENT,   /* likewise, of the current that the potential goes into; all 0: there is none */
    EV_NODE_CURRENT_SHIFT,
    EV_NODE_POOL,
    EV_NODE_KERNEL_H,
    EV_NODE_KERNEL_W,
    EV_NODE_STRIDE_H,
    EV_NODE_STRIDE_W,
    EV_NODE_PAD_TOP,
    EV_NODE_PAD_LEFT,
    EV_NODE_PATCHES_H, /* accumulators: patches of the sample's mask, or 0: not masked */
    EV_NODE_PATCHES_W,
    EV_NODE_K, /* attentions: indices of the nodes they read besides EV_NODE_SOURCE, which is q */
    EV_NODE_V,
    EV_NODE_HEADS,
    EV_NODE_ORDER,
    EV_NODE_GATE,
    EV_NODE_B, /* gates, sums: index of the second node they read */
    EV_NODE_WORDS
};

enum { EV_MAX_PARTS = 3, EV_MAX_TICKS = 255, EV_MAX_SHIFT = 61 };

enum {
    EV_PROJECTION_SOURCE,
    EV_PROJECTION_KIND,
    EV_PROJECTION_KERNEL_H,
    EV_PROJECTION_KERNEL_W,
    EV_PROJECTION_STRIDE_H,
    EV_PROJECTION_STRIDE_W,
    EV_PROJECTION_PAD_TOP,
    EV_PROJECTION_PAD_LEFT,
    EV_PROJECTION_DILATION_H,
    EV_PROJECTION_DILATION_W,
    EV_PROJECTION_GROUPS,
    EV_PROJECTION_DROP,  /* of an identity: lowest bits that do not arrive */
    EV_PROJECTION_PARTS, /* w = sum of part << shift */
    EV_PROJECTION_PART,  /* for each part: offset of int16 [outputs][kernel_h][kernel_w][channels
                            / groups], then its shift */
    EV_PROJECTION_WORDS = EV_PROJECTION_PART + 2 * EV_MAX_PARTS
};

/* How values are stored: the narrowest that holds all a node may emit. Words are up to INT16_MAX, so
 * that maps may hold digits with sign in them. */
typedef enum { EV_U8, EV_U16, EV_I32, EV_I64 } ev_format;

/* How a projection's sums are computed. */
typedef enum { EV_BY_DENSITY, EV_DEPTHWISE, EV_PLAIN } ev_method;

typedef struct {
    int32_t shift;
    const int16_t *weights; /* in the network's bytes until they are packed */
    int64_t row;            /* largest sum of absolute weights of an output */
    ev_conv conv;
    int16_t *plain; /* [outputs][kernel_h][kernel_w][channels / groups], EV_PLAIN only */
} ev_part;

/* What is read in digits, the lowest first: value = sum of digit << bits * place. Their products with
 * weights fit 32 bits each. One digit is the value itself. */
typedef struct {
    int32_t count, bits;
    int64_t low, top; /* largest absolute digit, below the last one and of it */
    int64_t most;     /* largest value, and what lower digits carry to the last one */
} ev_digits;

typedef struct {
    int32_t source, kind;
    int32_t height, width, channels; /* of what it reads; linear: 1, 1, all of it */
    int32_t kernel_h, kernel_w, stride_h, stride_w;
    int32_t pad_top, pad_left, dilation_h, dilation_w, groups;
    int32_t map_height, map_width, map_channels; /* of the padded map */
    ev_method method;
    ev_format map_format; /* EV_U8 or EV_U16, EV_I32 for EV_PLAIN */
    int32_t is_graded;    /* its map has words with sign, or several digits */
    ev_digits digits;
    int32_t drop; /* of an identity */
    int32_t parts;
    ev_part part[EV_MAX_PARTS];
} ev_projection;

typedef struct {
    ev_kind kind;
    int32_t channels, height, width;
    int32_t source;
    int64_t payload; /* largest absolute value it emits */
    ev_format format;
    int32_t is_signed; /* what it emits may be negative */
    int32_t is_kept;   /* its values have a place; an accumulator's if others than fused neurons read it */
    /* accumulators */
    int32_t first, count;
    int32_t lanes;    /* channels rounded up to EV_LANES */
    int32_t line;     /* pixels of a row, or all of them if rows do not matter */
    int32_t strip, strips; /* pixels that are summed and fired together, and how many such there are */
    int32_t is_wide;  /* its sums need 64 bits */
    const int64_t *bias; /* [channels] or [height][width][channels] */
    int32_t *bias32;  /* [lanes] or [height][width][lanes] unless is_wide */
    int32_t bias_is_map;
    int32_t patches_h, patches_w;
    int32_t neuron; /* the first fused neuron that reads it, or 0 */
    /* neurons */
    int32_t ticks, carry;
    const int64_t *decay;   /* [channels] */
    const int64_t *current; /* [channels], or NULL */
    int32_t decay_shift, current_shift, fraction;
    int32_t is_fused;  /* fires as soon as a row of its accumulator is complete */
    int32_t next;      /* the next fused neuron of its accumulator, or 0 */
    const int64_t *levels; /* [D][channels] */
    int32_t *levels32; /* [D][lanes], if its accumulator is not wide and it carries nothing */
    const int64_t *threshold; /* [channels] */
    /* pools */
    int32_t pool, kernel_h, kernel_w, stride_h, stride_w, pad_top, pad_left;
    /* attentions; q is their source */
    int32_t k, v, heads, order;
    /* gates and sums; a is their source */
    int32_t b, gate, most;
} ev_node;

typedef struct {
    int32_t timesteps, nodes, projections, keeps_all;
    ev_node *node;
    ev_projection *projection;
    void **blocks; /* what else was allocated, freed with the network */
    size_t n_blocks, room;
} ev_net;

/* Reads and checks a network. On EV_ERR_BAD_NETWORK `fault` says where and what. The bytes are not
 * needed afterwards; their start must be aligned to 8. */
int ev_net_load(const void *bytes, size_t size, ev_net **net, ev_fault *fault) EV_MUST_CHECK;
void ev_net_free(ev_net *net);

/* Zeros that live as long as the network, aligned to EV_ALIGN and with EV_SLACK bytes to spare; or NULL. */
void *ev_net_alloc(ev_net *net, size_t size);

/* The same, filled with `size` bytes; or with rows of `channels` int64 as rows of int32, each rounded up
 * to EV_LANES: values beyond 32 bits become the nearest that fits, which no sum of 32 bits passes. */
void *ev_net_copied(ev_net *net, const void *from, size_t size);
int32_t *ev_net_narrowed(ev_net *net, const int64_t *from, int64_t rows, int32_t channels);

/* The steps of ev_net_load: fields in range and nodes that fit each other; sums that hold; packing. */
int ev_net_read(ev_net *net, const void *bytes, size_t size, ev_fault *fault) EV_MUST_CHECK;
int ev_net_bound(ev_net *net, ev_fault *fault) EV_MUST_CHECK;
int ev_net_prepare(ev_net *net) EV_MUST_CHECK;

static inline int64_t ev_elements(const ev_node *node)
{
    return (int64_t)node->channels * node->height * node->width;
}

/* Membranes of a neuron that carries; after them, one for each, a delayed reset and then a current. */
static inline int64_t ev_memory(const ev_node *node)
{
    return ev_elements(node) * (1 + (node->carry == EV_CARRY_DELAYED) + (node->current != NULL));
}

static inline int32_t ev_rounded(int32_t value, int32_t multiple)
{
    return (value + multiple - 1) / multiple * multiple;
}

static inline size_t ev_bytes_of(ev_format format)
{
    static const size_t bytes[] = {[EV_U8] = 1, [EV_U16] = 2, [EV_I32] = 4, [EV_I64] = 8};

    _Static_assert(sizeof(bytes) / sizeof(*bytes) == EV_I64 + 1, "every format has a size");
    return bytes[format];
}

#endif
