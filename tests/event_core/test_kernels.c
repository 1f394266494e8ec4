/* Every kernel of every instruction set of this machine against a naive loop, on random geometries.
 * Buffers are exactly as large as kernels.h grants, for the sanitizers to see; the slack holds
 * noise. Usage: test_kernels [rounds] [seed] */
#define _POSIX_C_SOURCE 200112L

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/sets.h"

static uint64_t state = 1;

static uint32_t draw(uint32_t below)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((state >> 33) % below);
}

static int32_t between(int32_t low, int32_t high)
{
    return low + (int32_t)draw((uint32_t)(high - low) + 1);
}

static void *room(size_t size, size_t slack)
{
    void *memory = NULL;

    if (posix_memalign(&memory, EV_ALIGN, size + slack + !(size + slack)) != 0)
        abort();
    for (size_t i = 0; i < size + slack; i++)
        ((uint8_t *)memory)[i] = (uint8_t)draw(256);
    return memory;
}

/* A convolution, its map, and what the kernels need of both. */
typedef struct {
    ev_conv conv;
    int32_t height, width; /* of the padded map */
    int16_t *weights;      /* [outputs][kernel_h][kernel_w][channels] */
    void *map;
    ev_events events;
} scene;

static int32_t value(const scene *s, size_t at)
{
    return s->conv.bytes == 1 ? ((uint8_t *)s->map)[at] : ((int16_t *)s->map)[at];
}

static void set(const scene *s, size_t at, int32_t v)
{
    if (s->conv.bytes == 1)
        ((uint8_t *)s->map)[at] = (uint8_t)v;
    else
        ((int16_t *)s->map)[at] = (int16_t)v;
}

static int32_t any_payload(int32_t bytes)
{
    static const int32_t one[] = {1, 2, 3, 4, 8, 15, 43, 64, 127, 128, 129, 130, 200, 254, 255};
    static const int32_t two[] = {1, 4, 255, 256, 1000, 16384, 32767};

    return bytes == 1 ? one[draw(15)] : two[draw(7)];
}

/* Largest weight for which no sum over `taps` weights leaves int32, with room for the start. */
static int32_t weight_bound(const ev_conv *conv, int64_t taps)
{
    int64_t bound = (INT32_MAX - (1 << 20)) / ((int64_t)conv->payload * taps);
    int32_t most = conv->bytes == 1 ? 127 : 32639;

    return bound < most ? (int32_t)bound : most;
}

/* Weights at the extremes (all one sign, or any), all over the range, or zero. */
static int16_t any_weight(int32_t most, int32_t kind)
{
    if (kind == 0)
        return (int16_t)most;
    if (kind == 1)
        return (int16_t)-most;
    if (kind == 2)
        return (int16_t)(draw(2) ? most : -most);
    return (int16_t)between(-most, most);
}

/* Words have a sign, of which the map has both in half of the scenes. */
static void fill_map(scene *s)
{
    size_t count = (size_t)s->height * (size_t)s->width * (size_t)s->conv.channels;
    uint32_t density[] = {0, 2, 10, 30, 50, 100}, chosen = density[draw(6)];
    int32_t extreme = (int32_t)draw(2), is_signed = s->conv.bytes == 2 && draw(2);

    s->map = room(count * (size_t)s->conv.bytes, EV_SLACK);
    for (size_t i = 0; i < count; i++) {
        int32_t some = extreme ? s->conv.payload : between(1, s->conv.payload);

        set(s, i, draw(100) >= chosen ? 0 : is_signed && draw(2) ? -some : some);
    }
}

static void fill_weights(scene *s, size_t count, int64_t taps)
{
    int32_t most = weight_bound(&s->conv, taps), kind = (int32_t)draw(4);

    s->weights = room(count * sizeof(int16_t), 0);
    for (size_t i = 0; i < count; i++)
        s->weights[i] = any_weight(most, kind);
}

