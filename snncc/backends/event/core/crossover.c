/* When events win over dense sums.
 *
 * Events take time for each event, and some for each list of a kernel row whatever its length; the
 * longer the row, the less that counts. Hence the density at which both take the same is `rate` -
 * `list` / values of a kernel row, where `rate` is the ratio of what both compute per second. The
 * numbers were fitted to measurements of the 3x3 and 1x1 convolutions of 4 to 512 channels (Zen
 * 5). */
#include "kernels.h"
#include "kernels_tables.h"

typedef struct {
    double rate[3]; /* of 16, 32, and 64 or more lanes */
    double list;
} crossover;

static const crossover scalar = {{0.3, 0.3, 0.3}, 2};

#ifdef EV_X86
static const crossover avx512[2] = {{{0.2, 0.24, 0.46}, 14}, {{0.3, 0.45, 0.46}, 11}};
static const crossover avx2_words = {{0.44, 0.48, 0.52}, 4};

/* The larger the payload, the slower the dense sums of bytes; kernels_avx2.h says why. */
static const crossover avx2_narrow = {{0.3, 0.5, 0.58}, 13};
static const crossover avx2_wide = {{0.5, 0.6, 0.75}, 13};
static const crossover avx2_split = {{0.6, 0.7, 0.9}, 8};

static const crossover *avx2_of(const ev_conv *conv)
{
    if (conv->bytes == 2)
        return &avx2_words;
    if (conv->payload <= 32)
        return &avx2_narrow;
    return conv->payload <= 129 ? &avx2_wide : &avx2_split;
}
#endif

static const crossover *crossover_of(const ev_kernels *kernels, const ev_conv *conv)
{
#ifdef EV_X86
    if (kernels == &ev_kernels_avx512)
        return &avx512[conv->bytes - 1];
    if (kernels == &ev_kernels_avx2)
        return avx2_of(conv);
#endif
    (void)kernels;
    (void)conv;
    return &scalar;
}

double ev_crossover(const ev_kernels *kernels, const ev_conv *conv, int64_t outputs)
{
    const crossover *found = crossover_of(kernels, conv);
    double rate = found->rate[conv->lanes >= 64 ? 2 : conv->lanes >= 32 ? 1 : 0];

    /* A single output reads all weights once, from far away: events read fewer of them. */
    if (outputs == 1 && conv->lanes >= EV_GROUP)
        return 0.8;
    return rate - found->list / ev_span(conv);
}
