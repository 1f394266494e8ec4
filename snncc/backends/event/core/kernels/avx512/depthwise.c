/* Depthwise convolutions with AVX-512 VNNI.
 *
 * Four pixels next to each other (two of words), interleaved, meet four (two) weights of each of 64
 * lanes: 8 unpacks and 4 multiplications for 256 products. A block is up to 4 outputs, whose 16
 * accumulators leave room for the 4 registers of weights that they share. Outputs of neighbouring
 * windows share their pixels and half of the unpacks as well: 28 unpacks and 11 loads instead of 32
 * and 20. */
#include "kernels/avx512/avx512.h"

#ifdef EV_X86

enum { EV_BLOCK = 4 };

/* What all blocks of a call share; distances in bytes. */
typedef struct {
    const ev_conv *conv;
    size_t pixel; /* of the map */
    size_t row;   /* of the map */
    size_t lanes;
    int32_t steps;
    size_t half;  /* to lanes 32 .. 63 of words; 0 where a group has none: their weights are zero */
} frame;

/* A register of lanes, loaded once: gcc would rather load twice than unpack a register twice. */
EV_INLINE __m512i load(const uint8_t *at)
{
    __m512i lanes = _mm512_loadu_si512(at);

    __asm__("" : "+v"(lanes));
    return lanes;
}

/* The pixels of `pixels` windows next to each other, of which none after `last` is read. */
EV_INLINE void shared_bytes(const frame *f, __m512i sum[EV_BLOCK][4], const uint8_t *map, int last,
                            const __m512i w[4], int pixels)
{
    __m512i low[EV_BLOCK + 2], high[EV_BLOCK + 2], out[4], left = load(map);

    EV_UNROLL for (int x = 0; x < pixels + 2; x++) {
        __m512i right = load(map + (size_t)(x + 1 < last ? x + 1 : last) * f->pixel);

        low[x] = _mm512_unpacklo_epi8(left, right);
        high[x] = _mm512_unpackhi_epi8(left, right);
        left = right;
        if (x < 2)
            continue;
        out[0] = _mm512_unpacklo_epi16(low[x - 2], low[x]);
        out[1] = _mm512_unpackhi_epi16(low[x - 2], low[x]);
        out[2] = _mm512_unpacklo_epi16(high[x - 2], high[x]);
        out[3] = _mm512_unpackhi_epi16(high[x - 2], high[x]);
        ev_dot4(sum[x - 2], out, w, 1);
    }
}

EV_INLINE void shared_words(const frame *f, __m512i sum[EV_BLOCK][4], const uint8_t *map, int last,
                            const __m512i w[4], int pixels)
{
    __m512i in[4] = {load(map), load(map + f->half)}, out[4];

    EV_UNROLL for (int x = 0; x < pixels; x++) {
        const uint8_t *right = map + (size_t)(x + 1 < last ? x + 1 : last) * f->pixel;

        in[2] = load(right);
        in[3] = load(right + f->half);
        ev_interleave(out, in, 2);
        ev_dot4(sum[x], out, w, 2);
        in[0] = in[2];
        in[1] = in[3];
    }
}

/* One window; of its pixels none after `last` is read. */
EV_INLINE void alone(const frame *f, __m512i sum[4], const uint8_t *map, int last,
                     const __m512i w[4], int bytes)
{
    __m512i in[4], out[4];

    EV_UNROLL for (int i = 0; i < 4; i++) {
        int x = bytes == 1 ? i : i / 2;

        in[i] = load(map + (size_t)(x < last ? x : last) * f->pixel +
                     (bytes == 1 ? 0 : (size_t)(i % 2) * f->half));
    }
    ev_interleave(out, in, bytes);
    ev_dot4(sum, out, w, bytes);
}

/* A step of all windows of the block. Taps that the kernel does not have are its last one, where
 * `last` says so, and otherwise whatever is there; their weights are zero. */