/* Room for a list of every value of the map. */
static ev_events events_room(const scene *s)
{
    size_t pixels = (size_t)s->height * (size_t)s->width;
    size_t values = pixels * (size_t)s->conv.channels;
    ev_events events = {
        .start = room((pixels + 1) * sizeof(uint32_t), EV_SLACK),
        .index = room(values * sizeof(uint32_t), EV_SLACK),
        .payload = room(values * (size_t)s->conv.bytes, EV_SLACK),
    };

    return events;
}

static void put(const ev_events *events, size_t at, size_t position, int32_t payload, int32_t bytes)
{
    events->index[at] = (uint32_t)position * EV_LANES;
    if (bytes == 1)
        ((uint8_t *)events->payload)[at] = (uint8_t)payload;
    else
        ((int16_t *)events->payload)[at] = (int16_t)payload;
}

static void fill_events(scene *s)
{
    size_t channels = (size_t)s->conv.channels, grain = (size_t)(EV_GRAIN / s->conv.bytes);
    size_t pixels = (size_t)s->height * (size_t)s->width, found = 0;

    s->events = events_room(s);
    for (size_t p = 0; p < pixels; p++) {
        size_t home = p % (size_t)s->width * channels;

        s->events.start[p] = (uint32_t)found;
        for (size_t c = 0; c < channels; c++)
            if (value(s, p * channels + c) != 0)
                put(&s->events, found++, home + c, value(s, p * channels + c), s->conv.bytes);
        while (found % grain != 0)
            put(&s->events, found++, home, 0, s->conv.bytes);
    }
    s->events.start[pixels] = (uint32_t)found;
}

static int32_t padded(int32_t count, int32_t to)
{
    return (count + to - 1) / to * to;
}

static scene any_scene(int32_t bytes)
{
    static const int32_t outputs[] = {1, 10, 16, 20, 32, 48, 64, 70, 96, 112, 128, 180, 256, 300};
    scene s = {0};
    ev_conv *conv = &s.conv;

    conv->bytes = bytes;
    conv->payload = any_payload(bytes);
    conv->kernel_h = between(1, draw(4) ? 3 : 7);
    conv->kernel_w = between(1, draw(4) ? 3 : 7);
    conv->stride_w = draw(3) ? 1 : between(1, 3);
    conv->channels = 4 * between(1, conv->kernel_h * conv->kernel_w > 9 ? 6 : 20);
    if (draw(20) == 0) /* rows of weights beyond the caches' share */
        conv->channels = 4 * between(60, 160);
    conv->outputs = outputs[draw(14)];
    conv->lanes = padded(conv->outputs, EV_LANES);
    s.height = conv->kernel_h + between(0, 2);
    s.width = conv->kernel_w + between(0, draw(2) ? 4 : 20);
    fill_map(&s);
    return s;
}

static scene conv_scene(int32_t bytes)
{
    scene s = any_scene(bytes);
    int32_t window = s.conv.kernel_h * s.conv.kernel_w * s.conv.channels;

    fill_weights(&s, (size_t)(s.conv.outputs * window), window);
    s.conv.dense = room(ev_dense_size(&s.conv), 0);
    s.conv.rows = room(ev_rows_size(&s.conv), 0);
    ev_pack(&s.conv, s.weights);
    fill_events(&s);
    return s;
}

static void free_scene(scene *s)
{
    free(s->weights);
    free(s->map);
    free(s->conv.dense);
    free(s->conv.rows);
    free(s->events.start);
    free(s->events.index);
    free(s->events.payload);
}

static int32_t naive_conv(const scene *s, int32_t y, int32_t x, int32_t output)
{
    const ev_conv *conv = &s->conv;
    const int16_t *weight = s->weights + (size_t)output * (size_t)(conv->kernel_h *
                                                                   conv->kernel_w * conv->channels);
    int32_t sum = 0;

    for (int32_t j = 0; j < conv->kernel_h; j++)
        for (int32_t i = 0; i < conv->kernel_w; i++)
            for (int32_t c = 0; c < conv->channels; c++)
                sum += *weight++ *
                       value(s, (size_t)(((y + j) * s->width + x + i) * conv->channels + c));
    return sum;
}

