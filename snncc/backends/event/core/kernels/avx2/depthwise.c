/* Depthwise convolutions with AVX2.
 *
 * Four pixels next to each other (two of words), interleaved, meet four (two) weights of each of 32
 * lanes. Small payloads are summed up in 16 bits if that is possible for a whole window. A block is
 * up to 2 outputs: 8 of 16 registers are accumulators. */
#include "kernels/avx2/avx2.h"

#ifdef EV_X86

enum { EV_BLOCK = 2 };

/* What all blocks of a call share; distances in bytes. */
typedef struct {
    const ev_conv *conv;
    size_t pixel; /* of the map */
    size_t row;   /* of the map */
    size_t lanes;
    int32_t steps;
} frame;

typedef void block_kernel(const frame *f, const uint8_t *map, const uint8_t *weights, int32_t *acc,
                          int32_t lanes);

/* 32 lanes of four pixels of bytes: register i holds lanes 16 * half + 4 * i .. + 3. Of two pixels
 * of words: register 2 * u + i holds lanes 16 * u + 8 * half + 4 * i .. + 3. */
EV_INLINE void interleave(__m256i out[4], const __m256i in[4], int bytes)
{
    if (bytes == 1) {
        __m256i ab0 = _mm256_unpacklo_epi8(in[0], in[1]), ab1 = _mm256_unpackhi_epi8(in[0], in[1]);
        __m256i cd0 = _mm256_unpacklo_epi8(in[2], in[3]), cd1 = _mm256_unpackhi_epi8(in[2], in[3]);

        out[0] = _mm256_unpacklo_epi16(ab0, cd0);
        out[1] = _mm256_unpackhi_epi16(ab0, cd0);
        out[2] = _mm256_unpacklo_epi16(ab1, cd1);
        out[3] = _mm256_unpackhi_epi16(ab1, cd1);
    } else {
        out[0] = _mm256_unpacklo_epi16(in[0], in[2]);
        out[1] = _mm256_unpackhi_epi16(in[0], in[2]);
        out[2] = _mm256_unpacklo_epi16(in[1], in[3]);
        out[3] = _mm256_unpackhi_epi16(in[1], in[3]);
    }
}

/* Bytes from the weights of the first 32 lanes of a step to those that register i meets; the packed
 * form is made for registers of 64 bytes. */
EV_INLINE int weights_of(int i, int bytes)
{
    return bytes == 1 ? 64 * i : 64 * (i % 2) + 32 * (i / 2);
}

EV_INLINE void add(int32_t *acc, const __m256i sum[4], int32_t lanes, ev_form form)
{
    EV_UNROLL for (int i = 0; i < 4; i++) {
        __m256i more = form == EV_NARROW ? ev_widen(sum[i]) : sum[i];
        int low = form == EV_WORDS ? i / 2 * 16 + i % 2 * 4 : 4 * i;
        int high = low + (form == EV_WORDS ? 8 : 16);

        if (lanes == 32 || high < 16)
            ev_accumulate(acc, more, low, high);
        else if (low < 16) {
            __m128i *to = (__m128i *)(acc + low);

            _mm_store_si128(to, _mm_add_epi32(_mm_load_si128(to), _mm256_castsi256_si128(more)));
        }
    }
}

/* A register of lanes, loaded once: gcc would rather load twice than unpack a register twice. */
EV_INLINE __m256i load(const uint8_t *at)
{
    __m256i lanes = ev_load(at);

    __asm__("" : "+x"(lanes));
    return lanes;
}

/* A step of one window, of whose pixels none after `last` is read. Taps that the kernel does not
 * have are its last one, where `last` says so, and otherwise whatever is there; their weights are
 * zero. */
EV_INLINE void step(const frame *f, __m256i sum[4], const uint8_t *map, int last,
                    const uint8_t *weights, ev_form form)
{
    int bytes = form == EV_WORDS ? 2 : 1;
    __m256i in[4], out[4];

    EV_UNROLL for (int i = 0; i < 4; i++) {
        int x = bytes == 1 ? i : i / 2;

        in[i] = load(map + (size_t)(x < last ? x : last) * f->pixel +
                     (bytes == 1 ? 0 : 32 * (i % 2)));
    }
    interleave(out, in, bytes);
    EV_UNROLL for (int i = 0; i < 4; i++)
        ev_dot(sum + i, out[i], ev_load(weights + weights_of(i, bytes)), form);
}

