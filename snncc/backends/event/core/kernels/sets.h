/* The instruction sets there are. Each is a folder, and one line here: the fastest first. */
#ifndef EV_SETS_H
#define EV_SETS_H

#include "kernels/kernels.h"

#if defined(__x86_64__) && defined(__GNUC__)
#define EV_X86 1
#define EV_X86_SETS(X) X(avx512) X(avx2)
#else
#define EV_X86_SETS(X)
#endif

#define EV_SETS(X) \
    EV_X86_SETS(X) \
    X(scalar)

#define EV_DECLARE(set) extern const ev_kernels ev_kernels_##set;
EV_SETS(EV_DECLARE)

/* EV_SETS(EV_NAME) are their names. */
#define EV_NAME(set) #set,

#endif
