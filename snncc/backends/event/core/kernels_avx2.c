/* Lists, firing and the table of AVX2. */
#include "kernels_avx2.h"

#ifdef EV_X86

/* For each set of 8 values, given as bits, the numbers of its members in order, a byte each. */
static const uint64_t members[256] = {
    0x0, 0x0, 0x1, 0x100, 0x2, 0x200, 0x201, 0x20100, 0x3, 0x300, 0x301, 0x30100, 0x302, 0x30200,
    0x30201, 0x3020100, 0x4, 0x400, 0x401, 0x40100, 0x402, 0x40200, 0x40201, 0x4020100, 0x403,
    0x40300, 0x40301, 0x4030100, 0x40302, 0x4030200, 0x4030201, 0x403020100, 0x5, 0x500, 0x501,
    0x50100, 0x502, 0x50200, 0x50201, 0x5020100, 0x503, 0x50300, 0x50301, 0x5030100, 0x50302,
    0x5030200, 0x5030201, 0x503020100, 0x504, 0x50400, 0x50401, 0x5040100, 0x50402, 0x5040200,
    0x5040201, 0x504020100, 0x50403, 0x5040300, 0x5040301, 0x504030100, 0x5040302, 0x504030200,
    0x504030201, 0x50403020100, 0x6, 0x600, 0x601, 0x60100, 0x602, 0x60200, 0x60201, 0x6020100,
    0x603, 0x60300, 0x60301, 0x6030100, 0x60302, 0x6030200, 0x6030201, 0x603020100, 0x604, 0x60400,
    0x60401, 0x6040100, 0x60402, 0x6040200, 0x6040201, 0x604020100, 0x60403, 0x6040300, 0x6040301,
    0x604030100, 0x6040302, 0x604030200, 0x604030201, 0x60403020100, 0x605, 0x60500, 0x60501,
    0x6050100, 0x60502, 0x6050200, 0x6050201, 0x605020100, 0x60503, 0x6050300, 0x6050301,
    0x605030100, 0x6050302, 0x605030200, 0x605030201, 0x60503020100, 0x60504, 0x6050400, 0x6050401,
    0x605040100, 0x6050402, 0x605040200, 0x605040201, 0x60504020100, 0x6050403, 0x605040300,
    0x605040301, 0x60504030100, 0x605040302, 0x60504030200, 0x60504030201, 0x6050403020100, 0x7,
    0x700, 0x701, 0x70100, 0x702, 0x70200, 0x70201, 0x7020100, 0x703, 0x70300, 0x70301, 0x7030100,
    0x70302, 0x7030200, 0x7030201, 0x703020100, 0x704, 0x70400, 0x70401, 0x7040100, 0x70402,
    0x7040200, 0x7040201, 0x704020100, 0x70403, 0x7040300, 0x7040301, 0x704030100, 0x7040302,
    0x704030200, 0x704030201, 0x70403020100, 0x705, 0x70500, 0x70501, 0x7050100, 0x70502,
    0x7050200, 0x7050201, 0x705020100, 0x70503, 0x7050300, 0x7050301, 0x705030100, 0x7050302,
    0x705030200, 0x705030201, 0x70503020100, 0x70504, 0x7050400, 0x7050401, 0x705040100, 0x7050402,
    0x705040200, 0x705040201, 0x70504020100, 0x7050403, 0x705040300, 0x705040301, 0x70504030100,
    0x705040302, 0x70504030200, 0x70504030201, 0x7050403020100, 0x706, 0x70600, 0x70601, 0x7060100,
    0x70602, 0x7060200, 0x7060201, 0x706020100, 0x70603, 0x7060300, 0x7060301, 0x706030100,
    0x7060302, 0x706030200, 0x706030201, 0x70603020100, 0x70604, 0x7060400, 0x7060401, 0x706040100,
    0x7060402, 0x706040200, 0x706040201, 0x70604020100, 0x7060403, 0x706040300, 0x706040301,
    0x70604030100, 0x706040302, 0x70604030200, 0x70604030201, 0x7060403020100, 0x70605, 0x7060500,
    0x7060501, 0x706050100, 0x7060502, 0x706050200, 0x706050201, 0x70605020100, 0x7060503,
    0x706050300, 0x706050301, 0x70605030100, 0x706050302, 0x70605030200, 0x70605030201,
    0x7060503020100, 0x7060504, 0x706050400, 0x706050401, 0x70605040100, 0x706050402,
    0x70605040200, 0x70605040201, 0x7060504020100, 0x706050403, 0x70605040300, 0x70605040301,
    0x7060504030100, 0x70605040302, 0x7060504030200, 0x7060504030201, 0x706050403020100,
};

/* 8 values of the map from `at` on, the first of which has index `index`: bits of those not zero. */
EV_INLINE uint32_t some(__m128i values, int bytes)
{
    const __m128i zero = _mm_setzero_si128();
    __m128i none = bytes == 1 ? _mm_cmpeq_epi8(values, zero)
                              : _mm_packs_epi16(_mm_cmpeq_epi16(values, zero), zero);

    return ~(uint32_t)_mm_movemask_epi8(none) & 255;
}

EV_INLINE __m128i load_values(const uint8_t *map, size_t count, int bytes)
{
    __m128i values = _mm_setzero_si128();

    if (count < 8) /* four: channels are a multiple of them */
        memcpy(&values, map, 4 * (size_t)bytes);
    else
        memcpy(&values, map, 8 * (size_t)bytes);
    return values;
}

/* Words in the order of the bytes of `order`. */
EV_INLINE __m128i shuffle(__m128i values, __m128i order, int bytes)
{
    if (bytes == 2) {
        order = _mm_slli_epi16(_mm_cvtepu8_epi16(order), 1);
        order = _mm_or_si128(order, _mm_slli_epi16(_mm_add_epi16(order, _mm_set1_epi16(1)), 8));
    }
    return _mm_shuffle_epi8(values, order);
}

