/* Lists, firing and the table of AVX2. */
#include "kernels/avx2/avx2.h"

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

/* Bits of those of 8 values that are not zero. */
EV_INLINE uint32_t some(__m128i values, int bytes)
{
    const __m128i zero = _mm_setzero_si128();
    __m128i none = bytes == 1 ? _mm_cmpeq_epi8(values, zero)
                              : _mm_packs_epi16(_mm_cmpeq_epi16(values, zero), zero);

    return ~(uint32_t)_mm_movemask_epi8(none) & 255;
}

/* Bytes or words in the order of the bytes of `order`. */
EV_INLINE __m128i shuffle(__m128i values, __m128i order, int bytes)
{
    if (bytes == 2) {
        order = _mm_slli_epi16(_mm_cvtepu8_epi16(order), 1);
        order = _mm_or_si128(order, _mm_slli_epi16(_mm_add_epi16(order, _mm_set1_epi16(1)), 8));
    }
    return _mm_shuffle_epi8(values, order);
}

/* Where events go next, and how many there are. */
typedef struct {
    uint32_t *index;
    uint8_t *payload;
    size_t found;
} writer;

/* 8 or 4 values, the first of which has index `at`. There is room for as many events as there are
 * values, so that always as many are written, of which those found are meant. */
EV_INLINE void list_values(writer *w, const uint8_t *map, uint32_t at, size_t count, int bytes)
{
    __m128i values = _mm_setzero_si128();
    uint8_t *payload = w->payload + w->found * (size_t)bytes;
    uint32_t *index = w->index + w->found;

    memcpy(&values, map, count * (size_t)bytes);
    uint32_t set = some(values, bytes);
    __m128i order = _mm_cvtsi64_si128((int64_t)members[set]);
    __m256i indices = _mm256_slli_epi32(_mm256_cvtepu8_epi32(order), 4);

    indices = _mm256_add_epi32(indices, _mm256_set1_epi32((int32_t)at));
    values = shuffle(values, order, bytes);
    memcpy(index, &indices, count * sizeof *index);
    memcpy(payload, &values, count * (size_t)bytes);
    w->found += (size_t)_mm_popcnt_u32(set);
}

EV_INLINE void list_pixel(writer *w, const uint8_t *map, size_t channels, uint32_t at, int bytes)
{
    size_t grain = (size_t)(EV_GRAIN / bytes), c = 0;

    for (; c + 8 <= channels; c += 8)
        list_values(w, map + c * (size_t)bytes, at + (uint32_t)c * EV_LANES, 8, bytes);
    if (c < channels) /* channels are a multiple of four */
        list_values(w, map + c * (size_t)bytes, at + (uint32_t)c * EV_LANES, 4, bytes);
    for (; w->found % grain != 0; w->found++) {
        w->index[w->found] = at;
        memset(w->payload + w->found * (size_t)bytes, 0, (size_t)bytes);
    }
}

