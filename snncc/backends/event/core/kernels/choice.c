/* The choice of an instruction set. */
#include "kernels/sets.h"

#include <string.h>

#define EV_TABLE(set) &ev_kernels_##set,

const ev_kernels *ev_kernels_of(const char *name)
{
    static const ev_kernels *const sets[] = {EV_SETS(EV_TABLE)};

    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++)
        if ((name == NULL || strcmp(name, sets[i]->name) == 0) && sets[i]->is_here())
            return sets[i];
    return NULL;
}
