/* What all C tests share: checks that say where they failed, and a seeded generator of numbers. */
#ifndef EV_TESTING_H
#define EV_TESTING_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/* Ends the test if `holds` is 0. */
#define CHECK(holds)                                                                      \
    do {                                                                                  \
        if (!(holds)) {                                                                   \
            fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #holds);    \
            exit(1);                                                                      \
        }                                                                                 \
    } while (0)

typedef struct {
    uint64_t state;
} rng;

static inline uint32_t draw(rng *r, uint32_t below)
{
    r->state = r->state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((r->state >> 33) % below);
}

static inline int32_t between(rng *r, int32_t low, int32_t high)
{
    return low + (int32_t)draw(r, (uint32_t)(high - low) + 1);
}

/* Memory, zeroed and exactly as large as asked for; the test ends if there is none. */
static inline void *zeros(size_t count, size_t size)
{
    void *memory = calloc(count > 0 ? count : 1, size);

    CHECK(memory != NULL);
    return memory;
}

#endif
