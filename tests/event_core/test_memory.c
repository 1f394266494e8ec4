/* The n-th allocation, or the n-th thread, fails, for every n: an error each time, nothing leaks, and
 * what did start still ends. Linked with --wrap for the functions below. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "builder.h"
#include "session.h"

/* Calls until one fails; negative: none does. */
static atomic_int left_memory = -1, left_threads = -1, blocks;

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *block, size_t size);
void *__real_aligned_alloc(size_t alignment, size_t size);
int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
                          void *(*start)(void *), void *argument);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *block, size_t size);
void *__wrap_aligned_alloc(size_t alignment, size_t size);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
                          void *(*start)(void *), void *argument);

static int fails(atomic_int *left)
{
    return atomic_load(left) >= 0 && atomic_fetch_sub(left, 1) == 0;
}

void *__wrap_malloc(size_t size)
{
    blocks++;
    return fails(&left_memory) ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    blocks++;
    return fails(&left_memory) ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *block, size_t size)
{
    blocks++;
    return fails(&left_memory) ? NULL : __real_realloc(block, size);
}

void *__wrap_aligned_alloc(size_t alignment, size_t size)
{
    blocks++;
    return fails(&left_memory) ? NULL : __real_aligned_alloc(alignment, size);
}

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
                          void *(*start)(void *), void *argument)
{
    return fails(&left_threads) ? EAGAIN : __real_pthread_create(thread, attributes, start, argument);
}

/* Loads, starts, runs one sample, ends. Returns the first error. */
static int live(const void *bytes, size_t size)
{
    uint8_t sample[3 * 4 * 4] = {1, 2, 3};
    int64_t potentials[10];
    void *node[MAX_NODES] = {0};
    ev_net *net = NULL;
    ev_session *session = NULL;
    ev_fault fault = {-1, NULL};
    int64_t needed;
    int status = ev_net_load(bytes, size, &net, &fault);

    if (status == EV_OK)
        status = ev_state_bytes(net, &needed);
    if (status == EV_OK)
        status = ev_session_new(net, ev_kernels_of(NULL), EV_AUTO, (ev_sizes){3, 2, 0}, &session);
    if (status == EV_OK) {
        int before = blocks;

        node[net->nodes - 1] = potentials;
        CHECK(ev_session_run(session, sample, 1, &(ev_results){node, 1}) == EV_OK);
        CHECK(blocks == before); /* nothing is allocated while it runs */
    } else {
        CHECK(session == NULL);
    }
    ev_session_free(session);
    ev_net_free(net);
    return status;
}

/* All that allocates: three methods, a wide accumulator, memory, more blocks than one table holds. */
static void *network_of_all(size_t *size)
{
    network net;
    rng r = {9};
    shape of = {16, 4, 4};
    int32_t last = 0;

    network_start(&net, 1, (shape){3, 4, 4}, 4);
    for (int32_t layer = 0; layer < 9; layer++) {
        window w = {.kernel_h = 3, .kernel_w = 3, .pad_top = 1, .pad_left = 1};

        w.groups = layer == 1 ? 16 : layer == 2 ? 4 : 1;
        w.parts = layer == 3 ? 3 : 1;
        w.shift = 8;
        add_accumulator(&net, &r, of, 50, layer % 2);
        add_projection(&net, &r, last, EV_CONV, w);
        last = add_neuron(&net, &r, of, last + 1, 4, 50);
        if (layer == 4)
            add_carry(&net, &r, last, EV_CARRY_SOFT, 50);
    }
    add_accumulator(&net, &r, (shape){10, 1, 1}, 50, 0);
    add_projection(&net, &r, last, EV_LINEAR, (window){0});
    add_node(&net, EV_READOUT, (shape){10, 1, 1}, last + 1);
    return network_bytes(&net, size);
}

/* -- runs at the same time, and no memory for another state -------------------------------------- */

enum { CALLERS = 4, MOST_ROUNDS = 100000 };

typedef struct {
    const ev_net *net;
    ev_session *session;
    const int64_t *want;
} caller;

static void *call(void *argument)
{
    const caller *self = argument;
    uint8_t sample[3 * 4 * 4] = {1, 2, 3};
    int64_t potentials[10];
    void *node[MAX_NODES] = {0};

    node[self->net->nodes - 1] = potentials;
    for (int i = 0; i < MOST_ROUNDS && atomic_load(&left_memory) >= 0; i++) {
        CHECK(ev_session_run(self->session, sample, 1, &(ev_results){node, 1}) == EV_OK);
        CHECK(memcmp(potentials, self->want, sizeof(potentials)) == 0);
    }
    CHECK(ev_session_run(self->session, sample, 1, &(ev_results){node, 1}) == EV_OK);
    CHECK(memcmp(potentials, self->want, sizeof(potentials)) == 0);
    return NULL;
}

/* The second run at a time needs a state of its own, and gets none: it waits for the first. */
static void test_full(const void *bytes, size_t size)
{
    uint8_t sample[3 * 4 * 4] = {1, 2, 3};
    int64_t want[10];
    void *node[MAX_NODES] = {0};
    pthread_t thread[CALLERS];
    caller self = {.want = want};
    ev_net *net;
    ev_fault fault = {-1, NULL};
    ev_sizes sizes = {2, CALLERS, 0};

    CHECK(ev_net_load(bytes, size, &net, &fault) == EV_OK);
    CHECK(ev_session_new(net, ev_kernels_of(NULL), EV_AUTO, sizes, &self.session) == EV_OK);
    node[net->nodes - 1] = want;
    CHECK(ev_session_run(self.session, sample, 1, &(ev_results){node, 1}) == EV_OK);
    self.net = net;
    left_memory = 0;
    for (int i = 0; i < CALLERS; i++)
        CHECK(__real_pthread_create(&thread[i], NULL, call, &self) == 0);
    for (int i = 0; i < CALLERS; i++)
        pthread_join(thread[i], NULL);
    CHECK(left_memory < 0); /* another state was asked for */
    left_memory = -1;
    ev_session_free(self.session);
    ev_net_free(net);
}

int main(void)
{
    size_t size;
    void *bytes = network_of_all(&size);
    int needed;

    blocks = 0;
    CHECK(live(bytes, size) == EV_OK);
    needed = blocks;
    for (int n = 0; n < needed; n++) {
        left_memory = n;
        CHECK(live(bytes, size) == EV_ERR_NO_MEMORY);
        CHECK(left_memory == -1); /* the n-th did fail, and no more was asked for after it */
    }
    left_memory = needed;
    CHECK(live(bytes, size) == EV_OK);
    left_memory = -1;
    for (int n = 0; n < 2; n++) {
        left_threads = n;
        CHECK(live(bytes, size) == EV_ERR_NO_THREAD);
    }
    test_full(bytes, size);
    printf("each of %d allocations failed once, each of 2 threads\n", needed);
    free(bytes);
    return 0;
}
