/* Results of functions that may fail: 0, or one of these. */
#ifndef EV_STATUS_H
#define EV_STATUS_H

#define EV_MUST_CHECK __attribute__((warn_unused_result))

enum {
    EV_OK = 0,
    EV_ERR_NO_MEMORY = -1,
    EV_ERR_BAD_NETWORK = -2,  /* an ev_fault says where and what */
    EV_ERR_NO_THREAD = -3,
    EV_ERR_FORKED = -4
};

/* What is wrong with a network. */
typedef struct {
    int node;         /* its index, or -1: the network as a whole */
    const char *what; /* a constant */
} ev_fault;

/* One line for people; ends with the constant's name. */
const char *ev_strerror(int status);

#endif