static int32_t naive_depthwise(const scene *s, int32_t y, int32_t x, int32_t c)
{
    const ev_conv *conv = &s->conv;
    int32_t sum = 0;

    for (int32_t j = 0; j < conv->kernel_h; j++)
        for (int32_t i = 0; i < conv->kernel_w; i++)
            sum += s->weights[(j * conv->kernel_w + i) * conv->lanes + c] *
                   value(s, (size_t)(((y + j) * s->width + x + i) * conv->channels + c));
    return sum;
}

typedef enum { DENSE, EVENTS, DEPTHWISE } kind;

static const char *const kind_names[] = {"dense", "events", "depthwise"};

static int complain(const ev_kernels *k, const scene *s, kind what, int32_t pixel, int32_t lane,
                    int32_t got, int32_t want)
{
    printf("%s %s: output %d of pixel %d is %d, should be %d (bytes %d payload %d channels %d "
           "kernel %dx%d stride %d outputs %d map %dx%d)\n",
           k->name, kind_names[what], lane, pixel, got, want, s->conv.bytes, s->conv.payload,
           s->conv.channels, s->conv.kernel_h, s->conv.kernel_w, s->conv.stride_w, s->conv.outputs,
           s->height, s->width);
    return 1;
}

static void call(const ev_kernels *k, const scene *s, kind what, int32_t y, int32_t x,
                 int32_t pixels, int32_t *acc)
{
    size_t first = (size_t)(y * s->width + x), bytes = (size_t)s->conv.bytes;
    size_t row = (size_t)s->width * (size_t)s->conv.channels;
    const uint8_t *map = (uint8_t *)s->map + first * (size_t)s->conv.channels * bytes;

    if (what == DENSE)
        k->dense[bytes - 1](&s->conv, map, row, pixels, acc);
    else if (what == DEPTHWISE)
        k->depthwise[bytes - 1](&s->conv, map, row, pixels, acc);
    else
        k->events[bytes - 1](&s->conv, &s->events, first, (size_t)s->width, pixels, acc);
}

static int32_t naive(const scene *s, kind what, int32_t y, int32_t x, int32_t lane)
{
    if (lane >= s->conv.outputs)
        return 0;
    return what == DEPTHWISE ? naive_depthwise(s, y, x, lane) : naive_conv(s, y, x, lane);
}

/* Some outputs of one row, beginning anywhere. */
static int check_row(const ev_kernels *k, const scene *s, kind what)
{
    int32_t y = between(0, s->height - s->conv.kernel_h);
    int32_t x = between(0, s->width - s->conv.kernel_w), lanes = s->conv.lanes;
    int32_t pixels = between(1, (s->width - s->conv.kernel_w - x) / s->conv.stride_w + 1);
    int32_t *acc = room((size_t)(pixels * lanes) * sizeof(int32_t), 0), start = between(-9, 9);
    int bad = 0;

    for (int32_t i = 0; i < pixels * lanes; i++)
        acc[i] = start + i % 7;
    call(k, s, what, y, x, pixels, acc);
    for (int32_t i = 0; i < pixels * lanes && !bad; i++) {
        int32_t want = start + i % 7 + naive(s, what, y, x + i / lanes * s->conv.stride_w,
                                             i % lanes);

        if (acc[i] != want)
            bad = complain(k, s, what, i / lanes, i % lanes, acc[i], want);
    }
    free(acc);
    return bad;
}

static int test_conv(const ev_kernels *k, int32_t bytes)
{
    scene s = conv_scene(bytes);
    int bad = 0;

    for (int times = 0; times < 2; times++)
        bad |= check_row(k, &s, DENSE) | check_row(k, &s, EVENTS);
    free_scene(&s);
    return bad;
}

