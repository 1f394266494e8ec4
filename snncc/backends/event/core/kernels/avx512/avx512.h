/* What the AVX-512 kernel files share. */
#ifndef EV_AVX512_H
#define EV_AVX512_H

#include "kernels/packing.h"
#include "kernels/sets.h"

#ifdef EV_X86

#include <immintrin.h>
#include <string.h>

#define EV_TARGET \
    __attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni,avx512vbmi,avx512vbmi2,popcnt")))
#define EV_INLINE EV_TARGET __attribute__((always_inline)) static inline
#ifdef __clang__
#define EV_UNROLL _Pragma("unroll")
#else
#define EV_UNROLL _Pragma("GCC unroll 16")
#endif

/* Four times 32 bits of payloads with weights, of 8 or 16 bits, added to int32: sum[i] += a[i] .
 * b[i]. In assembly because gcc 12 copies each accumulator of the intrinsics in a loop, which costs
 * a third of the time. */
EV_INLINE void ev_dot4(__m512i sum[4], const __m512i a[4], const __m512i b[4], int bytes)
{
#define EV_DOT4(name)                                                                              \
    __asm__(name " %8, %4, %0\n\t" name " %9, %5, %1\n\t" name " %10, %6, %2\n\t" name             \
                 " %11, %7, %3"                                                                    \
            : "+&v"(sum[0]), "+&v"(sum[1]), "+&v"(sum[2]), "+&v"(sum[3])                           \
            : "v"(a[0]), "v"(a[1]), "v"(a[2]), "v"(a[3]), "v"(b[0]), "v"(b[1]), "v"(b[2]),         \
              "v"(b[3]))
    if (bytes == 1)
        EV_DOT4("vpdpbusd");
    else
        EV_DOT4("vpdpwssd");
#undef EV_DOT4
}

EV_INLINE void ev_dot1(__m512i *sum, __m512i a, __m512i b, int bytes)
{
    if (bytes == 1)
        __asm__("vpdpbusd %2, %1, %0" : "+v"(*sum) : "v"(a), "v"(b));
    else
        __asm__("vpdpwssd %2, %1, %0" : "+v"(*sum) : "v"(a), "v"(b));
}

/* Interleaves rows of 64 values: register i then holds lanes 16 * j + 4 * i .. + 3 of four rows of
 * bytes in its 128 bits j; of two rows of words, registers 2 * h + i lanes 32 * h + 8 * j + 4 * i
 * .. + 3. A row of words is two registers. */
EV_INLINE void ev_interleave(__m512i out[4], const __m512i in[4], int bytes)
{
    if (bytes == 1) {
        __m512i ab0 = _mm512_unpacklo_epi8(in[0], in[1]), ab1 = _mm512_unpackhi_epi8(in[0], in[1]);
        __m512i cd0 = _mm512_unpacklo_epi8(in[2], in[3]), cd1 = _mm512_unpackhi_epi8(in[2], in[3]);

        out[0] = _mm512_unpacklo_epi16(ab0, cd0);
        out[1] = _mm512_unpackhi_epi16(ab0, cd0);
        out[2] = _mm512_unpacklo_epi16(ab1, cd1);
        out[3] = _mm512_unpackhi_epi16(ab1, cd1);
    } else {
        out[0] = _mm512_unpacklo_epi16(in[0], in[2]);
        out[1] = _mm512_unpackhi_epi16(in[0], in[2]);
        out[2] = _mm512_unpacklo_epi16(in[1], in[3]);
        out[3] = _mm512_unpackhi_epi16(in[1], in[3]);
    }
}

EV_INLINE __m512i ev_broadcast(const void *at)
{
    int32_t word;

    memcpy(&word, at, sizeof word);
    return _mm512_set1_epi32(word);
}

EV_INLINE void ev_accumulate(int32_t *acc, __m512i sum)
{
    _mm512_store_si512(acc, _mm512_add_epi32(_mm512_load_si512(acc), sum));
}

void ev_avx512_dense(const ev_conv *conv, const void *map, size_t row, int32_t pixels,
                     int32_t *acc);
void ev_avx512_events(const ev_conv *conv, const ev_events *events, size_t first, size_t width,
                      int32_t pixels, int32_t *acc);
void ev_avx512_depthwise(const ev_conv *conv, const void *map, size_t row, int32_t pixels,
                         int32_t *acc);

#endif
#endif
