#include "status.h"

const char *ev_strerror(int status)
{
    switch (status) {
    case EV_OK:
        return "no error (EV_OK)";
    case EV_ERR_NO_MEMORY:
        return "out of memory (EV_ERR_NO_MEMORY)";
    case EV_ERR_BAD_NETWORK:
        return "the network is not valid (EV_ERR_BAD_NETWORK)";
    case EV_ERR_NO_THREAD:
        return "a thread could not be started (EV_ERR_NO_THREAD)";
    case EV_ERR_FORKED:
        return "the session was started before this process was forked off; start one here "
               "(EV_ERR_FORKED)";
    default:
        return "unknown error";
    }
}
