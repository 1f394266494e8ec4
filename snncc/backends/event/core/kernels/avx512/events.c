/* Convolutions from events with AVX-512 VNNI: each output gathers the weight rows of its events.
 *
 * A step takes four events (two of 16 bits): their rows, unpacked, are what vpdpbusd (vpdpwssd)
 * multiplies with the four (two) payloads, broadcast, so that sums are int32 and exact whatever the
 * payload. For 64 outputs this takes 4 loads of rows, 8 unpacks and 4 multiplications: on four
 * vector pipes 3 cycles for 256 products, of which 4 to 5 are reached. The lists are read as they
 * are: the events of pixels next to each other are contiguous and padded to whole steps. */
#include "kernels/avx512/avx512.h"

#ifdef EV_X86

enum {
    /* Bytes of rows that all pixels of a call gather from before the next part of the kernel: they
     * should stay in the L1 cache (48 KiB). */
    EV_PART = 48 * 1024,
    /* Bytes of rows up to which two or four groups of 64 lanes are taken at once. It saves loads of
     * lists, but the rows must leave room for these in the L1 cache. */
    EV_WIDE = 40 * 1024,
    /* Where less than one in EV_RARE values is an event, lists are so short that fewer of them are
     * worth more than the L1 cache: both limits are EV_FARTHER times as large. */
    EV_RARE = 6,
    EV_FARTHER = 3
};

/* What all windows of a call share. */
typedef struct {
    const ev_conv *conv;
    const ev_events *events;
    size_t first, width; /* pixel of the first window, pixels of a row */
    int32_t pixels;
    int32_t farther;     /* factor of the limits, 1 or EV_FARTHER */
} frame;

/* A part of the kernel: its rows from `top` up to `bottom`, their pixels from `left` up to
 * `right`. */
typedef struct {
    int32_t top, bottom, left, right;
} part;

typedef void part_kernel(const frame *f, const part *q, const uint8_t *rows, int32_t *acc);

EV_INLINE void step64(__m512i sum[4], const uint8_t *const row[4], size_t after, __m512i payloads,
                      int bytes)
{
    const __m512i all[4] = {payloads, payloads, payloads, payloads};
    __m512i in[4], out[4];

    EV_UNROLL for (int i = 0; i < 4; i++)
        in[i] = _mm512_load_si512((bytes == 1 ? row[i] : row[i / 2] + 64 * (i % 2)) + after);
    ev_interleave(out, in, bytes);
    ev_dot4(sum, all, out, bytes);
}

EV_INLINE __m512i halves(const uint8_t *low, const uint8_t *high)
{
    __m512i half = _mm512_castsi256_si512(_mm256_load_si256((const __m256i *)low));

    return _mm512_inserti64x4(half, _mm256_load_si256((const __m256i *)high), 1);
}

/* 32 lanes: four rows of bytes fill two registers, a row of words one. */
EV_INLINE void step32(__m512i sum[2], const uint8_t *const row[4], __m512i payloads, int bytes)
{
    __m512i a, b, low, high;

    if (bytes == 1) {
        const __m512i lanes = _mm512_set_epi32(
            0x6f4f2f0f, 0x6e4e2e0e, 0x6d4d2d0d, 0x6c4c2c0c, 0x6b4b2b0b, 0x6a4a2a0a, 0x69492909,
            0x68482808, 0x67472707, 0x66462606, 0x65452505, 0x64442404, 0x63432303, 0x62422202,
            0x61412101, 0x60402000);

        a = halves(row[0], row[1]);
        b = halves(row[2], row[3]);
        low = _mm512_permutex2var_epi8(a, lanes, b);
        high = _mm512_permutex2var_epi8(a, _mm512_or_si512(lanes, _mm512_set1_epi8(16)), b);
    } else {
        a = _mm512_load_si512(row[0]);
        b = _mm512_load_si512(row[1]);
        low = _mm512_unpacklo_epi16(a, b);
        high = _mm512_unpackhi_epi16(a, b);
    }
    ev_dot1(sum, payloads, low, bytes);
    ev_dot1(sum + 1, payloads, high, bytes);
}

