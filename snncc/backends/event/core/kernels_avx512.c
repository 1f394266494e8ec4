/* Lists, firing, depthwise convolutions and the table of AVX-512. */
#include "kernels_avx512.h"

#ifdef EV_X86

EV_INLINE __mmask64 low(size_t count)
{
    return count >= 64 ? ~(__mmask64)0 : ((__mmask64)1 << count) - 1;
}

/* Indices of 16 values of which `mask` are events. */
EV_INLINE uint32_t list_indices(uint32_t *to, __m512i indices, __mmask16 mask)
{
    uint32_t count = (uint32_t)_mm_popcnt_u32(mask);

    _mm512_mask_storeu_epi32(to, (__mmask16)low(count), _mm512_maskz_compress_epi32(mask, indices));
    return count;
}

/* Up to 64 bytes or 32 words, the first of which has index `at`. Returns how many are events. */
EV_INLINE uint32_t list_block(const uint8_t *map, size_t count, uint32_t at, uint32_t *index,
                              uint8_t *payload, int bytes)
{
    const __m512i steps = _mm512_setr_epi32(0, 16, 32, 48, 64, 80, 96, 112, 128, 144, 160, 176, 192,
                                            208, 224, 240);
    __m512i values, events;
    __mmask64 mask;
    uint32_t found = 0;

    if (bytes == 1) {
        values = _mm512_maskz_loadu_epi8(low(count), map);
        mask = _mm512_test_epi8_mask(values, values);
        events = _mm512_maskz_compress_epi8(mask, values);
        _mm512_mask_storeu_epi8(payload, low((size_t)_mm_popcnt_u64(mask)), events);
    } else {
        values = _mm512_maskz_loadu_epi16((__mmask32)low(count), map);
        mask = _mm512_test_epi16_mask(values, values);
        events = _mm512_maskz_compress_epi16((__mmask32)mask, values);
        _mm512_mask_storeu_epi16(payload, (__mmask32)low((size_t)_mm_popcnt_u64(mask)), events);
    }
    for (size_t i = 0; i < count; i += 16, mask >>= 16, at += 16 * EV_LANES)
        found += list_indices(index + found,
                              _mm512_add_epi32(_mm512_set1_epi32((int32_t)at), steps),
                              (__mmask16)mask);
    return found;
}

/* Events of payload 0 up to a whole step. */
EV_INLINE uint32_t list_padding(uint32_t found, uint32_t at, const ev_events *events, int bytes)
{
    uint32_t grain = (uint32_t)(EV_GRAIN / bytes), padding = -found & (grain - 1);
    uint8_t *payload = events->payload;
    __mmask8 mask = (__mmask8)low(padding);

    _mm_mask_storeu_epi32(events->index + found, mask, _mm_set1_epi32((int32_t)at));
    _mm_mask_storeu_epi8(payload + found * (size_t)bytes, (__mmask16)low(padding * (size_t)bytes),
                         _mm_setzero_si128());
    return found + padding;
}

EV_INLINE void list(const uint8_t *map, size_t pixels, size_t width, size_t channels,
                    const ev_events *events, int bytes)
{
    const size_t block = 64 / (size_t)bytes;
    uint8_t *payload = events->payload;
    uint32_t found = 0;

    for (size_t p = 0, x = 0; p < pixels; p++, x = x + 1 == width ? 0 : x + 1) {
        uint32_t at = (uint32_t)(x * channels * EV_LANES);

        events->start[p] = found;
        for (size_t c = 0; c < channels; c += block) {
            size_t count = channels - c < block ? channels - c : block;

            found += list_block(map, count, at + (uint32_t)c * EV_LANES, events->index + found,
                                payload + found * (size_t)bytes, bytes);
            map += count * (size_t)bytes;
        }
        found = list_padding(found, at, events, bytes);
    }
    events->start[pixels] = found;
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

EV_TARGET static size_t nonzero(const uint8_t *values, size_t count)
{
    size_t found = 0;

    for (size_t i = 0; i < count; i += 64) {
        __m512i some = _mm512_maskz_loadu_epi8(low(count - i), values + i);

        found += (size_t)_mm_popcnt_u64(_mm512_test_epi8_mask(some, some));
    }
    return found;
}

/* 16 channels of one pixel: each level that is reached counts. */
EV_INLINE __m512i reached(__m512i potential, const int32_t *levels, int32_t D, int32_t lanes)
{
    const __m512i one = _mm512_set1_epi32(1);
    __m512i count = _mm512_setzero_si512();

    for (int32_t j = 0; j < D; j++, levels += lanes) {
        __mmask16 yes = _mm512_cmple_epi32_mask(_mm512_load_si512(levels), potential);

        count = _mm512_mask_add_epi32(count, yes, count, one);
    }
    return count;
}

EV_TARGET static void fire(const int32_t *acc, const int32_t *bias, size_t bias_row,
                           const int32_t *levels, int32_t D, int32_t pixels, int32_t channels,
                           int32_t lanes, uint8_t *counts)
{
    for (int32_t p = 0; p < pixels; p++, acc += lanes, counts += channels) {
        for (int32_t c = 0; c < channels; c += 16) {
            __mmask16 mask = (__mmask16)low((size_t)(channels - c));
            __m512i potential = _mm512_load_si512(acc + c);

            if (bias != NULL)
                potential = _mm512_add_epi32(potential, _mm512_maskz_loadu_epi32(mask, bias + c));
            potential = reached(potential, levels + c, D, lanes);
            _mm_mask_storeu_epi8(counts + c, mask, _mm512_cvtepi32_epi8(potential));
        }
        bias = bias == NULL ? NULL : bias + bias_row;
    }
}

const ev_kernels ev_kernels_avx512 = {
    .name = "avx512",
    .dense = {ev_avx512_dense, ev_avx512_dense},
    .events = {ev_avx512_events, ev_avx512_events},
    .depthwise = {ev_avx512_depthwise, ev_avx512_depthwise},
    .list = {list8, list16},
    .nonzero = nonzero,
    .fire = fire,
};

#endif
