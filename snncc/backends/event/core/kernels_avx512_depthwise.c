/* Depthwise convolutions with AVX-512 VNNI.
 *
 * Four pixels next to each other (two of 16 bits), interleaved, meet four (two) weights of each of 64
 * lanes: 8 unpacks and 4 multiplications for 256 products. A block is up to 4 outputs, whose 16
 * accumulators leave room for the 4 registers of weights that they share. */
#include "kernels_avx512.h"

#ifdef EV_X86

enum { EV_BLOCK = 4 };

/* What all blocks of a call share; distances in bytes. */
typedef struct {
    const ev_conv *conv;
    size_t pixel; /* of the map */
    size_t row;   /* of the map */
    size_t lanes;
    int32_t steps;
} frame;

/* Where the pixels of a step are. Taps that the kernel does not have are its last one, and lanes from 32
 * of words that the group does not have are its first ones, so that little is read outside the map; their
 * weights are zero. */
EV_INLINE void places(size_t at[4], const frame *f, int32_t step, int32_t vectors, int bytes)
{
    size_t half = vectors > 2 ? 64 : 0;

    EV_UNROLL for (int i = 0; i < 4; i++) {
        int32_t tap = bytes == 1 ? 4 * step + i : 2 * step + i / 2;

        tap = tap < f->conv->kernel_w ? tap : f->conv->kernel_w - 1;
        at[i] = (size_t)tap * f->pixel + (bytes == 1 ? 0 : half * (size_t)(i % 2));
    }
}

/* Sums of 64 lanes in the order of ev_interleave, to the first `vectors` times 16 outputs. */
EV_INLINE void add(int32_t *acc, const __m512i sum[4], int32_t vectors, int bytes)
{
    __m512i out[4];

    if (bytes == 1) {
        __m512i ab0 = _mm512_shuffle_i32x4(sum[0], sum[1], 0x44);
        __m512i ab1 = _mm512_shuffle_i32x4(sum[0], sum[1], 0xee);
        __m512i cd0 = _mm512_shuffle_i32x4(sum[2], sum[3], 0x44);
        __m512i cd1 = _mm512_shuffle_i32x4(sum[2], sum[3], 0xee);

        out[0] = _mm512_shuffle_i32x4(ab0, cd0, 0x88);
        out[1] = _mm512_shuffle_i32x4(ab0, cd0, 0xdd);
        out[2] = _mm512_shuffle_i32x4(ab1, cd1, 0x88);
        out[3] = _mm512_shuffle_i32x4(ab1, cd1, 0xdd);
    } else {
        const __m512i low = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11);
        const __m512i high = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);

        out[0] = _mm512_permutex2var_epi64(sum[0], low, sum[1]);
        out[1] = _mm512_permutex2var_epi64(sum[0], high, sum[1]);
        out[2] = _mm512_permutex2var_epi64(sum[2], low, sum[3]);
        out[3] = _mm512_permutex2var_epi64(sum[2], high, sum[3]);
    }
    EV_UNROLL for (int v = 0; v < 4; v++)
        if (v < vectors)
            ev_accumulate(acc + 16 * v, out[v]);
}

/* `pixels` outputs of a group of 64 lanes; the last group may have fewer, then what is read behind them
 * meets weights that are zero. */
EV_INLINE void block(const frame *f, const uint8_t *map, const uint8_t *weights, int32_t *acc,
                     int32_t vectors, int bytes, int pixels)
{
    size_t stride = f->pixel * (size_t)f->conv->stride_w;
    __m512i sum[EV_BLOCK][4];

    EV_UNROLL for (int p = 0; p < pixels; p++)
        EV_UNROLL for (int i = 0; i < 4; i++)
            sum[p][i] = _mm512_setzero_si512();
    for (int32_t y = 0; y < f->conv->kernel_h; y++, map += f->row)
        for (int32_t step = 0; step < f->steps; step++, weights += 256) {
            __m512i w[4], in[4], out[4];
            size_t at[4];

            places(at, f, step, vectors, bytes);
            EV_UNROLL for (int i = 0; i < 4; i++)
                w[i] = _mm512_load_si512(weights + 64 * i);
            EV_UNROLL for (int p = 0; p < pixels; p++) {
                EV_UNROLL for (int i = 0; i < 4; i++)
                    in[i] = _mm512_loadu_si512(map + (size_t)p * stride + at[i]);
                ev_interleave(out, in, bytes);
                ev_dot4(sum[p], out, w, bytes);
            }
        }
    EV_UNROLL for (int p = 0; p < pixels; p++)
        add(acc + (size_t)p * f->lanes, sum[p], vectors, bytes);
}

typedef void block_kernel(const frame *f, const uint8_t *map, const uint8_t *weights, int32_t *acc,
                          int32_t vectors);

#define BLOCK(bytes, pixels)                                                                     \
    EV_TARGET static void block_##bytes##_##pixels(const frame *f, const uint8_t *map,           \
                                                   const uint8_t *weights, int32_t *acc,         \
                                                   int32_t vectors)                              \
    {                                                                                            \
        block(f, map, weights, acc, vectors, bytes, pixels);                                     \
    }

BLOCK(1, 1) BLOCK(1, 2) BLOCK(1, 3) BLOCK(1, 4)
BLOCK(2, 1) BLOCK(2, 2) BLOCK(2, 3) BLOCK(2, 4)

static block_kernel *const kernels[2][EV_BLOCK] = {
    {block_1_1, block_1_2, block_1_3, block_1_4},
    {block_2_1, block_2_2, block_2_3, block_2_4},
};

void ev_avx512_depthwise(const ev_conv *conv, const void *map, size_t row, int32_t pixels,
                         int32_t *acc)
{
    size_t bytes = (size_t)conv->bytes;
    frame f = {conv, (size_t)conv->lanes * bytes, row * bytes, (size_t)conv->lanes,
               ev_depthwise_steps(conv)};
    size_t stride = f.pixel * (size_t)conv->stride_w;

    for (int32_t first = 0; first < conv->lanes; first += EV_GROUP) {
        const uint8_t *from = (const uint8_t *)map + (size_t)first * bytes;
        const uint8_t *weights = (const uint8_t *)conv->dense +
                                 (size_t)(first / EV_GROUP) * ev_depthwise_group(conv);
        int32_t vectors = ev_group_width(conv, first) / 16;

        for (int32_t p = 0, now; p < pixels; p += now) {
            now = pixels - p < EV_BLOCK ? pixels - p : EV_BLOCK;
            kernels[conv->bytes - 1][now - 1](&f, from + (size_t)p * stride, weights,
                                              acc + (size_t)p * f.lanes + first, vectors);
        }
    }
}

#endif
