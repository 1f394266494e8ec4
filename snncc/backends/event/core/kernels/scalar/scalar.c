/* The kernels in plain C: what every other instruction set must equal. */
#include "kernels/packing.h"
#include "kernels/sets.h"

static inline int32_t value_at(const void *values, size_t at, int32_t bytes)
{
    return bytes == 1 ? ((const uint8_t *)values)[at] : ((const int16_t *)values)[at];
}

static inline int32_t weight_at(const void *weights, size_t at, int32_t bytes)
{
    return bytes == 1 ? ((const int8_t *)weights)[at] : ((const int16_t *)weights)[at];
}

/* A group of lanes of one output; `at` is where its window begins in the map. */
static inline void dense_group(const ev_conv *conv, const void *map, size_t at, size_t row,
                               int32_t first, int32_t bytes, int32_t *acc)
{
    size_t taps = (size_t)(4 / bytes), width = (size_t)ev_group_width(conv, first);
    size_t span = (size_t)ev_span(conv), weight = ev_group_offset(conv, first);

    for (size_t y = 0; y < (size_t)conv->kernel_h; y++)
        for (size_t k = 0; k < span; k += taps)
            for (size_t lane = 0; lane < width; lane++)
                for (size_t tap = 0; tap < taps; tap++)
                    acc[lane] += value_at(map, at + y * row + k + tap, bytes) *
                                 weight_at(conv->dense, weight++, bytes);
}

static inline void dense(const ev_conv *conv, const void *map, size_t row, int32_t pixels,
                         int32_t *acc, int32_t bytes)
{
    for (size_t p = 0; p < (size_t)pixels; p++)
        for (int32_t first = 0; first < conv->lanes; first += EV_GROUP)
            dense_group(conv, map, p * (size_t)conv->stride_w * (size_t)conv->channels, row, first,
                        bytes, acc + p * (size_t)conv->lanes + first);
}

static void dense8(const ev_conv *conv, const void *map, size_t row, int32_t pixels, int32_t *acc)
{
    dense(conv, map, row, pixels, acc, 1);
}

static void dense16(const ev_conv *conv, const void *map, size_t row, int32_t pixels, int32_t *acc)
{
    dense(conv, map, row, pixels, acc, 2);
}

/* A group of lanes from one event, whose weights begin at `weight`. */
static inline void add_row(const void *restrict rows, size_t weight, int32_t width, int32_t payload,
                           int32_t bytes, int32_t *restrict acc)
{
    for (int32_t lot = 0; lot < width / 4; lot++) {
        int32_t *restrict to = acc + ev_rows_lane(width, bytes, lot);

        for (size_t i = 0; i < 4; i++)
            to[i] += payload * weight_at(rows, weight + 4 * (size_t)lot + i, bytes);
    }
}

/* The events from `e` up to `end`, which lie in one row of one window; `position` of the row's
 * first value in the map is 0 in the window. */
static inline void gather_row(const ev_conv *conv, const ev_events *events, size_t e, size_t end,
                              size_t position, int32_t bytes, int32_t *acc)
{
    for (; e < end; e++) {
        size_t k = events->index[e] / EV_LANES - position;
        int32_t payload = value_at(events->payload, e, bytes);

        for (int32_t first = 0; first < conv->lanes; first += ev_rows_width(conv, first)) {
            int32_t width = ev_rows_width(conv, first);
            size_t weight = ev_group_offset(conv, first) + k * (size_t)width;

            add_row(conv->rows, weight, width, payload, bytes, acc + first);
        }
    }
}

/* The events of one window, which begins in pixel `first`. Those of its row y are contiguous. */
static inline void gather(const ev_conv *conv, const ev_events *events, size_t first, size_t width,
                          int32_t bytes, int32_t *acc)
{
    size_t left = first % width * (size_t)conv->channels;

    for (size_t y = 0; y < (size_t)conv->kernel_h; y++) {
        const uint32_t *start = events->start + first + y * width;

        gather_row(conv, events, start[0], start[conv->kernel_w], left - y * (size_t)ev_span(conv),
                   bytes, acc);
    }
}

static void events8(const ev_conv *conv, const ev_events *events, size_t first, size_t width,
                    int32_t pixels, int32_t *acc)
{
    for (size_t p = 0; p < (size_t)pixels; p++)
        gather(conv, events, first + p * (size_t)conv->stride_w, width, 1,
               acc + p * (size_t)conv->lanes);
}

static void events16(const ev_conv *conv, const ev_events *events, size_t first, size_t width,
                     int32_t pixels, int32_t *acc)
{
    for (size_t p = 0; p < (size_t)pixels; p++)
        gather(conv, events, first + p * (size_t)conv->stride_w, width, 2,
               acc + p * (size_t)conv->lanes);
}

/* One step of one group of 64 lanes of one output, of which `left` exist; `at` is where its pixels
 * begin in the map, of which `taps` are meant, and `weight` where its weights do. */
static inline void depthwise_step(const ev_conv *conv, const void *map, size_t at, int32_t taps,
                                  size_t weight, int32_t left, int32_t bytes, int32_t *acc)
{
    for (int32_t lot = 0; lot < EV_GROUP / 4; lot++, weight += (size_t)(16 / bytes)) {
        int32_t lane = ev_depthwise_lane(bytes, lot);

        for (int32_t i = lane; i < lane + 4 && i < left; i++)
            for (int32_t x = 0; x < taps; x++)
                acc[i] +=
                    value_at(map, at + (size_t)(x * conv->lanes + i), bytes) *
                    weight_at(conv->dense, weight + (size_t)((i - lane) * 4 / bytes + x), bytes);
    }
}

