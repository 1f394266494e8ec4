/* Dense convolutions with AVX-512 VNNI.
 *
 * One vpdpbusd multiplies four payloads of a pixel (32 bits, broadcast) with four weights of each
 * of 16 outputs; vpdpwssd two of 16 bits each. Both add to int32 without saturation, whatever the
 * payload.
 *
 * A block is up to EV_BLOCK = 6 pixels by 64 outputs: 24 of 32 registers are accumulators, 4 hold
 * weights, the rest payloads. A step then takes 10 loads for 24 multiplications, so that the two
 * multipliers and not the two load ports are the bound, and 24 chains hide the latency of 4-5. */
#include "kernels/avx512/avx512.h"

#ifdef EV_X86

enum { EV_BLOCK = 6 };

/* What all blocks of a call share; distances in bytes. */
typedef struct {
    size_t pixel;       /* from one output's window to the next */
    size_t row;         /* of the map */
    size_t steps;       /* 32-bit words of a window row */
    int32_t kernel_h;
    size_t lanes;
} frame;

/* `pixels` outputs by `vectors` times 16 lanes; both are constants of each copy. */
EV_INLINE void block(const frame *f, const uint8_t *map, const uint8_t *weights, int32_t *acc,
                     int bytes, int pixels, int vectors)
{
    __m512i sum[EV_BLOCK][4];

    EV_UNROLL for (int p = 0; p < pixels; p++)
        EV_UNROLL for (int v = 0; v < vectors; v++)
            sum[p][v] = _mm512_setzero_si512();
    for (int32_t y = 0; y < f->kernel_h; y++, map += f->row) {
        const uint8_t *at = map, *end = map + 4 * f->steps;

        for (; at < end; at += 4, weights += 64 * vectors) {
            __m512i w[4];

            EV_UNROLL for (int v = 0; v < vectors; v++)
                w[v] = _mm512_load_si512(weights + 64 * v);
            EV_UNROLL for (int p = 0; p < pixels; p++) {
                __m512i payloads = ev_broadcast(at + (size_t)p * f->pixel);

                EV_UNROLL for (int v = 0; v < vectors; v++)
                    ev_dot1(&sum[p][v], payloads, w[v], bytes);
            }
        }
    }
    EV_UNROLL for (int p = 0; p < pixels; p++)
        EV_UNROLL for (int v = 0; v < vectors; v++)
            ev_accumulate(acc + (size_t)p * f->lanes + 16 * v, sum[p][v]);
}

typedef void block_kernel(const frame *f, const uint8_t *map, const uint8_t *weights, int32_t *acc);

#define BLOCK(bytes, pixels, vectors)                                                           \
    EV_TARGET static void block_##bytes##_##pixels##_##vectors(                                 \
        const frame *f, const uint8_t *map, const uint8_t *weights, int32_t *acc)               \
    {                                                                                           \
        block(f, map, weights, acc, bytes, pixels, vectors);                                    \
    }
#define BLOCKS(bytes, pixels) \
    BLOCK(bytes, pixels, 1) BLOCK(bytes, pixels, 2) BLOCK(bytes, pixels, 3) BLOCK(bytes, pixels, 4)
#define NAMES(bytes, pixels)                                                                    \
    {block_##bytes##_##pixels##_1, block_##bytes##_##pixels##_2, block_##bytes##_##pixels##_3, \
     block_##bytes##_##pixels##_4}

BLOCKS(1, 1) BLOCKS(1, 2) BLOCKS(1, 3) BLOCKS(1, 4) BLOCKS(1, 5) BLOCKS(1, 6)
BLOCKS(2, 1) BLOCKS(2, 2) BLOCKS(2, 3) BLOCKS(2, 4) BLOCKS(2, 5) BLOCKS(2, 6)

static block_kernel *const kernels[2][EV_BLOCK][4] = {
    {NAMES(1, 1), NAMES(1, 2), NAMES(1, 3), NAMES(1, 4), NAMES(1, 5), NAMES(1, 6)},
    {NAMES(2, 1), NAMES(2, 2), NAMES(2, 3), NAMES(2, 4), NAMES(2, 5), NAMES(2, 6)},
};

/* A group of lanes for all pixels of the call, in blocks of about the same number of pixels. */
static void group(const frame *f, block_kernel *const chosen[EV_BLOCK][4], int32_t vectors,
                  const uint8_t *map, const uint8_t *weights, int32_t pixels, int32_t *acc)
{
    int32_t blocks = (pixels + EV_BLOCK - 1) / EV_BLOCK;

    for (int32_t done = 0; blocks > 0; blocks--) {
        int32_t now = (pixels - done) / blocks;

        chosen[now - 1][vectors - 1](f, map + (size_t)done * f->pixel, weights,
                                     acc + (size_t)done * f->lanes);
        done += now;
    }
}

void ev_avx512_dense(const ev_conv *conv, const void *map, size_t row, int32_t pixels,
                     int32_t *acc)
{
    size_t bytes = (size_t)conv->bytes;
    frame f = {
        .pixel = (size_t)(conv->stride_w * conv->channels) * bytes,
        .row = row * bytes,
        .steps = (size_t)ev_span(conv) * bytes / 4,
        .kernel_h = conv->kernel_h,
        .lanes = (size_t)conv->lanes,
    };

    for (int32_t first = 0; first < conv->lanes; first += EV_GROUP)
        group(&f, kernels[conv->bytes - 1], ev_group_width(conv, first) / 16, map,
              (const uint8_t *)conv->dense + ev_group_offset(conv, first) * bytes, pixels,
              acc + first);
}

#endif
