/* Fields of a record, which may be anybody's bytes: in range afterwards, and the first that does not
 * hold is kept as the fault. */
#ifndef EV_RECORD_H
#define EV_RECORD_H

#include "net.h"

enum { EV_MAX_SIZE = 1 << 24, EV_MAX_WINDOW = 1 << 12, EV_MAX_COUNT = 1 << 20 };
#define EV_MAX_ELEMENTS (INT64_C(1) << 31)

typedef struct {
    const int64_t *field;
    const int64_t *projections; /* records of all of them */
    int32_t next;               /* the first of them that nothing has read */
    const uint8_t *data;
    int64_t data_bytes;
    ev_fault *fault;
} ev_record;

static inline void ev_require(ev_record *r, int holds, const char *what)
{
    if (!holds && r->fault->what == NULL)
        r->fault->what = what;
}

static inline int64_t ev_between(ev_record *r, int field, int64_t low, int64_t high, const char *what)
{
    int64_t value = r->field[field];

    ev_require(r, low <= value && value <= high, what);
    return low <= value && value <= high ? value : low;
}

static inline int32_t ev_small(ev_record *r, int field, int32_t low, int32_t high, const char *what)
{
    return (int32_t)ev_between(r, field, low, high, what);
}

/* `count` values of `size` bytes in the data. */
static inline const void *ev_array(ev_record *r, int field, int64_t count, int64_t size,
                                   const char *what)
{
    int64_t offset = r->field[field];
    int fits = offset >= 0 && offset % 8 == 0 && offset <= r->data_bytes &&
               count <= (r->data_bytes - offset) / size;

    ev_require(r, fits, what);
    return fits ? r->data + offset : NULL;
}

static inline void ev_check_range(ev_record *r, const int64_t *values, int64_t count,
                                  const char *what)
{
    for (int64_t i = 0; values != NULL && i < count; i++)
        ev_require(r, -EV_LIMIT < values[i] && values[i] < EV_LIMIT, what);
}

/* What windows of `size` outputs span; 0 if that is too much. */
static inline int32_t ev_extent(int32_t size, int32_t stride, int32_t dilation, int32_t kernel)
{
    int64_t needed = (int64_t)(size - 1) * stride + (int64_t)dilation * (kernel - 1) + 1;

    return needed > EV_MAX_SIZE ? 0 : (int32_t)needed;
}

#endif