/* 16 lanes: four rows of bytes, or two of words, fill one register. */
EV_INLINE void step16(__m512i *sum, const uint8_t *const row[4], __m512i payloads, int bytes)
{
    __m512i all;

    if (bytes == 1) {
        const __m512i lanes = _mm512_set_epi32(
            0x3f2f1f0f, 0x3e2e1e0e, 0x3d2d1d0d, 0x3c2c1c0c, 0x3b2b1b0b, 0x3a2a1a0a, 0x39291909,
            0x38281808, 0x37271707, 0x36261606, 0x35251505, 0x34241404, 0x33231303, 0x32221202,
            0x31211101, 0x30201000);

        all = _mm512_castsi128_si512(_mm_load_si128((const __m128i *)row[0]));
        all = _mm512_inserti32x4(all, _mm_load_si128((const __m128i *)row[1]), 1);
        all = _mm512_inserti32x4(all, _mm_load_si128((const __m128i *)row[2]), 2);
        all = _mm512_inserti32x4(all, _mm_load_si128((const __m128i *)row[3]), 3);
        all = _mm512_permutexvar_epi8(lanes, all);
    } else {
        const __m512i lanes = _mm512_set_epi32(
            0x1f000f, 0x1e000e, 0x1d000d, 0x1c000c, 0x1b000b, 0x1a000a, 0x190009, 0x180008,
            0x170007, 0x160006, 0x150005, 0x140004, 0x130003, 0x120002, 0x110001, 0x100000);

        all = _mm512_permutexvar_epi16(lanes, halves(row[0], row[1]));
    }
    ev_dot1(sum, payloads, all, bytes);
}

EV_INLINE uint64_t two_indices(const uint32_t *at)
{
    uint64_t both;

    memcpy(&both, at, sizeof both);
    return both;
}

EV_INLINE const uint8_t *row_of(uintptr_t rows, uint64_t index, int stride)
{
    return (const uint8_t *)(rows + index * (uintptr_t)(stride / EV_LANES));
}

/* The events of one step, from `e` on. Indices are loaded in pairs because load pipes are
 * scarce. */
EV_INLINE void step(__m512i *sum, const ev_events *events, size_t e, uintptr_t rows, size_t next,
                    int bytes, int width, int groups)
{
    const uint32_t *index = events->index + e;
    __m512i payloads = ev_broadcast((const uint8_t *)events->payload + e * (size_t)bytes);
    uint64_t ab = two_indices(index), cd = bytes == 1 ? two_indices(index + 2) : 0;
    int stride = width * bytes;
    const uint8_t *const row[4] = {
        row_of(rows, ab & UINT32_MAX, stride), row_of(rows, ab >> 32, stride),
        row_of(rows, cd & UINT32_MAX, stride), row_of(rows, cd >> 32, stride)};

    if (width == 16)
        step16(sum, row, payloads, bytes);
    else if (width == 32)
        step32(sum, row, payloads, bytes);
    else
        EV_UNROLL for (int g = 0; g < groups; g++)
            step64(sum + 4 * g, row, (size_t)g * next, payloads, bytes);
}

/* The events from `e` up to `end`; the row of index 0 would be at `rows`, others are width * bytes
 * a position after. A single group of lanes has two sets of sums, so that no addition waits for
 * the one before. */
EV_INLINE void gather(__m512i *sum, const ev_events *events, size_t e, size_t end, uintptr_t rows,
                      size_t next, int bytes, int width, int groups)
{
    const size_t taps = (size_t)(4 / bytes);

    for (; groups == 1 && e + 2 * taps <= end; e += 2 * taps) {
        step(sum, events, e, rows, next, bytes, width, groups);
        step(sum + width / 16, events, e + taps, rows, next, bytes, width, groups);
    }
    for (; e < end; e += taps)
        step(sum, events, e, rows, next, bytes, width, groups);
}

/* A part of the kernel for all pixels; `rows` are those of the first of `groups` groups of
 * lanes. */
EV_INLINE void part_of(const frame *f, const part *q, const uint8_t *rows, int32_t *acc, int bytes,
                       int width, int groups)
{
    const ev_conv *conv = f->conv;
    size_t channels = (size_t)conv->channels * (size_t)(width * bytes);
    size_t row = (size_t)conv->kernel_w * channels, next = (size_t)conv->kernel_h * row;
    size_t left = f->first % f->width;
    int sums = groups * width / 16, sets = groups == 1 ? 2 : 1;

    for (int32_t p = 0; p < f->pixels; p++, acc += conv->lanes) {
        size_t x = (size_t)p * (size_t)conv->stride_w, y = (size_t)q->top;
        const uint32_t *start = f->events->start + f->first + x + y * f->width;
        uintptr_t from = (uintptr_t)rows + y * row - (left + x) * channels;
        __m512i sum[16];

        EV_UNROLL for (int i = 0; i < sets * sums; i++)
            sum[i] = _mm512_setzero_si512();
        for (; y < (size_t)q->bottom; y++, start += f->width, from += row)
            gather(sum, f->events, start[q->left], start[q->right], from, next, bytes, width,
                   groups);
        EV_UNROLL for (int i = 0; i < sums; i++)
            ev_accumulate(acc + 16 * i,
                          sets == 1 ? sum[i] : _mm512_add_epi32(sum[i], sum[i + sums]));
    }
}

