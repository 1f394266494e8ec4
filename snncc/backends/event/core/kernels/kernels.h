/* The kernels: everything that takes time, in one table per instruction set.
 *
 * A map is what a node emits in one timestep, channels last: [height][width][channels], zero-padded
 * for the projection that reads it. A burst of n ticks is one value n. Words, of two bytes, have a
 * sign: they may be digits of potentials. All kernels of a kind give the same integers on every
 * instruction set. */
#ifndef EV_KERNELS_H
#define EV_KERNELS_H

#include <stddef.h>
#include <stdint.h>

enum {
    EV_LANES = 16,      /* outputs of a conv are padded to a multiple of this */
    EV_GRAIN = 4,       /* channels of a padded map are a multiple of this */
    EV_ALIGN = 64,      /* bytes; weights, maps and accumulators start at a multiple */
    EV_SLACK = 64       /* bytes that may be read after a map, a list or a weight array */
};

/* A convolution without bias over a padded map; a fully connected layer is one whose kernel is the
 * whole map. Groups and dilation are of the plain kernel alone. */
typedef struct {
    int32_t channels;             /* of the padded map, multiple of EV_GRAIN */
    int32_t kernel_h, kernel_w;
    int32_t stride_w;             /* pixels of the map from one output to the next */
    int32_t outputs, lanes;       /* lanes: outputs rounded up to a multiple of EV_LANES */
    int32_t payload;              /* largest absolute value in the map */
    int32_t bytes;                /* of a weight and of a value in the map: 1 or 2 */
    void *dense;                  /* packed for dense(), or NULL */
    void *rows;                   /* packed for events(), or NULL */
} ev_conv;

/* The non-zero values of a padded map, row by row, pixel by pixel, channel by channel. After those
 * of a pixel follow events of payload 0 until their number is a multiple of EV_GRAIN / bytes, since
 * kernels take that many at a time. There is room for as many events as the map has values. */
typedef struct {
    uint32_t *start;    /* [height * width + 1] first event of each pixel */
    uint32_t *index;    /* EV_LANES times the position in its row: x * channels + channel */
    void *payload;      /* uint8 or int16, as the map */
} ev_events;

/* One digit of each of many values: ((value + add) >> shift & mask) - take. */
typedef struct {
    int64_t add, mask, take;
    int32_t shift;
} ev_digit;

/* What events and dense sums of an instruction set cost; crossover.c says how they are compared. */
typedef struct {
    double rate[3]; /* of 16, 32, and 64 or more lanes: dense sums per event in the same time */
    double list;    /* values that dense sums take in the time of one more list of events */
} ev_tuning;

/* An instruction set. */
typedef struct {
    const char *name;
    /* Whether this machine has it. */
    int (*is_here)(void);
    const ev_tuning *(*tuning)(const ev_conv *conv);
    /* Adds to acc [pixels][lanes] what the map brings to `pixels` outputs next to each other in a
     * row. `map` is where the window of the first one begins, uint8 or int16 as conv->bytes says;
     * `row` is the distance of rows, in values. By bytes - 1. */
    void (*dense[2])(const ev_conv *conv, const void *map, size_t row, int32_t pixels,
                     int32_t *acc);
    /* The same from events; the first window begins in pixel `first`, `width` pixels make a row. */
    void (*events[2])(const ev_conv *conv, const ev_events *events, size_t first, size_t width,
                      int32_t pixels, int32_t *acc);
    /* Adds to acc [pixels][lanes] a convolution of each channel for itself; `lanes` == channels,
     * conv->dense packed by ev_pack_depthwise, map uint8 or int16. By bytes - 1. */
    void (*depthwise[2])(const ev_conv *conv, const void *map, size_t row, int32_t pixels,
                         int32_t *acc);
    /* Lists the non-zero values of a padded map; by bytes - 1. */
    void (*list[2])(const void *map, size_t pixels, size_t width, int32_t channels,
                    ev_events *events);
    /* Digits [count] of values with sign, int32 or int64; each digit fits 16 bits, and value + add its
     * own type. By bytes / 4 - 1 of a value. */
    void (*digits[2])(const void *values, const ev_digit *digit, size_t count, int16_t *to);
    /* Number of non-zero bytes. */
    size_t (*nonzero)(const uint8_t *values, size_t count);
    /* Adds `factor` times row [count] to `to`. */
    void (*add_scaled)(int32_t *to, const int32_t *row, int32_t factor, size_t count);
    /* Spike counts [pixels][channels] of potentials acc [pixels][lanes] + bias, which may be NULL:
     * how many of levels [D][lanes] each reaches. bias is [lanes] if bias_row is 0, else
     * [pixels][bias_row]. */
    void (*fire)(const int32_t *acc, const int32_t *bias, size_t bias_row, const int32_t *levels,
                 int32_t D, int32_t pixels, int32_t channels, int32_t lanes, uint8_t *counts);
} ev_kernels;

/* The table of an instruction set that sets.h names; NULL: the best this machine has.
 * NULL is returned for one that is unknown or that the machine lacks. */
const ev_kernels *ev_kernels_of(const char *name);

/* The density of a map below which events() is faster than dense(), for a convolution that computes
 * so many outputs (pixels). The time of list() is part of it. Below 0: never. */
double ev_crossover(const ev_kernels *kernels, const ev_conv *conv, int64_t outputs);

/* Packs weights [outputs][kernel_h][kernel_w][channels] (of conv->bytes, zero for padded channels)
 * into conv->dense and conv->rows; the sizes say how much room both take. */
size_t ev_dense_size(const ev_conv *conv);
size_t ev_rows_size(const ev_conv *conv);
void ev_pack(const ev_conv *conv, const int16_t *weights);

/* The same of a depthwise convolution, weights [kernel_h][kernel_w][lanes] (zero for padded lanes)
 * into conv->dense. */
size_t ev_depthwise_size(const ev_conv *conv);
void ev_pack_depthwise(const ev_conv *conv, const int16_t *weights);

#endif
