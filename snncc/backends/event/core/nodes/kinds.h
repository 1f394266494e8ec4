/* The kinds of node there are. Each is a file in this folder, and one line here: its name in the enum
 * and in its table. Their order is that of their numbers in a network's bytes, as layout.py has it. */
#ifndef EV_KINDS_H
#define EV_KINDS_H

#define EV_KINDS(X)             \
    X(SOURCE, source)           \
    X(ACCUMULATOR, accumulator) \
    X(NEURON, neuron)           \
    X(POOL, pool)               \
    X(ATTENTION, attention)     \
    X(GATE, gate)               \
    X(SUM, sum)                 \
    X(READOUT, readout)

#define EV_NUMBER(NAME, name) EV_##NAME,
typedef enum { EV_KINDS(EV_NUMBER) } ev_kind;

#define EV_ONE(NAME, name) +1
enum { EV_KIND_COUNT = EV_KINDS(EV_ONE) };

#endif