#define PART(bytes, width, groups)                                                              \
    EV_TARGET static void part_##bytes##_##width##_##groups(const frame *f, const part *q,      \
                                                            const uint8_t *rows, int32_t *acc)  \
    {                                                                                           \
        part_of(f, q, rows, acc, bytes, width, groups);                                         \
    }

PART(1, 16, 1) PART(1, 32, 1) PART(1, 64, 1) PART(1, 64, 2) PART(1, 64, 4)
PART(2, 16, 1) PART(2, 32, 1) PART(2, 64, 1) PART(2, 64, 2) PART(2, 64, 4)

static part_kernel *kernel_of(int32_t bytes, int32_t lanes)
{
    if (lanes == 16)
        return bytes == 1 ? part_1_16_1 : part_2_16_1;
    if (lanes == 32)
        return bytes == 1 ? part_1_32_1 : part_2_32_1;
    if (lanes == 64)
        return bytes == 1 ? part_1_64_1 : part_2_64_1;
    if (lanes == 128)
        return bytes == 1 ? part_1_64_2 : part_2_64_2;
    return bytes == 1 ? part_1_64_4 : part_2_64_4;
}

static int32_t least(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

/* Some lanes, in as many parts of the kernel as the cache asks for; the rows of a single output are
 * read once whatever the order. */
static void lanes_of(const frame *f, const uint8_t *rows, int32_t lanes, int32_t *acc)
{
    const ev_conv *conv = f->conv;
    part_kernel *kernel = kernel_of(conv->bytes, lanes);
    int32_t taps = f->farther * EV_PART / (conv->channels * lanes * conv->bytes);
    int32_t across = f->pixels == 1 ? conv->kernel_w : least(conv->kernel_w, taps);
    int32_t down = f->pixels == 1 ? conv->kernel_h : taps / conv->kernel_w;

    across = across < 1 ? 1 : across;
    down = down < 1 ? 1 : down;
    for (int32_t y = 0; y < conv->kernel_h; y += down)
        for (int32_t x = 0; x < conv->kernel_w; x += across) {
            part q = {y, least(y + down, conv->kernel_h), x, least(x + across, conv->kernel_w)};

            kernel(f, &q, rows, acc);
        }
}

/* How many lanes to take at once from lane `first`. */
static int32_t lanes_at(const frame *f, int32_t first)
{
    const ev_conv *conv = f->conv;
    int32_t lanes = ev_rows_width(conv, first), most = f->farther * EV_WIDE;
    int64_t window = (int64_t)conv->kernel_h * ev_span(conv) * conv->bytes;

    if (lanes < EV_GROUP)
        return lanes;
    while (lanes < 4 * EV_GROUP && 2 * lanes <= conv->lanes - first &&
           (f->pixels == 1 || 2 * lanes * window <= most))
        lanes *= 2;
    return lanes;
}

/* Whether events are rare in the first row of the windows. */
static int are_rare(const frame *f)
{
    const ev_conv *conv = f->conv;
    size_t pixels = (size_t)((f->pixels - 1) * conv->stride_w + conv->kernel_w);
    const uint32_t *start = f->events->start + f->first;

    return (size_t)(start[pixels] - start[0]) * EV_RARE < pixels * (size_t)conv->channels;
}

void ev_avx512_events(const ev_conv *conv, const ev_events *events, size_t first, size_t width,
                      int32_t pixels, int32_t *acc)
{
    frame f = {conv, events, first, width, pixels, 1};

    if (are_rare(&f))
        f.farther = EV_FARTHER;
    for (int32_t lane = 0, lanes; lane < conv->lanes; lane += lanes) {
        lanes = lanes_at(&f, lane);
        lanes_of(&f,
                 (const uint8_t *)conv->rows + ev_group_offset(conv, lane) * (size_t)conv->bytes,
                 lanes, acc + lane);
    }
}

#endif
