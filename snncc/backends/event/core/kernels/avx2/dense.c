/* Dense convolutions with AVX2.
 *
 * One vpmaddubsw multiplies four payloads of a pixel (32 bits, broadcast) with four weights of each
 * of 8 outputs. Small payloads are summed up in 16 bits, which takes two instructions for 32
 * products where int32 takes three; avx2.h has the forms.
 *
 * A block is up to EV_BLOCK = 3 pixels by 32 outputs: 12 of 16 registers are accumulators, the rest
 * hold payloads and products. */
#include "kernels/avx2/avx2.h"

#ifdef EV_X86

enum { EV_BLOCK = 3 };

/* What all blocks of a call share; distances in bytes. */
typedef struct {
    size_t pixel;     /* from one output's window to the next */
    size_t row;       /* of the map */
    size_t steps;     /* 32-bit words of a window row */
    size_t step;      /* from one step of weights to the next */
    int32_t kernel_h;
    size_t lanes;
    size_t room;      /* steps that fit the sums of EV_NARROW */
} frame;

typedef void block_kernel(const frame *f, const uint8_t *map, const uint8_t *weights, int32_t *acc);

EV_INLINE void settle(const frame *f, __m256i sum[EV_BLOCK][4], int32_t *acc, ev_form form,
                      int pixels, int vectors)
{
    EV_UNROLL for (int p = 0; p < pixels; p++)
        EV_UNROLL for (int v = 0; v < vectors; v++) {
            __m256i *to = (__m256i *)(acc + (size_t)p * f->lanes + 8 * v);
            __m256i more = form == EV_NARROW ? ev_widen(sum[p][v]) : sum[p][v];

            _mm256_store_si256(to, _mm256_add_epi32(_mm256_load_si256(to), more));
            sum[p][v] = _mm256_setzero_si256();
        }
}

EV_INLINE void step(const frame *f, __m256i sum[EV_BLOCK][4], const uint8_t *at,
                    const uint8_t *weights, ev_form form, int pixels, int vectors)
{
    __m256i payloads[EV_BLOCK];

    EV_UNROLL for (int p = 0; p < pixels; p++)
        payloads[p] = _mm256_set1_epi32(ev_word(at + (size_t)p * f->pixel));
    EV_UNROLL for (int v = 0; v < vectors; v++) {
        __m256i w = ev_load(weights + 32 * v);

        EV_UNROLL for (int p = 0; p < pixels; p++)
            ev_dot(&sum[p][v], payloads[p], w, form);
    }
}

/* `pixels` outputs by `vectors` times 8 lanes; both are constants of each copy. */
EV_INLINE void block(const frame *f, const uint8_t *map, const uint8_t *weights, int32_t *acc,
                     ev_form form, int pixels, int vectors)
{
    __m256i sum[EV_BLOCK][4];
    size_t room = form == EV_NARROW ? f->room : SIZE_MAX;

    EV_UNROLL for (int p = 0; p < pixels; p++)
        EV_UNROLL for (int v = 0; v < vectors; v++)
            sum[p][v] = _mm256_setzero_si256();
    for (int32_t y = 0; y < f->kernel_h; y++, map += f->row)
        for (size_t k = 0; k < f->steps;) {
            size_t stop = f->steps - k <= room ? f->steps : k + room;

            room -= form == EV_NARROW ? stop - k : 0;
            for (; k < stop; k++, weights += f->step)
                step(f, sum, map + 4 * k, weights, form, pixels, vectors);
            if (room == 0) {
                settle(f, sum, acc, form, pixels, vectors);
                room = f->room;
            }
        }
    settle(f, sum, acc, form, pixels, vectors);
}

#define BLOCK(form, pixels, vectors)                                                            \
    EV_TARGET static void form##_##pixels##_##vectors(                                          \
        const frame *f, const uint8_t *map, const uint8_t *weights, int32_t *acc)               \
    {                                                                                           \
        block(f, map, weights, acc, EV_##form, pixels, vectors);                                \
    }
#define BLOCKS(form)                                                                            \
    BLOCK(form, 1, 2) BLOCK(form, 2, 2) BLOCK(form, 3, 2)                                       \
    BLOCK(form, 1, 4) BLOCK(form, 2, 4) BLOCK(form, 3, 4)

BLOCKS(NARROW) BLOCKS(WIDE) BLOCKS(SPLIT) BLOCKS(WORDS)

#define NAMES(form)                                                                             \
    {{form##_1_2, form##_2_2, form##_3_2}, {form##_1_4, form##_2_4, form##_3_4}}

static block_kernel *const kernels[][2][EV_BLOCK] = {NAMES(NARROW), NAMES(WIDE), NAMES(SPLIT),
                                                     NAMES(WORDS)};
_Static_assert(sizeof(kernels) / sizeof(*kernels) == EV_FORMS, "every form has kernels");

/* 16 or 32 lanes for all pixels of the call, in blocks of about the same number of pixels. */
static void lanes_of(const frame *f, block_kernel *const chosen[EV_BLOCK], const uint8_t *map,
                     const uint8_t *weights, int32_t pixels, int32_t *acc)
{
    int32_t blocks = (pixels + EV_BLOCK - 1) / EV_BLOCK;

    for (int32_t done = 0; blocks > 0; blocks--) {
        int32_t now = (pixels - done) / blocks;

        chosen[now - 1](f, map + (size_t)done * f->pixel, weights, acc + (size_t)done * f->lanes);
        done += now;
    }
}

void ev_avx2_dense(const ev_conv *conv, const void *map, size_t row, int32_t pixels, int32_t *acc)
{
    size_t bytes = (size_t)conv->bytes;
    ev_form form = ev_form_of(conv);
    frame f = {
        .pixel = (size_t)(conv->stride_w * conv->channels) * bytes,
        .row = row * bytes,
        .steps = (size_t)ev_span(conv) * bytes / 4,
        .kernel_h = conv->kernel_h,
        .lanes = (size_t)conv->lanes,
        .room = form == EV_NARROW ? ev_narrow_room(conv) : SIZE_MAX,
    };

    for (int32_t first = 0; first < conv->lanes; first += EV_GROUP) {
        int32_t width = ev_group_width(conv, first);
        const uint8_t *weights = (const uint8_t *)conv->dense +
                                 ev_group_offset(conv, first) * bytes;

        f.step = (size_t)width * 4;
        for (int32_t lane = 0; lane < width; lane += 32)
            lanes_of(&f, kernels[form][width - lane >= 32], map, weights + 4 * lane, pixels,
                     acc + first + lane);
    }
}

#endif
