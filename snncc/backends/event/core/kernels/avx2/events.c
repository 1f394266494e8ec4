/* Convolutions from events with AVX2: each output gathers the weight rows of its events.
 *
 * The rows of two events, unpacked, are what vpmaddubsw multiplies with the two payloads, and the
 * sums of 16 bits are widened before they can overflow. Larger payloads take four events at a time,
 * unpacked twice and widened at once; words take two and vpmaddwd. 64 lanes are computed together:
 * a pair of events is then 4 loads, 4 unpacks, 4 multiplications and 4 additions. */
#include "kernels/avx2/avx2.h"

#ifdef EV_X86

/* Bytes of rows that all pixels of a call gather from before the next part of the kernel. This is
 * more than the L1 cache, since the L2 cache feeds 256-bit loads well and more, shorter lists cost
 * more. */
enum { EV_PART = 72 * 1024 };

/* Largest payload of EV_NARROW here, where widening takes longer than in dense convolutions. */
enum { EV_PAIRS_MOST = 14 };

/* What all windows of a call share. */
typedef struct {
    const ev_conv *conv;
    const ev_events *events;
    size_t first, width; /* pixel of the first window, pixels of a row */
    int32_t pixels;
    size_t room; /* steps of four events that fit the sums of EV_NARROW */
} frame;

/* A part of the kernel: its rows from `top` up to `bottom`, their pixels from `left` up to
 * `right`. */
typedef struct {
    int32_t top, bottom, left, right;
} part;

typedef void part_kernel(const frame *f, const part *q, const uint8_t *rows, int32_t *acc);

/* Sums of a window: `wide` of int32, and of 16 bits for EV_NARROW. Sum 4 * h + i of bytes holds
 * weights 32 * h + 4 * i .. + 3 of the rows in its lower half and the 16 after those in its upper
 * one; sum 2 * u + i of words weights 16 * u + 4 * i .. + 3 and the 8 after those. */
typedef struct {
    __m256i wide[8];
    __m256i narrow[4];
} sums;

/* Four events of bytes, each pair of them a sum of 16 bits. */
EV_INLINE void step_narrow(sums *s, const uint8_t *const row[4], int32_t payload, int halves)
{
    __m256i low = _mm256_set1_epi16((int16_t)payload);
    __m256i high = _mm256_set1_epi16((int16_t)(payload >> 16));

    EV_UNROLL for (int h = 0; h < halves; h++) {
        __m256i a = ev_load(row[0] + 32 * h), b = ev_load(row[1] + 32 * h);
        __m256i c = ev_load(row[2] + 32 * h), d = ev_load(row[3] + 32 * h);
        __m256i *sum = s->narrow + 2 * h;

        ev_dot(sum + 0, low, _mm256_unpacklo_epi8(a, b), EV_NARROW);
        ev_dot(sum + 1, low, _mm256_unpackhi_epi8(a, b), EV_NARROW);
        ev_dot(sum + 0, high, _mm256_unpacklo_epi8(c, d), EV_NARROW);
        ev_dot(sum + 1, high, _mm256_unpackhi_epi8(c, d), EV_NARROW);
    }
}

/* Four events of bytes, all of them a sum of int32. */
EV_INLINE void step_wide(sums *s, const uint8_t *const row[4], int32_t payload, int halves,
                         ev_form form)
{
    __m256i all = _mm256_set1_epi32(payload);

    EV_UNROLL for (int h = 0; h < halves; h++) {
        __m256i a = ev_load(row[0] + 32 * h), b = ev_load(row[1] + 32 * h);
        __m256i c = ev_load(row[2] + 32 * h), d = ev_load(row[3] + 32 * h);
        __m256i ab0 = _mm256_unpacklo_epi8(a, b), ab1 = _mm256_unpackhi_epi8(a, b);
        __m256i cd0 = _mm256_unpacklo_epi8(c, d), cd1 = _mm256_unpackhi_epi8(c, d);
        __m256i *sum = s->wide + 4 * h;

        ev_dot(sum + 0, all, _mm256_unpacklo_epi16(ab0, cd0), form);
        ev_dot(sum + 1, all, _mm256_unpackhi_epi16(ab0, cd0), form);
        ev_dot(sum + 2, all, _mm256_unpacklo_epi16(ab1, cd1), form);
        ev_dot(sum + 3, all, _mm256_unpackhi_epi16(ab1, cd1), form);
    }
}