static int test_depthwise(const ev_kernels *k, int32_t bytes)
{
    scene s = {0};
    ev_conv *conv = &s.conv;
    int32_t taps;

    conv->bytes = bytes;
    conv->payload = any_payload(bytes);
    conv->kernel_h = between(1, 7);
    conv->kernel_w = draw(2) ? conv->kernel_h : between(1, 7);
    conv->stride_w = draw(3) ? 1 : between(1, 3);
    conv->channels = conv->lanes = conv->outputs = EV_LANES * between(1, 9);
    s.height = conv->kernel_h + between(0, 2);
    s.width = conv->kernel_w + between(0, 20);
    taps = conv->kernel_h * conv->kernel_w;
    fill_map(&s);
    fill_weights(&s, (size_t)(taps * conv->lanes), taps);
    conv->dense = room(ev_depthwise_size(conv), 0);
    ev_pack_depthwise(conv, s.weights);
    int bad = check_row(k, &s, DEPTHWISE);
    free_scene(&s);
    return bad;
}

static int test_list(const ev_kernels *k, int32_t bytes)
{
    scene s = any_scene(bytes);
    size_t pixels = (size_t)s.height * (size_t)s.width;
    ev_events got = events_room(&s);

    fill_events(&s);
    size_t found = s.events.start[pixels];
    k->list[bytes - 1](s.map, pixels, (size_t)s.width, s.conv.channels, &got);
    int bad = memcmp(got.start, s.events.start, (pixels + 1) * sizeof(uint32_t)) != 0 ||
              memcmp(got.index, s.events.index, found * sizeof(uint32_t)) != 0 ||
              memcmp(got.payload, s.events.payload, found * (size_t)bytes) != 0;
    if (bad)
        printf("%s list: wrong for bytes %d channels %d map %dx%d\n", k->name, bytes,
               s.conv.channels, s.height, s.width);
    free(got.start);
    free(got.index);
    free(got.payload);
    free_scene(&s);
    return bad;
}

static int test_nonzero(const ev_kernels *k)
{
    size_t count = draw(1000), want = 0, offset = draw(64);
    uint8_t *values = room(offset + count, EV_SLACK);
    uint32_t zeros = draw(101);

    for (size_t i = 0; i < count; i++)
        want += (values[offset + i] = (uint8_t)(draw(100) < zeros ? 0 : between(1, 255))) != 0;
    size_t got = k->nonzero(values + offset, count);
    if (got != want)
        printf("%s nonzero: %zu of %zu, should be %zu\n", k->name, got, count, want);
    free(values);
    return got != want;
}

static int64_t any_value(int bits)
{
    uint64_t some = ((uint64_t)draw(1u << 31) << 32) ^ ((uint64_t)draw(1u << 31) << 1) ^ draw(2);
    int64_t least = -(INT64_C(1) << (bits - 1));

    return draw(8) ? least + (int64_t)(some >> (64 - bits)) : least + (int64_t)draw(2);
}

/* All digits of values of up to `bits` bits: each as it is defined, and together the values. */
static int digits_of(const ev_kernels *k, int wide, int bits, int low_bits, size_t count)
{
    int64_t *values = room(count * 8, 0), *rest = room(count * 8, 0);
    void *read = room(count * (wide ? 8 : 4), 0);
    int16_t *got = room(count * 2, 0);
    int64_t half = INT64_C(1) << (low_bits - 1);
    int bad = 0, places = (bits + low_bits - 1) / low_bits;

    for (size_t i = 0; i < count; i++) {
        values[i] = rest[i] = any_value(bits);
        if (wide)
            ((int64_t *)read)[i] = values[i];
        else
            ((int32_t *)read)[i] = (int32_t)values[i];
    }
    for (int place = 0, last = 0; !last && !bad; place++) {
        ev_digit digit = {.shift = place * low_bits, .mask = 2 * half - 1, .take = half};

        last = place == places - 1;
        for (int below = 0; below < place + !last; below++)
            digit.add += half << below * low_bits;
        if (last) {
            digit.mask = -1;
            digit.take = 0;
        }
        k->digits[wide](read, &digit, count, got);
        for (size_t i = 0; i < count && !bad; i++) {
            int64_t base = INT64_C(1) << low_bits;
            int64_t want = last ? rest[i] : (rest[i] % base + base + half) % base - half;

            bad = got[i] != want;
            rest[i] = last ? 0 : (rest[i] - want) / base;
            if (bad)
                printf("%s digits: %lld has %d at place %d of %d bits, should be %lld\n", k->name,
                       (long long)values[i], got[i], place, low_bits, (long long)want);
        }
    }
    free(values);
    free(rest);
    free(read);
    free(got);
    return bad;
}

