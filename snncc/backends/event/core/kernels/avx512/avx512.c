/* Lists, firing, depthwise convolutions and the table of AVX-512. */
#include "kernels/avx512/avx512.h"

#ifdef EV_X86

EV_INLINE __mmask64 low(size_t count)
{
    return count >= 64 ? ~(__mmask64)0 : ((__mmask64)1 << count) - 1;
}

/* Where events go next, and how many there are. */
typedef struct {
    uint32_t *index;
    uint8_t *payload;
    uint32_t found;
} writer;

/* Indices of 16 events, of which `count` or more are meant, or only these where there may be no
 * room. */
EV_INLINE void list_indices(uint32_t *to, __m128i numbers, uint32_t at, size_t count, int full)
{
    __m512i index = _mm512_slli_epi32(_mm512_cvtepu8_epi32(numbers), 4);

    index = _mm512_add_epi32(index, _mm512_set1_epi32((int32_t)at));
    if (full)
        _mm512_storeu_si512(to, index);
    else
        _mm512_mask_storeu_epi32(to, (__mmask16)low(count), index);
}

/* Up to 64 bytes or 32 words, the first of which has index `at`. There is room for as many events
 * as there are values, so that a full block may write more events than it finds. */
EV_INLINE void list_block(writer *w, const uint8_t *map, size_t count, uint32_t at, int full,
                          int bytes)
{
    const __m512i numbers = _mm512_set_epi64(
        0x3f3e3d3c3b3a3938, 0x3736353433323130, 0x2f2e2d2c2b2a2928, 0x2726252423222120,
        0x1f1e1d1c1b1a1918, 0x1716151413121110, 0x0f0e0d0c0b0a0908, 0x0706050403020100);
    __m512i values = full ? _mm512_loadu_si512(map)
                          : _mm512_maskz_loadu_epi8(low(count * (size_t)bytes), map);
    __mmask64 mask = bytes == 1 ? _mm512_test_epi8_mask(values, values)
                                : _mm512_test_epi16_mask(values, values);
    size_t found = (size_t)_mm_popcnt_u64(mask);
    __m512i members = _mm512_maskz_compress_epi8(mask, numbers);
    uint8_t *payload = w->payload + w->found * (size_t)bytes;
    uint32_t *index = w->index + w->found;

    values = bytes == 1 ? _mm512_maskz_compress_epi8(mask, values)
                        : _mm512_maskz_compress_epi16((__mmask32)mask, values);
    if (full)
        _mm512_storeu_si512(payload, values);
    else
        _mm512_mask_storeu_epi8(payload, low(found * (size_t)bytes), values);
    list_indices(index, _mm512_castsi512_si128(members), at, found, full);
    if (full || found > 16)
        list_indices(index + 16, _mm512_extracti32x4_epi32(members, 1), at, found - 16, full);
    if (bytes == 1 && (full || found > 32))
        list_indices(index + 32, _mm512_extracti32x4_epi32(members, 2), at, found - 32, full);
    if (bytes == 1 && (full || found > 48))
        list_indices(index + 48, _mm512_extracti32x4_epi32(members, 3), at, found - 48, full);
    w->found += (uint32_t)found;
}

/* Events of payload 0 up to a whole step. */
EV_INLINE void list_padding(writer *w, uint32_t at, int bytes)
{
    uint32_t grain = (uint32_t)(EV_GRAIN / bytes), padding = -w->found & (grain - 1);

    _mm_mask_storeu_epi32(w->index + w->found, (__mmask8)low(padding), _mm_set1_epi32((int32_t)at));
    _mm_mask_storeu_epi8(w->payload + w->found * (size_t)bytes,
                         (__mmask16)low(padding * (size_t)bytes), _mm_setzero_si128());
    w->found += padding;
}

EV_INLINE void list(const uint8_t *map, size_t pixels, size_t width, size_t channels,
                    const ev_events *events, int bytes)
{
    const size_t block = 64 / (size_t)bytes, whole = channels / block * block;
    writer w = {events->index, events->payload, 0};

    for (size_t p = 0, x = 0; p < pixels; p++, x = x + 1 == width ? 0 : x + 1) {
        uint32_t at = (uint32_t)(x * channels * EV_LANES);

        events->start[p] = w.found;
        for (size_t c = 0; c < whole; c += block)
            list_block(&w, map + c * (size_t)bytes, block, at + (uint32_t)c * EV_LANES, 1, bytes);
        if (whole < channels)
            list_block(&w, map + whole * (size_t)bytes, channels - whole,
                       at + (uint32_t)whole * EV_LANES, 0, bytes);
        list_padding(&w, at, bytes);
        map += channels * (size_t)bytes;
    }
    events->start[pixels] = w.found;
}