/* Two events of words. */
EV_INLINE void step_words(sums *s, const uint8_t *const row[4], int32_t payload, int quarters)
{
    __m256i both = _mm256_set1_epi32(payload);

    EV_UNROLL for (int u = 0; u < quarters; u++) {
        __m256i a = ev_load(row[0] + 32 * u), b = ev_load(row[1] + 32 * u);
        __m256i *sum = s->wide + 2 * u;

        ev_dot(sum + 0, both, _mm256_unpacklo_epi16(a, b), EV_WORDS);
        ev_dot(sum + 1, both, _mm256_unpackhi_epi16(a, b), EV_WORDS);
    }
}

EV_INLINE void widen(sums *s, int halves)
{
    const __m256i zero = _mm256_setzero_si256();

    EV_UNROLL for (int n = 0; n < 2 * halves; n++) {
        __m256i low = _mm256_srai_epi32(_mm256_unpacklo_epi16(zero, s->narrow[n]), 16);
        __m256i high = _mm256_srai_epi32(_mm256_unpackhi_epi16(zero, s->narrow[n]), 16);

        s->wide[2 * n] = _mm256_add_epi32(s->wide[2 * n], low);
        s->wide[2 * n + 1] = _mm256_add_epi32(s->wide[2 * n + 1], high);
        s->narrow[n] = zero;
    }
}

EV_INLINE const uint8_t *row_of(const ev_events *events, size_t e, uintptr_t rows, int stride)
{
    return (const uint8_t *)(rows + events->index[e] * (uintptr_t)(stride / EV_LANES));
}

/* The events from `e` up to `end`; the row of index 0 would be at `rows`, others are width * bytes
 * a position after. */
EV_INLINE void steps(sums *s, const ev_events *events, size_t e, size_t end, uintptr_t rows,
                     int width, ev_form form)
{
    int bytes = form == EV_WORDS ? 2 : 1, stride = width * bytes;
    int vectors = stride / 32 ? stride / 32 : 1;

    for (; e < end; e += (size_t)(4 / bytes)) {
        const uint8_t *const row[4] = {row_of(events, e, rows, stride),
                                       row_of(events, e + 1, rows, stride),
                                       bytes == 1 ? row_of(events, e + 2, rows, stride) : NULL,
                                       bytes == 1 ? row_of(events, e + 3, rows, stride) : NULL};
        int32_t payload = ev_word((const uint8_t *)events->payload + e * (size_t)bytes);

        if (form == EV_NARROW)
            step_narrow(s, row, payload, vectors);
        else if (form == EV_WORDS)
            step_words(s, row, payload, vectors);
        else
            step_wide(s, row, payload, vectors, form);
    }
}

/* The same, with room for only so many steps in the sums of 16 bits; returns what is left of it. */
EV_INLINE size_t gather(const frame *f, sums *s, size_t e, size_t end, uintptr_t rows, size_t room,
                        int width, ev_form form)
{
    if (form != EV_NARROW) {
        steps(s, f->events, e, end, rows, width, form);
        return room;
    }
    while (e < end) {
        size_t stop = end - e <= 4 * room ? end : e + 4 * room;

        steps(s, f->events, e, stop, rows, width, form);
        room -= (stop - e) / 4;
        e = stop;
        if (room == 0) {
            widen(s, width == 64 ? 2 : 1);
            room = f->room;
        }
    }
    return room;
}

EV_INLINE void settle(const sums *s, int32_t *acc, int width, int bytes)
{
    EV_UNROLL for (int n = 0; n < 8; n++) {
        int lot = bytes == 1 ? n / 4 * 8 + n % 4 : n / 2 * 4 + n % 2, after = 4 / bytes;

        if (4 * (lot + after) < width)
            ev_accumulate(acc, s->wide[n], ev_rows_lane(width, bytes, lot),
                          ev_rows_lane(width, bytes, lot + after));
        else if (4 * lot < width) {
            __m128i *to = (__m128i *)(acc + ev_rows_lane(width, bytes, lot));

            _mm_store_si128(to,
                            _mm_add_epi32(_mm_load_si128(to), _mm256_castsi256_si128(s->wide[n])));
        }
    }
}

