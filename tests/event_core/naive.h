/* The meaning of a network, in loops over its bytes that share nothing with the engine: int64,
 * channels first, every synapse of every output. */
#ifndef EV_NAIVE_H
#define EV_NAIVE_H

#include <stdint.h>

/* What each node emits in every timestep, [nodes] -> [timesteps][channels][height][width] in
 * `values`, for one sample of that form. The bytes are those of a network that ev_net_load takes. */
void naive_run(const int64_t *bytes, const int32_t *sample, int64_t **values);

int64_t naive_elements(const int64_t *bytes, int32_t node);

#endif
