/* What one worker needs to run samples: planned and allocated once, used for every sample. */
#ifndef EV_STATE_H
#define EV_STATE_H

#include "net.h"

typedef enum { EV_AUTO, EV_EVENTS_ONLY, EV_DENSE_ONLY } ev_policy;

/* How a projection was computed, summed over timesteps and samples. */
typedef struct {
    int64_t runs;       /* timesteps of samples */
    int64_t values;     /* that arrived, zero or not */
    int64_t events;     /* of them not zero */
    int64_t event_work; /* share of its multiply-adds that was done event by event, in values */
} ev_work;

typedef struct ev_offer ev_offer;

/* What a state allocates, each once. */
typedef enum {
    EV_BLOCK_PLACE,
    EV_BLOCK_NONZERO,
    EV_BLOCK_MEMBRANE,
    EV_BLOCK_MAP,
    EV_BLOCK_EVENTS,
    EV_BLOCK_BY_EVENTS,
    EV_BLOCK_WORK,
    EV_BLOCK_COST,
    EV_BLOCK_VALUES,
    EV_BLOCK_MAPS,
    EV_BLOCK_LISTS,
    EV_BLOCK_TILE,
    EV_BLOCK_PART,
    EV_BLOCK_WIDE,
    EV_BLOCK_MEMBRANES,
    EV_BLOCK_SCRATCH,
    EV_BLOCKS /* how many */
} ev_block;

typedef struct {
    const ev_net *net;
    const ev_kernels *kernels;
    ev_policy policy;
    uint8_t *values;    /* what nodes emit; a place is used again once its last reader is done */
    size_t *place;      /* [nodes] in values, bytes */
    int64_t *nonzero;   /* [nodes] values that are not zero in this timestep, or -1: not counted */
    int64_t **membrane; /* [nodes] of neurons that carry: [height][width][channels], see ev_memory */
    uint8_t *membranes; /* room for all of them */
    void **map;         /* [projections] padded map, or where its source's values are */
    uint8_t *maps;      /* room for the maps of any one accumulator */
    ev_events *events;  /* [projections] in `lists` */
    uint8_t *lists;     /* room for the events of any one accumulator */
    int32_t *by_events; /* [projections] whether this timestep goes by events */
    int32_t *tile;      /* [strip][lanes] sums of a strip of outputs */
    int32_t *part;      /* [strip][lanes] what one part brings, before it is shifted */
    uint8_t *scratch;   /* room for what any one node needs while it runs */
    int64_t *wide;      /* [strip][channels] the same in 64 bits */
    ev_work *work;      /* [projections] */
    int64_t *cost;      /* [nodes] ns that strips of an accumulator took lately, in one thread */
    const void *sample; /* of this timestep, channels first */
    ev_offer *offer;    /* from which strips are shared out, or NULL */
    void *block[EV_BLOCKS]; /* all that was allocated, freed with the state */
} ev_state;

int ev_state_new(const ev_net *net, const ev_kernels *kernels, ev_policy policy,
                 ev_state **state) EV_MUST_CHECK;
void ev_state_free(ev_state *state);

/* What ev_state_new would allocate, but for tables of a few words a node. */
int ev_state_bytes(const ev_net *net, int64_t *bytes) EV_MUST_CHECK;

/* Bytes of the projection's padded map, of one for each digit; 0 if it reads its source's values where
 * they are. */
size_t ev_map_bytes(const ev_net *net, const ev_projection *p);

static inline void *ev_values(const ev_state *state, int32_t node)
{
    return state->values + state->place[node];
}

/* Where results go; NULL: not wanted. For each node what it emits in each timestep of each sample,
 * channels first: uint8 of neurons, int64 of accumulators and readouts. */
typedef struct {
    void **node;     /* [nodes] -> [timesteps][samples][channels][height][width] */
    int64_t samples; /* in those arrays */
} ev_results;

/* Runs sample `index`. `sample` is [timesteps][channels][height][width], steps of it `stride` values
 * apart (0: the same every time), uint8 or int32 as the source's format is EV_U8 or not. */
void ev_run_sample(ev_state *state, const void *sample, int64_t stride, int64_t index,
                   const ev_results *results);

#endif