/* Where events go next, and how many there are and could be. */
typedef struct {
    uint32_t *index;
    uint8_t *payload;
    size_t found;
} writer;

/* Writes 8 events, of which the first `count` are meant, or only these where there is no room. */
EV_INLINE void write(writer *to, __m256i index, __m128i payload, size_t count, int full, int bytes)
{
    uint32_t *first = to->index + to->found;
    uint8_t *second = to->payload + to->found * (size_t)bytes;

    if (full) {
        _mm256_storeu_si256((__m256i *)first, index);
        memcpy(second, &payload, 8 * (size_t)bytes);
    } else {
        memcpy(first, &index, count * sizeof *first);
        memcpy(second, &payload, count * (size_t)bytes);
    }
    to->found += count;
}

/* Up to 8 values, the first of which has index `at`. */
EV_INLINE void list_values(writer *to, const uint8_t *map, size_t count, uint32_t at, int bytes)
{
    __m128i values = load_values(map, count, bytes);
    uint32_t set = some(values, bytes);
    __m128i order = _mm_cvtsi64_si128((int64_t)members[set]);
    __m256i index = _mm256_slli_epi32(_mm256_cvtepu8_epi32(order), 4);

    index = _mm256_add_epi32(index, _mm256_set1_epi32((int32_t)at));
    write(to, index, shuffle(values, order, bytes), (size_t)_mm_popcnt_u32(set), count == 8, bytes);
}

EV_INLINE void list_pixel(writer *to, const uint8_t *map, size_t channels, uint32_t at, int bytes)
{
    size_t grain = (size_t)(EV_GRAIN / bytes);

    for (size_t c = 0; c < channels; c += 8)
        list_values(to, map + c * (size_t)bytes, channels - c < 8 ? channels - c : 8,
                    at + (uint32_t)c * EV_LANES, bytes);
    for (; to->found % grain != 0; to->found++) {
        to->index[to->found] = at;
        memset(to->payload + to->found * (size_t)bytes, 0, (size_t)bytes);
    }
}

EV_INLINE void list(const uint8_t *map, size_t pixels, size_t width, size_t channels,
                    const ev_events *events, int bytes)
{
    writer to = {events->index, events->payload, 0};

    for (size_t p = 0, x = 0; p < pixels; p++, x = x + 1 == width ? 0 : x + 1) {
        events->start[p] = (uint32_t)to.found;
        list_pixel(&to, map, channels, (uint32_t)(x * channels * EV_LANES), bytes);
        map += channels * (size_t)bytes;
    }
    events->start[pixels] = (uint32_t)to.found;
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
    size_t found = 0, i = 0;

    for (; i + 32 <= count; i += 32) {
        __m256i none = _mm256_cmpeq_epi8(ev_load(values + i), _mm256_setzero_si256());

        found += 32 - (size_t)_mm_popcnt_u32((uint32_t)_mm256_movemask_epi8(none));
    }
    for (; i < count; i++)
        found += values[i] != 0;
    return found;
}

/* 8 channels of one pixel: each level that is not reached takes one from D. */
EV_INLINE __m256i reached(__m256i potential, const int32_t *levels, int32_t D, int32_t lanes)
{
    __m256i count = _mm256_set1_epi32(D);

    for (int32_t j = 0; j < D; j++, levels += lanes) {
        __m256i level = _mm256_load_si256((const __m256i *)levels);

        count = _mm256_add_epi32(count, _mm256_cmpgt_epi32(level, potential));
    }
    return count;
}

/* 16 channels of which `count` exist; bias may be NULL. */
EV_INLINE void fire16(const int32_t *acc, const int32_t *bias, const int32_t *levels, int32_t D,
                      int32_t count, int32_t lanes, uint8_t *counts)
{
    __m256i low = _mm256_load_si256((const __m256i *)acc);
    __m256i high = _mm256_load_si256((const __m256i *)(acc + 8));
    int32_t tail[16] = {0};

    if (bias != NULL && count < 16)
        bias = memcpy(tail, bias, (size_t)count * sizeof *tail);
    if (bias != NULL) {
        low = _mm256_add_epi32(low, ev_load(bias));
        high = _mm256_add_epi32(high, ev_load(bias + 8));
    }
    low = _mm256_packs_epi32(reached(low, levels, D, lanes), reached(high, levels + 8, D, lanes));
    low = _mm256_permute4x64_epi64(low, 0xd8);
    __m128i bytes = _mm_packus_epi16(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1));
    if (count == 16)
        _mm_storeu_si128((__m128i *)counts, bytes);
    else
        memcpy(counts, &bytes, (size_t)count);
}

EV_TARGET static void fire(const int32_t *acc, const int32_t *bias, size_t bias_row,
                           const int32_t *levels, int32_t D, int32_t pixels, int32_t channels,
                           int32_t lanes, uint8_t *counts)
{
    for (int32_t p = 0; p < pixels; p++, acc += lanes, counts += channels) {
        for (int32_t c = 0; c < channels; c += 16)
            fire16(acc + c, bias == NULL ? NULL : bias + c, levels + c, D,
                   channels - c < 16 ? channels - c : 16, lanes, counts + c);
        bias = bias == NULL ? NULL : bias + bias_row;
    }
}

const ev_kernels ev_kernels_avx2 = {
    .name = "avx2",
    .dense = {ev_avx2_dense, ev_avx2_dense},
    .events = {ev_avx2_events, ev_avx2_events},
    .depthwise = {ev_avx2_depthwise, ev_avx2_depthwise},
    .list = {list8, list16},
    .nonzero = nonzero,
    .fire = fire,
};

#endif