EV_INLINE void step(const frame *f, __m512i sum[EV_BLOCK][4], const uint8_t *map, int last,
                    const uint8_t *weights, int bytes, int pixels, int shared)
{
    size_t stride = f->pixel * (size_t)f->conv->stride_w;
    __m512i w[4];

    EV_UNROLL for (int i = 0; i < 4; i++)
        w[i] = _mm512_load_si512(weights + 64 * i);
    if (shared && bytes == 1)
        shared_bytes(f, sum, map, last + pixels - 1, w, pixels);
    else if (shared)
        shared_words(f, sum, map, last + pixels - 1, w, pixels);
    else
        EV_UNROLL for (int p = 0; p < pixels; p++)
            alone(f, sum[p], map + (size_t)p * stride, last, w, bytes);
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

/* `pixels` outputs of a group of 64 lanes; the last group may have fewer, then what is read after
 * them meets weights that are zero. Only the last step of the last row, or of any where the map is
 * narrower than a step, could read pixels after the end of the map. */
EV_INLINE void block(const frame *f, const uint8_t *map, const uint8_t *weights, int32_t *acc,
                     int32_t vectors, int bytes, int pixels, int shared)
{
    int taps = 4 / bytes;
    size_t by = (size_t)taps * f->pixel;
    int32_t rows = f->conv->kernel_h;
    __m512i sum[EV_BLOCK][4];

    EV_UNROLL for (int p = 0; p < pixels; p++)
        EV_UNROLL for (int i = 0; i < 4; i++)
            sum[p][i] = _mm512_setzero_si512();
    for (int32_t y = 0; y < rows; y++, map += f->row) {
        int32_t careful = y == rows - 1 || f->row < by;
        const uint8_t *at = map;

        for (int32_t k = f->steps - careful; k > 0; k--, at += by, weights += 256)
            step(f, sum, at, taps - 1, weights, bytes, pixels, shared);
        if (careful) {
            step(f, sum, at, (f->conv->kernel_w - 1) % taps, weights, bytes, pixels, shared);
            weights += 256;
        }
    }
    EV_UNROLL for (int p = 0; p < pixels; p++)
        add(acc + (size_t)p * f->lanes, sum[p], vectors, bytes);
}

typedef void block_kernel(const frame *f, const uint8_t *map, const uint8_t *weights, int32_t *acc,
                          int32_t vectors);

#define BLOCK(bytes, pixels, shared)                                                             \
    EV_TARGET static void block_##bytes##_##pixels##_##shared(                                   \
        const frame *f, const uint8_t *map, const uint8_t *weights, int32_t *acc,                \
        int32_t vectors)                                                                         \
    {                                                                                            \
        block(f, map, weights, acc, vectors, bytes, pixels, shared);                             \
    }

BLOCK(1, 1, 0) BLOCK(1, 2, 0) BLOCK(1, 3, 0) BLOCK(1, 4, 0)
BLOCK(1, 1, 1) BLOCK(1, 2, 1) BLOCK(1, 3, 1) BLOCK(1, 4, 1)
BLOCK(2, 1, 0) BLOCK(2, 2, 0) BLOCK(2, 3, 0) BLOCK(2, 4, 0)
BLOCK(2, 1, 1) BLOCK(2, 2, 1) BLOCK(2, 3, 1) BLOCK(2, 4, 1)

static block_kernel *const kernels[2][2][EV_BLOCK] = {
    {{block_1_1_0, block_1_2_0, block_1_3_0, block_1_4_0},
     {block_1_1_1, block_1_2_1, block_1_3_1, block_1_4_1}},
    {{block_2_1_0, block_2_2_0, block_2_3_0, block_2_4_0},
     {block_2_1_1, block_2_2_1, block_2_3_1, block_2_4_1}},
};

/* A group of up to 64 lanes, from lane `first` on. */
static void group(frame *f, const uint8_t *map, int32_t first, int32_t pixels, int32_t *acc)
{
    const ev_conv *conv = f->conv;
    block_kernel *const *chosen = kernels[conv->bytes - 1][conv->stride_w == 1];
    size_t stride = f->pixel * (size_t)conv->stride_w;
    const uint8_t *weights = (const uint8_t *)conv->dense +
                             (size_t)(first / EV_GROUP) * ev_depthwise_group(conv);
    int32_t vectors = ev_group_width(conv, first) / 16;

    f->half = vectors > 2 ? 64 : 0;
    map += first * conv->bytes;
    for (int32_t p = 0, now; p < pixels; p += now) {
        now = pixels - p < EV_BLOCK ? pixels - p : EV_BLOCK;
        chosen[now - 1](f, map + (size_t)p * stride, weights, acc + (size_t)p * f->lanes + first,
                        vectors);
    }
}

void ev_avx512_depthwise(const ev_conv *conv, const void *map, size_t row, int32_t pixels,
                         int32_t *acc)
{
    size_t bytes = (size_t)conv->bytes;
    frame f = {conv, (size_t)conv->lanes * bytes, row * bytes, (size_t)conv->lanes,
               ev_depthwise_steps(conv), 0};

    for (int32_t first = 0; first < conv->lanes; first += EV_GROUP)
        group(&f, map, first, pixels, acc);
}

#endif
