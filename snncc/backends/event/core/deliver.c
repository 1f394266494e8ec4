/* What a projection brings: its padded map, its events, and a strip of sums at a time. */
#include <string.h>

#include "parts.h"

/* -- maps --------------------------------------------------------------------------------------- */

/* A row of values into a row of the map, which may be of a wider format. */
static void copy_values(const void *from, ev_format format, size_t at, size_t count, void *to,
                        ev_format to_format)
{
    if (format == to_format) {
        memcpy(to, (const uint8_t *)from + at * ev_bytes_of(format), count * ev_bytes_of(format));
        return;
    }
    for (size_t i = 0; i < count; i++)
        if (to_format == EV_U16)
            ((uint16_t *)to)[i] = (uint16_t)ev_value(from, format, at + i);
        else
            ((int32_t *)to)[i] = (int32_t)ev_value(from, format, at + i);
}

static int32_t fitting(int32_t size, int32_t pad, int32_t room)
{
    int32_t left = room - pad;

    return left < 0 ? 0 : size < left ? size : left;
}

/* All digits but the last have an offset that makes them positive, so that each is found alone. */
static ev_digit digit_of(const ev_digits *all, int32_t digit)
{
    int is_last = digit == all->count - 1;
    ev_digit found = {.shift = digit * all->bits, .mask = -1};

    for (int32_t below = 0; below < digit + !is_last; below++)
        found.add += all->low << below * all->bits;
    if (!is_last) {
        found.mask = 2 * all->low - 1;
        found.take = all->low;
    }
    return found;
}

/* A row of digits: of words the kernels' work, of wider maps any without haste. */
static void copy_digits(const ev_state *state, const ev_projection *p, int32_t digit,
                        const void *from, ev_format format, size_t at, size_t count, void *to)
{
    ev_digit which = digit_of(&p->digits, digit);
    const uint8_t *first = (const uint8_t *)from + at * ev_bytes_of(format);
    int fits = format == EV_I64 || (format == EV_I32 && p->digits.most <= INT32_MAX);

    if (p->map_format == EV_U16 && fits) {
        state->kernels->digits[format == EV_I64](first, &which, count, to);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        int64_t value = (((ev_value(from, format, at + i) + which.add) >> which.shift) & which.mask) -
                        which.take;

        if (p->map_format == EV_U16)
            ((int16_t *)to)[i] = (int16_t)value;
        else
            ((int32_t *)to)[i] = (int32_t)value;
    }
}

static void fill_values(const ev_state *state, const ev_projection *p, int32_t digit,
                        const void *from, ev_format format, size_t at, size_t count, void *to)
{
    if (p->is_graded)
        copy_digits(state, p, digit, from, format, at, count, to);
    else
        copy_values(from, format, at, count, to, p->map_format);
}

static void fill_row(const ev_state *state, const ev_projection *p, int32_t digit, const void *from,
                     ev_format format, int32_t y, uint8_t *to)
{
    size_t channels = (size_t)p->channels, bytes = ev_bytes_of(p->map_format);
    size_t pixel = (size_t)p->map_channels * bytes, first = (size_t)y * (size_t)p->width * channels;
    int32_t columns = fitting(p->width, p->pad_left, p->map_width);

    to += (size_t)p->pad_left * pixel;
    if (p->channels == p->map_channels) {
        fill_values(state, p, digit, from, format, first, (size_t)columns * channels, to);
        return;
    }
    for (int32_t x = 0; x < columns; x++)
        fill_values(state, p, digit, from, format, first + (size_t)x * channels, channels,
                    to + (size_t)x * pixel);
}

static void fill_map(const ev_state *state, const ev_projection *p, int32_t digit, uint8_t *map)
{
    size_t row = (size_t)p->map_width * (size_t)p->map_channels * ev_bytes_of(p->map_format);
    const ev_node *from = &state->net->node[p->source];

    memset(map, 0, row * (size_t)p->map_height);
    for (int32_t y = 0; y < fitting(p->height, p->pad_top, p->map_height); y++)
        fill_row(state, p, digit, ev_values(state, p->source), from->format, y,
                 map + (size_t)(y + p->pad_top) * row);
}

/* -- density ------------------------------------------------------------------------------------ */

static int64_t nonzero_of(ev_state *state, int32_t node)
{
    const ev_node *from = &state->net->node[node];
    const void *values = ev_values(state, node);
    size_t count = (size_t)ev_elements(from);

    if (state->nonzero[node] >= 0)
        return state->nonzero[node];
    state->nonzero[node] = 0;
    if (from->format == EV_U8)
        state->nonzero[node] = (int64_t)state->kernels->nonzero(values, count);
    else if (from->format == EV_I32)
        for (size_t i = 0; i < count; i++)
            state->nonzero[node] += ((const int32_t *)values)[i] != 0;
    else
        for (size_t i = 0; i < count; i++)
            state->nonzero[node] += ev_value(values, from->format, i) != 0;
    return state->nonzero[node];
}

