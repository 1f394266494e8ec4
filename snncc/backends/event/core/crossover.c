/* When events win over dense sums: measured on convolutions of 64 to 1024 outputs, with what it
 * takes to list the events. Few outputs do not pay for reading an event. */
#include <string.h>

#include "kernels.h"

typedef struct {
    const char *isa;
    double narrow[2], wide_1x1, wide; /* lanes of 32..63 by bytes - 1, and from 64 on */
} crossover;

static const crossover measured[] = {
    {"scalar", {0.5, 0.5}, 0.6, 0.6},
    {"avx2", {0.15, 0.25}, 0.40, 0.40},
    {"avx512", {0.04, 0.26}, 0.25, 0.28},
};

double ev_crossover(const ev_kernels *kernels, const ev_conv *conv)
{
    size_t i = 0;

    while (i + 1 < sizeof(measured) / sizeof(*measured) && strcmp(measured[i].isa, kernels->name))
        i++;
    if (conv->lanes < 32)
        return 0.0;
    if (conv->lanes < 64)
        return measured[i].narrow[conv->bytes - 1];
    return conv->kernel_h * conv->kernel_w == 1 ? measured[i].wide_1x1 : measured[i].wide;
}