/* `pixels` outputs of 32 lanes, or of 16: then what is read after them is of no use. Only the last
 * step of the last row, or of any where the map is narrower than a step, could read pixels after
 * the end of the map. */
EV_INLINE void block(const frame *f, const uint8_t *map, const uint8_t *weights, int32_t *acc,
                     int32_t lanes, int pixels, ev_form form)
{
    size_t stride = f->pixel * (size_t)f->conv->stride_w;
    int taps = form == EV_WORDS ? 2 : 4;
    size_t by = (size_t)taps * f->pixel;
    __m256i sum[EV_BLOCK][4];

    EV_UNROLL for (int p = 0; p < pixels; p++)
        EV_UNROLL for (int i = 0; i < 4; i++)
            sum[p][i] = _mm256_setzero_si256();
    for (int32_t y = 0; y < f->conv->kernel_h; y++, map += f->row) {
        int32_t careful = y == f->conv->kernel_h - 1 || f->row < by;
        const uint8_t *at = map;

        for (int32_t k = f->steps - careful; k > 0; k--, at += by, weights += 256)
            EV_UNROLL for (int p = 0; p < pixels; p++)
                step(f, sum[p], at + (size_t)p * stride, taps - 1, weights, form);
        if (careful) {
            EV_UNROLL for (int p = 0; p < pixels; p++)
                step(f, sum[p], at + (size_t)p * stride, (f->conv->kernel_w - 1) % taps, weights,
                     form);
            weights += 256;
        }
    }
    EV_UNROLL for (int p = 0; p < pixels; p++)
        add(acc + (size_t)p * f->lanes, sum[p], lanes, form);
}

#define BLOCK(form, pixels)                                                                      \
    EV_TARGET static void form##_##pixels(const frame *f, const uint8_t *map,                    \
                                          const uint8_t *weights, int32_t *acc, int32_t lanes)   \
    {                                                                                            \
        block(f, map, weights, acc, lanes, pixels, EV_##form);                                   \
    }

BLOCK(NARROW, 1) BLOCK(WIDE, 1) BLOCK(SPLIT, 1) BLOCK(WORDS, 1)
BLOCK(NARROW, 2) BLOCK(WIDE, 2) BLOCK(SPLIT, 2) BLOCK(WORDS, 2)

static block_kernel *const kernels[][EV_BLOCK] = {
    {NARROW_1, NARROW_2}, {WIDE_1, WIDE_2}, {SPLIT_1, SPLIT_2}, {WORDS_1, WORDS_2}};
_Static_assert(sizeof(kernels) / sizeof(*kernels) == EV_FORMS, "every form has kernels");

static ev_form form_of(const ev_conv *conv)
{
    ev_form form = ev_form_of(conv);
    size_t steps = (size_t)(conv->kernel_h * ev_depthwise_steps(conv));

    return form == EV_NARROW && steps > ev_narrow_room(conv) ? EV_WIDE : form;
}

void ev_avx2_depthwise(const ev_conv *conv, const void *map, size_t row, int32_t pixels,
                       int32_t *acc)
{
    size_t bytes = (size_t)conv->bytes;
    frame f = {conv, (size_t)conv->lanes * bytes, row * bytes, (size_t)conv->lanes,
               ev_depthwise_steps(conv)};
    block_kernel *const *chosen = kernels[form_of(conv)];
    size_t stride = f.pixel * (size_t)conv->stride_w;

    for (int32_t first = 0; first < conv->lanes; first += 32) {
        const uint8_t *from = (const uint8_t *)map + (size_t)first * bytes;
        const uint8_t *weights = (const uint8_t *)conv->dense +
                                 (size_t)(first / EV_GROUP) * ev_depthwise_group(conv) +
                                 (size_t)(first % EV_GROUP) * bytes * bytes;
        int32_t lanes = conv->lanes - first < 32 ? 16 : 32;

        for (int32_t p = 0, now; p < pixels; p += now) {
            now = pixels - p < EV_BLOCK ? pixels - p : EV_BLOCK;
            chosen[now - 1](&f, from + (size_t)p * stride, weights,
                            acc + (size_t)p * f.lanes + first, lanes);
        }
    }
}

#endif
