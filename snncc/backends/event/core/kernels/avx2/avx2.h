/* What the AVX2 kernel files share. */
#ifndef EV_AVX2_H
#define EV_AVX2_H

#include "kernels/packing.h"
#include "kernels/sets.h"

#ifdef EV_X86

#include <immintrin.h>
#include <string.h>

#define EV_TARGET __attribute__((target("avx2,popcnt")))
#define EV_INLINE EV_TARGET __attribute__((always_inline)) static inline
#ifdef __clang__
#define EV_UNROLL _Pragma("unroll")
#else
#define EV_UNROLL _Pragma("GCC unroll 16")
#endif

/* How values meet weights. vpmaddubsw adds the products of two bytes in 16 bits with saturation,
 * and so is exact up to payload 129 = 32767 / 254. */
typedef enum {
    EV_NARROW, /* bytes: sums of 16 bits, added to int32 before they can overflow */
    EV_WIDE,   /* bytes: every product is widened to int32 at once */
    EV_SPLIT,  /* bytes above 129: the same for either half of the payload */
    EV_WORDS,  /* words: vpmaddwd */
    EV_FORMS   /* how many; tables of kernels have one row for each, in this order */
} ev_form;

enum {
    EV_WIDE_MOST = 129,  /* largest payload of EV_WIDE */
    EV_NARROW_MOST = 32, /* largest payload of EV_NARROW: it must not widen too often */
    EV_PAIR = 2 * 127    /* largest sum of two weights */
};

static inline ev_form ev_form_of(const ev_conv *conv)
{
    if (conv->bytes == 2)
        return EV_WORDS;
    if (conv->payload > EV_WIDE_MOST)
        return EV_SPLIT;
    return conv->payload > EV_NARROW_MOST ? EV_WIDE : EV_NARROW;
}

/* Pairs of products that fit 16 bits in EV_NARROW. */
static inline size_t ev_narrow_room(const ev_conv *conv)
{
    return (size_t)(INT16_MAX / (EV_PAIR * conv->payload));
}

/* Pairs of 16 bits, added. */
EV_INLINE __m256i ev_widen(__m256i pairs)
{
    return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}

/* sum += more, in 32 bits or 16. In assembly because gcc 12 copies and spills the accumulators of
 * the intrinsics in a loop, which costs up to 40 % of the time. */
EV_INLINE void ev_add(__m256i *sum, __m256i more)
{
    __asm__("vpaddd %1, %0, %0" : "+x"(*sum) : "x"(more));
}

EV_INLINE void ev_add16(__m256i *sum, __m256i more)
{
    __asm__("vpaddw %1, %0, %0" : "+x"(*sum) : "x"(more));
}

/* sum += four bytes (two words) of payloads times weights in each 32 bits; EV_NARROW in halves of
 * 16. */
EV_INLINE void ev_dot(__m256i *sum, __m256i payloads, __m256i weights, ev_form form)
{
    if (form == EV_WORDS)
        ev_add(sum, _mm256_madd_epi16(payloads, weights));
    else if (form == EV_NARROW)
        ev_add16(sum, _mm256_maddubs_epi16(payloads, weights));
    else if (form == EV_WIDE)
        ev_add(sum, ev_widen(_mm256_maddubs_epi16(payloads, weights)));
    else {
        __m256i half = _mm256_and_si256(_mm256_srli_epi16(payloads, 1), _mm256_set1_epi8(127));
        __m256i rest = _mm256_sub_epi8(payloads, half);

        ev_add(sum, ev_widen(_mm256_maddubs_epi16(half, weights)));
        ev_add(sum, ev_widen(_mm256_maddubs_epi16(rest, weights)));
    }
}

EV_INLINE int32_t ev_word(const void *at)
{
    int32_t word;

    memcpy(&word, at, sizeof word);
    return word;
}

EV_INLINE __m256i ev_load(const void *at)
{
    return _mm256_loadu_si256((const __m256i *)at);
}

/* Adds both halves, four lanes each, to outputs `low` and `high` of acc. */
EV_INLINE void ev_accumulate(int32_t *acc, __m256i sum, int low, int high)
{
    __m128i *to = (__m128i *)(acc + low);

    _mm_store_si128(to, _mm_add_epi32(_mm_load_si128(to), _mm256_castsi256_si128(sum)));
    to = (__m128i *)(acc + high);
    _mm_store_si128(to, _mm_add_epi32(_mm_load_si128(to), _mm256_extracti128_si256(sum, 1)));
}

void ev_avx2_dense(const ev_conv *conv, const void *map, size_t row, int32_t pixels, int32_t *acc);
void ev_avx2_events(const ev_conv *conv, const ev_events *events, size_t first, size_t width,
                    int32_t pixels, int32_t *acc);
void ev_avx2_depthwise(const ev_conv *conv, const void *map, size_t row, int32_t pixels,
                       int32_t *acc);

#endif
#endif