static int goes_by_events(const ev_state *state, const ev_projection *p, const ev_node *to,
                          double density)
{
    if (p->method != EV_BY_DENSITY || p->is_graded || state->policy == EV_DENSE_ONLY)
        return 0;
    return state->policy == EV_EVENTS_ONLY ||
           density < ev_crossover(state->kernels, &p->part[0].conv,
                                  (int64_t)to->height * to->width);
}

void ev_prepare_projection(ev_state *state, const ev_node *node, int32_t k)
{
    const ev_projection *p = &state->net->projection[k];
    int64_t values = (int64_t)p->height * p->width * p->channels, events;
    size_t map_bytes = ev_map_bytes(state->net, p);

    if (p->kind == EV_IDENTITY)
        return;
    events = nonzero_of(state, p->source);
    state->by_events[k] = goes_by_events(state, p, node, (double)events / (double)values);
    state->work[k].runs++;
    state->work[k].values += values;
    state->work[k].events += events;
    state->work[k].event_work += state->by_events[k] ? values : 0;
    for (int32_t digit = 0; map_bytes > 0 && digit < p->digits.count; digit++)
        fill_map(state, p, digit, (uint8_t *)state->map[k] + (size_t)digit * map_bytes);
    if (state->by_events[k])
        state->kernels->list[p->map_format](state->map[k],
                                            (size_t)p->map_height * (size_t)p->map_width,
                                            (size_t)p->map_width, p->map_channels,
                                            &state->events[k]);
}

/* -- sums ----------------------------------------------------------------------------------------- */

/* Any groups, dilation and values, without haste. */
static void plain_pixel(const ev_projection *p, const ev_part *part, const int32_t *map, int32_t *acc)
{
    int32_t outputs = part->conv.outputs, per_group = p->channels / p->groups;
    const int16_t *weight = part->plain;

    for (int32_t o = 0; o < outputs; o++) {
        const int32_t *first = map + o / (outputs / p->groups) * per_group;
        int32_t sum = 0;

        for (int32_t y = 0; y < p->kernel_h; y++)
            for (int32_t x = 0; x < p->kernel_w; x++) {
                const int32_t *value = first + ((size_t)y * (size_t)p->dilation_h *
                                                    (size_t)p->map_width +
                                                (size_t)x * (size_t)p->dilation_w) *
                                                   (size_t)p->map_channels;

                for (int32_t c = 0; c < per_group; c++)
                    sum += value[c] * *weight++;
            }
        acc[o] += sum;
    }
}

static void plain(const ev_projection *p, const ev_part *part, const int32_t *map, int32_t pixels,
                  int32_t *acc)
{
    for (int32_t x = 0; x < pixels; x++)
        plain_pixel(p, part, map + (size_t)x * (size_t)p->stride_w * (size_t)p->map_channels,
                    acc + (size_t)x * (size_t)part->conv.lanes);
}

/* The pixel of the map where the window of output `first` begins. */
static size_t window_of(const ev_projection *p, const ev_node *node, size_t first)
{
    size_t line = (size_t)node->line;

    return first / line * (size_t)p->stride_h * (size_t)p->map_width +
           first % line * (size_t)p->stride_w;
}

void ev_deliver(ev_state *state, const ev_node *node, int32_t k, const ev_part *part, int32_t digit,
                ev_strip s, int32_t *acc)
{
    const ev_projection *p = &state->net->projection[k];
    const ev_kernels *kernels = state->kernels;
    size_t window = window_of(p, node, s.first);
    int32_t width = (int32_t)s.pixels;
    size_t line = (size_t)p->map_width * (size_t)p->map_channels;
    const uint8_t *map = (const uint8_t *)state->map[k] +
                         (size_t)digit * ev_map_bytes(state->net, p) +
                         window * (size_t)p->map_channels * ev_bytes_of(p->map_format);

    if (p->method == EV_PLAIN)
        plain(p, part, (const int32_t *)(const void *)map, width, acc);
    else if (p->method == EV_DEPTHWISE)
        kernels->depthwise[p->map_format](&part->conv, map, line, width, acc);
    else if (state->by_events[k])
        kernels->events[p->map_format](&part->conv, &state->events[k], window, (size_t)p->map_width,
                                       width, acc);
    else
        kernels->dense[p->map_format](&part->conv, map, line, width, acc);
}
