/* When events win over dense sums.
 *
 * Events take time for each event, and some for each list of a kernel row whatever its length; the
 * longer the row, the less that counts. Hence the density at which both take the same is `rate` -
 * `list` / values of a kernel row, where `rate` is the ratio of what both compute per second. Each
 * instruction set has its numbers in its own table; they were fitted to measurements of the 3x3 and
 * 1x1 convolutions of 4 to 512 channels (Zen 5). */
#include "kernels/kernels.h"
#include "kernels/packing.h"

double ev_crossover(const ev_kernels *kernels, const ev_conv *conv, int64_t outputs)
{
    const ev_tuning *found = kernels->tuning(conv);
    double rate = found->rate[conv->lanes >= 64 ? 2 : conv->lanes >= 32 ? 1 : 0];

    /* A single output reads all weights once, from far away: events read fewer of them. */
    if (outputs == 1 && conv->lanes >= EV_GROUP)
        return 0.8;
    return rate - found->list / ev_span(conv);
}