/* One output; `at` is where its window begins in the map. */
static inline void depthwise_pixel(const ev_conv *conv, const void *map, size_t at, size_t row,
                                   int32_t bytes, int32_t *acc)
{
    int32_t all = 4 / bytes;
    size_t weight = 0;

    for (int32_t first = 0; first < conv->lanes; first += EV_GROUP)
        for (int32_t y = 0; y < conv->kernel_h; y++)
            for (int32_t x = 0; x < conv->kernel_w; x += all, weight += (size_t)(EV_GROUP * all)) {
                int32_t taps = conv->kernel_w - x < all ? conv->kernel_w - x : all;

                depthwise_step(conv, map,
                               at + (size_t)y * row + (size_t)(x * conv->lanes + first), taps,
                               weight, conv->lanes - first, bytes, acc + first);
            }
}

static inline void depthwise(const ev_conv *conv, const void *map, size_t row, int32_t pixels,
                             int32_t *acc, int32_t bytes)
{
    size_t lanes = (size_t)conv->lanes;

    for (size_t p = 0; p < (size_t)pixels; p++)
        depthwise_pixel(conv, map, p * (size_t)conv->stride_w * lanes, row, bytes, acc + p * lanes);
}

static void depthwise8(const ev_conv *conv, const void *map, size_t row, int32_t pixels,
                       int32_t *acc)
{
    depthwise(conv, map, row, pixels, acc, 1);
}

static void depthwise16(const ev_conv *conv, const void *map, size_t row, int32_t pixels,
                        int32_t *acc)
{
    depthwise(conv, map, row, pixels, acc, 2);
}

static inline void put(void *values, size_t at, int32_t value, int32_t bytes)
{
    if (bytes == 1)
        ((uint8_t *)values)[at] = (uint8_t)value;
    else
        ((int16_t *)values)[at] = (int16_t)value;
}

/* The events of one pixel, whose first value is the `first` of the map and `at` in its row. Returns
 * how many there are then. */
static inline uint32_t list_pixel(const void *map, size_t first, uint32_t at, int32_t channels,
                                  int32_t bytes, uint32_t found, ev_events *events)
{
    for (uint32_t c = 0; c < (uint32_t)channels; c++) {
        int32_t value = value_at(map, first + c, bytes);

        if (value != 0) {
            events->index[found] = (at + c) * EV_LANES;
            put(events->payload, found++, value, bytes);
        }
    }
    for (; found % (uint32_t)(EV_GRAIN / bytes) != 0; found++) {
        events->index[found] = at * EV_LANES;
        put(events->payload, found, 0, bytes);
    }
    return found;
}

static inline void list(const void *map, size_t pixels, size_t width, int32_t channels,
                        int32_t bytes, ev_events *events)
{
    uint32_t found = 0;

    for (size_t p = 0; p < pixels; p++) {
        events->start[p] = found;
        found = list_pixel(map, p * (size_t)channels, (uint32_t)(p % width) * (uint32_t)channels,
                           channels, bytes, found, events);
    }
    events->start[pixels] = found;
}

static void list8(const void *map, size_t pixels, size_t width, int32_t channels, ev_events *events)
{
    list(map, pixels, width, channels, 1, events);
}

static void list16(const void *map, size_t pixels, size_t width, int32_t channels,
                   ev_events *events)
{
    list(map, pixels, width, channels, 2, events);
}

static void digits32(const void *values, const ev_digit *digit, size_t count, int16_t *to)
{
    const int32_t *from = values;
    int32_t add = (int32_t)digit->add, mask = (int32_t)digit->mask, take = (int32_t)digit->take;

    for (size_t i = 0; i < count; i++)
        to[i] = (int16_t)((((from[i] + add) >> digit->shift) & mask) - take);
}

static void digits64(const void *values, const ev_digit *digit, size_t count, int16_t *to)
{
    const int64_t *from = values;

    for (size_t i = 0; i < count; i++)
        to[i] = (int16_t)((((from[i] + digit->add) >> digit->shift) & digit->mask) - digit->take);
}

static size_t nonzero(const uint8_t *values, size_t count)
{
    size_t found = 0;

    for (size_t i = 0; i < count; i++)
        found += values[i] != 0;
    return found;
}

static void fire(const int32_t *acc, const int32_t *bias, size_t bias_row, const int32_t *levels,
                 int32_t D, int32_t pixels, int32_t channels, int32_t lanes, uint8_t *counts)
{
    for (size_t p = 0; p < (size_t)pixels; p++)
        for (size_t c = 0; c < (size_t)channels; c++) {
            int32_t potential = acc[p * (size_t)lanes + c];
            int32_t count = 0;

            if (bias != NULL)
                potential += bias[p * bias_row + c];
            for (size_t j = 0; j < (size_t)D; j++)
                count += potential >= levels[j * (size_t)lanes + c];
            counts[p * (size_t)channels + c] = (uint8_t)count;
        }
}

static void add_scaled(int32_t *to, const int32_t *row, int32_t factor, size_t count)
{
    for (size_t i = 0; i < count; i++)
        to[i] += factor * row[i];
}

static int is_here(void)
{
    return 1;
}

static const ev_tuning *tuning(const ev_conv *conv)
{
    static const ev_tuning all = {{0.3, 0.3, 0.3}, 2};

    (void)conv;
    return &all;
}

const ev_kernels ev_kernels_scalar = {
    .name = "scalar",
    .is_here = is_here,
    .tuning = tuning,
    .dense = {dense8, dense16},
    .events = {events8, events16},
    .depthwise = {depthwise8, depthwise16},
    .list = {list8, list16},
    .digits = {digits32, digits64},
    .nonzero = nonzero,
    .add_scaled = add_scaled,
    .fire = fire,
};