/* A part of the kernel for all pixels; `rows` are those of the group of lanes. */
EV_INLINE void part_of(const frame *f, const part *q, const uint8_t *rows, int32_t *acc, int width,
                       ev_form form)
{
    const ev_conv *conv = f->conv;
    int bytes = form == EV_WORDS ? 2 : 1;
    size_t channels = (size_t)conv->channels * (size_t)(width * bytes);
    size_t row = (size_t)conv->kernel_w * channels, left = f->first % f->width;

    for (int32_t p = 0; p < f->pixels; p++, acc += conv->lanes) {
        size_t x = (size_t)p * (size_t)conv->stride_w, y = (size_t)q->top, room = f->room;
        const uint32_t *start = f->events->start + f->first + x + y * f->width;
        uintptr_t from = (uintptr_t)rows + y * row - (left + x) * channels;
        sums s;

        EV_UNROLL for (int n = 0; n < 8; n++)
            s.wide[n] = s.narrow[n / 2] = _mm256_setzero_si256();
        for (; y < (size_t)q->bottom; y++, start += f->width, from += row)
            room = gather(f, &s, start[q->left], start[q->right], from, room, width, form);
        if (form == EV_NARROW)
            widen(&s, width == 64 ? 2 : 1);
        settle(&s, acc, width, bytes);
    }
}

#define PART(form, width)                                                                       \
    EV_TARGET static void form##_##width(const frame *f, const part *q, const uint8_t *rows,    \
                                         int32_t *acc)                                          \
    {                                                                                           \
        part_of(f, q, rows, acc, width, EV_##form);                                             \
    }
#define PARTS(form) PART(form, 16) PART(form, 32) PART(form, 64)

PARTS(NARROW) PARTS(WIDE) PARTS(SPLIT) PARTS(WORDS)

static part_kernel *const kernels[][3] = {
    {NARROW_16, NARROW_32, NARROW_64},
    {WIDE_16, WIDE_32, WIDE_64},
    {SPLIT_16, SPLIT_32, SPLIT_64},
    {WORDS_16, WORDS_32, WORDS_64},
};
_Static_assert(sizeof(kernels) / sizeof(*kernels) == EV_FORMS, "every form has kernels");

static ev_form form_of(const ev_conv *conv)
{
    ev_form form = ev_form_of(conv);

    return form == EV_NARROW && conv->payload > EV_PAIRS_MOST ? EV_WIDE : form;
}

static int32_t least(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

/* A group of lanes, in as many parts of the kernel as the cache asks for; the rows of a single
 * output are read once whatever the order. */
static void group(const frame *f, const uint8_t *rows, int32_t width, int32_t *acc)
{
    const ev_conv *conv = f->conv;
    part_kernel *kernel = kernels[form_of(conv)][width / 32];
    int32_t pixel = conv->channels * width * conv->bytes;
    int32_t across = f->pixels == 1 ? conv->kernel_w : least(conv->kernel_w, EV_PART / pixel);
    int32_t down = f->pixels == 1 ? conv->kernel_h : EV_PART / pixel / conv->kernel_w;

    across = across < 1 ? 1 : across;
    down = down < 1 ? 1 : down;
    for (int32_t y = 0; y < conv->kernel_h; y += down)
        for (int32_t x = 0; x < conv->kernel_w; x += across) {
            part q = {y, least(y + down, conv->kernel_h), x, least(x + across, conv->kernel_w)};

            kernel(f, &q, rows, acc);
        }
}

void ev_avx2_events(const ev_conv *conv, const ev_events *events, size_t first, size_t width,
                    int32_t pixels, int32_t *acc)
{
    frame f = {conv, events, first, width, pixels, 0};

    if (form_of(conv) == EV_NARROW)
        f.room = ev_narrow_room(conv) / 2;
    for (int32_t lane = 0; lane < conv->lanes; lane += ev_rows_width(conv, lane))
        group(&f, (const uint8_t *)conv->rows + ev_group_offset(conv, lane) * (size_t)conv->bytes,
              ev_rows_width(conv, lane), acc + lane);
}

#endif