static int test_digits(const ev_kernels *k)
{
    int low_bits = between(1, 15);

    return digits_of(k, 0, between(low_bits, 29), low_bits, draw(100)) ||
           digits_of(k, 1, between(low_bits, 61), low_bits, draw(100));
}

static uint8_t naive_count(int32_t potential, const int32_t *levels, int32_t D, int32_t lanes,
                           int32_t c)
{
    int32_t count = 0;

    for (int32_t j = 0; j < D; j++)
        count += potential >= levels[j * lanes + c];
    return (uint8_t)count;
}

static int test_fire(const ev_kernels *k)
{
    static const int32_t Ds[] = {1, 2, 3, 4, 7, 8, 15, 16, 31, 200, 255};
    int32_t D = Ds[draw(11)], channels = between(1, 200), pixels = between(1, 9), bad = 0;
    int32_t lanes = padded(channels, EV_LANES), mode = between(0, 2);
    static const int32_t ranges[] = {1000, 40000, 1 << 29};
    int32_t range = ranges[draw(3)], reach = ranges[draw(3)], extreme = (int32_t)draw(2);
    int32_t bias_row = mode < 2 ? 0 : channels + between(0, 3);
    int32_t biases = mode < 2 ? lanes : bias_row * pixels;
    int32_t *acc = room((size_t)(pixels * lanes) * sizeof(int32_t), 0);
    int32_t *levels = room((size_t)(D * lanes) * sizeof(int32_t), 0);
    int32_t *bias = room((size_t)biases * sizeof(int32_t), 0);
    uint8_t *counts = room((size_t)(pixels * channels), 0);

    for (int32_t i = 0; i < pixels * lanes; i++)
        acc[i] = between(-range, range);
    for (int32_t i = 0; i < D * lanes; i++)
        levels[i] = draw(50) || !extreme ? between(-reach, reach) : draw(2) ? INT32_MAX : INT32_MIN;
    for (int32_t i = 0; i < biases; i++)
        bias[i] = between(-range, range);
    k->fire(acc, mode ? bias : NULL, (size_t)bias_row, levels, D, pixels, channels, lanes, counts);
    for (int32_t i = 0; i < pixels * channels && !bad; i++) {
        int32_t p = i / channels, c = i % channels;
        int32_t v = acc[p * lanes + c] + (mode ? bias[p * bias_row + c] : 0);
        uint8_t want = naive_count(v, levels, D, lanes, c);

        bad = counts[i] != want;
        if (bad)
            printf("%s fire: pixel %d channel %d counts %d, should be %d (D %d bias %d)\n", k->name,
                   p, c, counts[i], want, D, mode);
    }
    free(acc);
    free(levels);
    free(bias);
    free(counts);
    return bad;
}

static int test(const ev_kernels *k, int rounds)
{
    int bad = 0;

    for (int i = 0; i < rounds && !bad; i++) {
        for (int32_t bytes = 1; bytes <= 2; bytes++)
            bad |= test_conv(k, bytes) | test_depthwise(k, bytes) | test_list(k, bytes);
        bad |= test_nonzero(k) | test_fire(k) | test_digits(k);
    }
    printf("%s: %d rounds of dense, events, depthwise, list, nonzero, fire, digits: %s\n", k->name, rounds,
           bad ? "WRONG" : "equal to naive loops");
    return bad;
}

int main(int argc, char **argv)
{
    static const char *const names[] = {EV_SETS(EV_NAME)};
    int rounds = argc > 1 ? atoi(argv[1]) : 300, bad = 0;

    if (argc > 2)
        state = strtoull(argv[2], NULL, 10);
    if (ev_kernels_of("none") != NULL) {
        puts("an unknown instruction set has kernels");
        bad = 1;
    }
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (ev_kernels_of(names[i]) != NULL)
            bad |= test(ev_kernels_of(names[i]), rounds);
        else
            printf("%s: this machine lacks it\n", names[i]);
    return bad;
}