EV_INLINE void list(const uint8_t *map, size_t pixels, size_t width, size_t channels,
                    const ev_events *events, int bytes)
{
    writer w = {events->index, events->payload, 0};

    for (size_t p = 0, x = 0; p < pixels; p++, x = x + 1 == width ? 0 : x + 1) {
        events->start[p] = (uint32_t)w.found;
        list_pixel(&w, map, channels, (uint32_t)(x * channels * EV_LANES), bytes);
        map += channels * (size_t)bytes;
    }
    events->start[pixels] = (uint32_t)w.found;
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

/* 8 values, as 32 bits each. */
EV_INLINE __m256i digits_of(const int32_t *values, const __m256i how[3], __m128i shift)
{
    __m256i sum = _mm256_add_epi32(ev_load(values), how[0]);

    return _mm256_sub_epi32(_mm256_and_si256(_mm256_sra_epi32(sum, shift), how[1]), how[2]);
}

EV_TARGET static void digits32(const void *values, const ev_digit *digit, size_t count, int16_t *to)
{
    const int32_t *from = values;
    int32_t add = (int32_t)digit->add, mask = (int32_t)digit->mask, take = (int32_t)digit->take;
    const __m256i how[3] = {_mm256_set1_epi32(add), _mm256_set1_epi32(mask),
                            _mm256_set1_epi32(take)};
    const __m128i shift = _mm_cvtsi32_si128(digit->shift);
    size_t i = 0;

    for (; i + 16 <= count; i += 16) {
        __m256i both = _mm256_packs_epi32(digits_of(from + i, how, shift),
                                          digits_of(from + i + 8, how, shift));

        both = _mm256_permute4x64_epi64(both, 0xd8);
        memcpy(to + i, &both, sizeof both);
    }
    for (; i < count; i++)
        to[i] = (int16_t)((((from[i] + add) >> digit->shift) & mask) - take);
}

/* 4 values, as 32 bits each. AVX2 shifts 64 bits without sign alone, so that a value begins above all
 * negative ones and what that makes of the digit is taken off again. */
EV_INLINE __m128i digits_of_wide(const int64_t *values, const __m256i how[3], __m128i shift)
{
    const __m256i lower = _mm256_setr_epi32(0, 2, 4, 6, 0, 2, 4, 6);
    __m256i sum = _mm256_add_epi64(ev_load(values), how[0]);

    sum = _mm256_sub_epi64(_mm256_and_si256(_mm256_srl_epi64(sum, shift), how[1]), how[2]);
    return _mm256_castsi256_si128(_mm256_permutevar8x32_epi32(sum, lower));
}

EV_TARGET static void digits64(const void *values, const ev_digit *digit, size_t count, int16_t *to)
{
    const int64_t *from = values;
    const uint64_t start = UINT64_C(1) << 63;
    uint64_t lifted = (start >> digit->shift) & (uint64_t)digit->mask;
    const __m256i how[3] = {_mm256_set1_epi64x((int64_t)((uint64_t)digit->add + start)),
                            _mm256_set1_epi64x(digit->mask),
                            _mm256_set1_epi64x((int64_t)((uint64_t)digit->take + lifted))};
    const __m128i shift = _mm_cvtsi64_si128(digit->shift);
    size_t i = 0;

    for (; i + 8 <= count; i += 8) {
        __m128i both = _mm_packs_epi32(digits_of_wide(from + i, how, shift),
                                       digits_of_wide(from + i + 4, how, shift));

        memcpy(to + i, &both, sizeof both);
    }
    for (; i < count; i++)
        to[i] = (int16_t)((((from[i] + digit->add) >> digit->shift) & digit->mask) - digit->take);
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

enum { EV_PACKED = 16 }; /* largest D whose levels are packed to 16 bits */

EV_INLINE __m256i load_potential(const int32_t *acc, const int32_t *bias)
{
    __m256i potential = _mm256_load_si256((const __m256i *)acc);

    return bias == NULL ? potential : _mm256_add_epi32(potential, ev_load(bias));
}

/* The 32 levels from `levels` on, in 16 bits: 16 in the order of vpackssdw. Returns 0 if one needs
 * more than 16 bits. Potentials may, since saturated they still reach the same levels. */
EV_INLINE int pack_levels(__m256i packed[2], const int32_t *levels)
{
    const __m256i most = _mm256_set1_epi32(INT16_MAX);
    __m256i level[4], large = _mm256_setzero_si256();

    EV_UNROLL for (int v = 0; v < 4; v++) {
        level[v] = ev_load(levels + 8 * v);
        large = _mm256_or_si256(large, _mm256_cmpgt_epi32(level[v], most));
        large = _mm256_or_si256(large, _mm256_cmpgt_epi32(_mm256_set1_epi32(-INT16_MAX), level[v]));
    }
    packed[0] = _mm256_packs_epi32(level[0], level[1]);
    packed[1] = _mm256_packs_epi32(level[2], level[3]);
    return _mm256_testz_si256(large, large);
}

/* 32 channels of one pixel: each level that is not reached takes one from D. */
EV_INLINE void fire_packed(const int32_t *acc, const int32_t *bias, __m256i levels[][2], int32_t D,
                           uint8_t *counts)
{
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    __m256i sum[2] = {_mm256_set1_epi16((int16_t)D), _mm256_set1_epi16((int16_t)D)};
    __m256i potential[4];

    EV_UNROLL for (int v = 0; v < 4; v++)
        potential[v] = load_potential(acc + 8 * v, bias == NULL ? NULL : bias + 8 * v);
    potential[0] = _mm256_packs_epi32(potential[0], potential[1]);
    potential[1] = _mm256_packs_epi32(potential[2], potential[3]);
    for (int32_t j = 0; j < D; j++)
        EV_UNROLL for (int v = 0; v < 2; v++)
            sum[v] = _mm256_add_epi16(sum[v], _mm256_cmpgt_epi16(levels[j][v], potential[v]));
    sum[0] = _mm256_permutevar8x32_epi32(_mm256_packus_epi16(sum[0], sum[1]), order);
    memcpy(counts, sum, 32);
}

/* 32 channels of all pixels if their levels fit 16 bits; else nothing, and 0 is returned. */
EV_INLINE int fire_group(const int32_t *acc, const int32_t *bias, size_t bias_row,
                         const int32_t *levels, int32_t D, int32_t pixels, size_t channels,
                         size_t lanes, uint8_t *counts)
{
    __m256i packed[EV_PACKED][2];

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

/* 8 channels of one pixel, of which `count` exist. */
EV_INLINE void fire_plain(const int32_t *acc, const int32_t *bias, const int32_t *levels, int32_t D,
                          size_t count, size_t lanes, uint8_t *counts)
{
    __m256i sum = _mm256_set1_epi32(D), potential;
    int32_t tail[8] = {0};

    if (bias != NULL)
        bias = memcpy(tail, bias, count * sizeof *tail);
    potential = load_potential(acc, bias);
    for (int32_t j = 0; j < D; j++, levels += lanes)
        sum = _mm256_add_epi32(sum, _mm256_cmpgt_epi32(ev_load(levels), potential));
    __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
    __m128i bytes = _mm_packus_epi16(words, words);
    memcpy(counts, &bytes, count);
}

EV_TARGET static void fire(const int32_t *acc, const int32_t *bias, size_t bias_row,
                           const int32_t *levels, int32_t D, int32_t pixels, int32_t channels,
                           int32_t lanes, uint8_t *counts)
{
    size_t all = (size_t)channels, row = (size_t)lanes, c = 0;

    while (c + 32 <= all &&
           fire_group(acc + c, bias == NULL ? NULL : bias + c, bias_row, levels + c, D, pixels, all,
                      row, counts + c))
        c += 32;
    for (size_t p = 0; p < (size_t)pixels; p++)
        for (size_t i = c; i < all; i += 8)
            fire_plain(acc + p * row + i, bias == NULL ? NULL : bias + p * bias_row + i, levels + i,
                       D, all - i < 8 ? all - i : 8, row, counts + p * all + i);
}

EV_TARGET static void add_scaled(int32_t *to, const int32_t *row, int32_t factor, size_t count)
{
    for (size_t i = 0; i < count; i++)
        to[i] += factor * row[i];
}

static int is_here(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("popcnt");
}

/* The larger the payload, the slower the dense sums of bytes; avx2.h says why. */
static const ev_tuning *tuning(const ev_conv *conv)
{
    static const ev_tuning forms[EV_FORMS] = {
        [EV_NARROW] = {{0.3, 0.5, 0.58}, 13},
        [EV_WIDE] = {{0.5, 0.6, 0.75}, 13},
        [EV_SPLIT] = {{0.6, 0.7, 0.9}, 8},
        [EV_WORDS] = {{0.44, 0.48, 0.52}, 4},
    };

    return &forms[ev_form_of(conv)];
}

const ev_kernels ev_kernels_avx2 = {
    .name = "avx2",
    .is_here = is_here,
    .tuning = tuning,
    .dense = {ev_avx2_dense, ev_avx2_dense},
    .events = {ev_avx2_events, ev_avx2_events},
    .depthwise = {ev_avx2_depthwise, ev_avx2_depthwise},
    .list = {list8, list16},
    .digits = {digits32, digits64},
    .nonzero = nonzero,
    .add_scaled = add_scaled,
    .fire = fire,
};

#endif
