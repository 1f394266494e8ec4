/* Whether the engine, in every instruction set and policy, does what a network means. */
#ifndef EV_AGREE_H
#define EV_AGREE_H

#include "net.h"

typedef enum { AGREE_REFUSED, AGREE_TOO_LARGE, AGREE_EQUAL, AGREE_WRONG } agreement;

/* Runs samples drawn from `seed` through a network that may be anything. On AGREE_WRONG stderr has
 * the first difference, on AGREE_REFUSED `fault` the reason. The bytes are aligned to 8. */
agreement agree(const void *bytes, size_t size, uint64_t seed, ev_fault *fault);

#endif