EV_TARGET static void list8(const void *map, size_t pixels, size_t width, int32_t channels,
                            ev_events *events)
{
    list(map, pixels, width, (size_t)channels, events, 1);
}

EV_TARGET static void list16(const void *map, size_t pixels, size_t width, int32_t channels,
                             ev_events *events)
{
    list(map, pixels, width, (size_t)channels, events, 2);
}

EV_TARGET static void digits32(const void *values, const ev_digit *digit, size_t count, int16_t *to)
{
    const int32_t *from = values;
    const __m512i add = _mm512_set1_epi32((int32_t)digit->add);
    const __m512i mask = _mm512_set1_epi32((int32_t)digit->mask);
    const __m512i take = _mm512_set1_epi32((int32_t)digit->take);
    const __m128i shift = _mm_cvtsi32_si128(digit->shift);

    for (size_t i = 0; i < count; i += 16) {
        __mmask16 left = (__mmask16)(count - i < 16 ? (1u << (count - i)) - 1 : UINT16_MAX);
        __m512i sum = _mm512_add_epi32(_mm512_maskz_loadu_epi32(left, from + i), add);

        sum = _mm512_sub_epi32(_mm512_and_si512(_mm512_sra_epi32(sum, shift), mask), take);
        _mm512_mask_cvtepi32_storeu_epi16(to + i, left, sum);
    }
}

EV_TARGET static void digits64(const void *values, const ev_digit *digit, size_t count, int16_t *to)
{
    const int64_t *from = values;
    const __m512i add = _mm512_set1_epi64(digit->add), mask = _mm512_set1_epi64(digit->mask);
    const __m512i take = _mm512_set1_epi64(digit->take);
    const __m128i shift = _mm_cvtsi32_si128(digit->shift);

    for (size_t i = 0; i < count; i += 8) {
        __mmask8 left = (__mmask8)(count - i < 8 ? (1u << (count - i)) - 1 : UINT8_MAX);
        __m512i sum = _mm512_add_epi64(_mm512_maskz_loadu_epi64(left, from + i), add);

        sum = _mm512_sub_epi64(_mm512_and_si512(_mm512_sra_epi64(sum, shift), mask), take);
        _mm512_mask_cvtepi64_storeu_epi16(to + i, left, sum);
    }
}

EV_TARGET static size_t nonzero(const uint8_t *values, size_t count)
{
    size_t found = 0;

    for (size_t i = 0; i < count; i += 64) {
        __m512i some = _mm512_maskz_loadu_epi8(low(count - i), values + i);

        found += (size_t)_mm_popcnt_u64(_mm512_test_epi8_mask(some, some));
    }
    return found;
}

enum { EV_PACKED = 16 }; /* largest D whose levels are packed to 16 bits */

/* The 64 levels from `levels` on, in 16 bits: 32 in the order of vpackssdw. Returns 0 if one needs
 * more than 16 bits. Potentials may, since saturated they still reach the same levels. */
EV_INLINE int pack_levels(__m512i packed[2], const int32_t *levels)
{
    const __m512i most = _mm512_set1_epi32(INT16_MAX);
    __m512i level[4];
    __mmask16 large = 0;

    EV_UNROLL for (int v = 0; v < 4; v++) {
        level[v] = _mm512_load_si512(levels + 16 * v);
        large |= _mm512_cmpgt_epu32_mask(_mm512_abs_epi32(level[v]), most);
    }
    packed[0] = _mm512_packs_epi32(level[0], level[1]);
    packed[1] = _mm512_packs_epi32(level[2], level[3]);
    return large == 0;
}

EV_INLINE __m512i load_potential(const int32_t *acc, const int32_t *bias, __mmask16 mask)
{
    __m512i potential = _mm512_load_si512(acc);

    if (bias == NULL)
        return potential;
    return _mm512_add_epi32(potential, _mm512_maskz_loadu_epi32(mask, bias));
}

