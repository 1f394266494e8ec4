/* The choice of an instruction set. */
#include "kernels.h"

#include <string.h>

#include "kernels_tables.h"

#ifdef EV_X86
static int has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("popcnt");
}

static int has_avx512(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni") &&
           __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vbmi2") &&
           __builtin_cpu_supports("popcnt");
}
#endif

static int is(const char *name, const ev_kernels *table)
{
    return name == NULL || strcmp(name, table->name) == 0;
}

const ev_kernels *ev_kernels_of(const char *name)
{
#ifdef EV_X86
    if (is(name, &ev_kernels_avx512) && has_avx512())
        return &ev_kernels_avx512;
    if (is(name, &ev_kernels_avx2) && has_avx2())
        return &ev_kernels_avx2;
#endif
    return is(name, &ev_kernels_scalar) ? &ev_kernels_scalar : NULL;
}