/* 64 channels of one pixel; each level that is reached counts. */
EV_INLINE void fire_packed(const int32_t *acc, const int32_t *bias, __m512i levels[][2], int32_t D,
                           uint8_t *counts)
{
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const __m512i one = _mm512_set1_epi16(1);
    __m512i potential[4], sum[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};

    EV_UNROLL for (int v = 0; v < 4; v++)
        potential[v] = load_potential(acc + 16 * v, bias == NULL ? NULL : bias + 16 * v,
                                      UINT16_MAX);
    potential[0] = _mm512_packs_epi32(potential[0], potential[1]);
    potential[1] = _mm512_packs_epi32(potential[2], potential[3]);
    for (int32_t j = 0; j < D; j++)
        EV_UNROLL for (int v = 0; v < 2; v++)
            sum[v] = _mm512_mask_add_epi16(sum[v],
                                           _mm512_cmpge_epi16_mask(potential[v], levels[j][v]),
                                           sum[v], one);
    _mm512_storeu_si512(counts,
                        _mm512_permutexvar_epi32(order, _mm512_packus_epi16(sum[0], sum[1])));
}

/* 16 channels of one pixel, of which those of `mask` exist. */
EV_INLINE void fire_plain(const int32_t *acc, const int32_t *bias, const int32_t *levels, int32_t D,
                          size_t lanes, uint8_t *counts, __mmask16 mask)
{
    const __m512i one = _mm512_set1_epi32(1);
    __m512i potential = load_potential(acc, bias, mask), sum = _mm512_setzero_si512();

    for (int32_t j = 0; j < D; j++, levels += lanes) {
        __mmask16 yes = _mm512_cmpge_epi32_mask(potential, _mm512_load_si512(levels));

        sum = _mm512_mask_add_epi32(sum, yes, sum, one);
    }
    _mm_mask_storeu_epi8(counts, mask, _mm512_cvtepi32_epi8(sum));
}

/* 64 channels of all pixels if their levels fit 16 bits; else nothing, and 0 is returned. */
EV_INLINE int fire_group(const int32_t *acc, const int32_t *bias, size_t bias_row,
                         const int32_t *levels, int32_t D, int32_t pixels, size_t channels,
                         size_t lanes, uint8_t *counts)
{
    __m512i packed[EV_PACKED][2];

    if (D > EV_PACKED)
        return 0;
    for (int32_t j = 0; j < D; j++)
        if (!pack_levels(packed[j], levels + (size_t)j * lanes))
            return 0;
    for (size_t p = 0; p < (size_t)pixels; p++)
        fire_packed(acc + p * lanes, bias == NULL ? NULL : bias + p * bias_row, packed, D,
                    counts + p * channels);
    return 1;
}

EV_TARGET static void fire(const int32_t *acc, const int32_t *bias, size_t bias_row,
                           const int32_t *levels, int32_t D, int32_t pixels, int32_t channels,
                           int32_t lanes, uint8_t *counts)
{
    size_t all = (size_t)channels, row = (size_t)lanes, c = 0;

    while (c + 64 <= all &&
           fire_group(acc + c, bias == NULL ? NULL : bias + c, bias_row, levels + c, D, pixels, all,
                      row, counts + c))
        c += 64;
    for (size_t p = 0; p < (size_t)pixels; p++)
        for (size_t i = c; i < all; i += 16)
            fire_plain(acc + p * row + i, bias == NULL ? NULL : bias + p * bias_row + i, levels + i,
                       D, row, counts + p * all + i, (__mmask16)low(all - i));
}

EV_TARGET static void add_scaled(int32_t *to, const int32_t *row, int32_t factor, size_t count)
{
    for (size_t i = 0; i < count; i++)
        to[i] += factor * row[i];
}

static int is_here(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni") &&
           __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vbmi2") &&
           __builtin_cpu_supports("popcnt");
}

static const ev_tuning *tuning(const ev_conv *conv)
{
    static const ev_tuning by_bytes[2] = {{{0.2, 0.24, 0.46}, 14}, {{0.3, 0.45, 0.46}, 11}};

    return &by_bytes[conv->bytes - 1];
}

const ev_kernels ev_kernels_avx512 = {
    .name = "avx512",
    .is_here = is_here,
    .tuning = tuning,
    .dense = {ev_avx512_dense, ev_avx512_dense},
    .events = {ev_avx512_events, ev_avx512_events},
    .depthwise = {ev_avx512_depthwise, ev_avx512_depthwise},
    .list = {list8, list16},
    .digits = {digits32, digits64},
    .nonzero = nonzero,
    .add_scaled = add_scaled,
    .fire = fire,
};

#endif
