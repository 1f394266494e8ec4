/* Bytes to a network; if it is valid, and small enough, it runs, and must do what the naive loop does.
 *
 * LLVMFuzzerTestOneInput is for libFuzzer. Without it (EV_LIBFUZZER not defined) main mutates networks:
 * those of the files named, and drawn ones.
 * Usage: fuzz_net [-n EXECUTIONS] [-s SEED] [FILE…] */
#include <string.h>

#include "agree.h"
#include "builder.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint64_t hash_of(const uint8_t *data, size_t size)
{
    uint64_t hash = 14695981039346656037u;

    for (size_t i = 0; i < size; i++)
        hash = (hash ^ data[i]) * 1099511628211u;
    return hash;
}

static agreement try(const uint8_t *data, size_t size)
{
    uint8_t *bytes = zeros(size, 1); /* aligned, and with nothing behind it */
    ev_fault fault = {-1, NULL};
    agreement result;

    memcpy(bytes, data, size);
    result = agree(bytes, size, hash_of(data, size), &fault);
    free(bytes);
    return result;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (try(data, size) == AGREE_WRONG)
        abort();
    return 0;
}

#ifndef EV_LIBFUZZER

enum { MOST_BYTES = 1 << 19, MOST_SEEDS = 4096 };

typedef struct {
    uint8_t *bytes;
    size_t size;
} input;

typedef struct {
    rng r;
    input seed[MOST_SEEDS];
    uint32_t seeds, drawn;
    uint64_t count[4]; /* by agreement */
} fuzzer;

/* -- seeds -------------------------------------------------------------------------------------- */

static input read_file(const char *path)
{
    input in = {zeros(MOST_BYTES, 1), 0};
    FILE *file = fopen(path, "rb");

    if (file == NULL) {
        perror(path);
        exit(2);
    }
    in.size = fread(in.bytes, 1, MOST_BYTES, file);
    fclose(file);
    return in;
}

static input drawn(fuzzer *f)
{
    static network net;
    input in;

    network_draw(&net, &f->r);
    in.bytes = network_bytes(&net, &in.size);
    return in;
}

/* One of the seeds; drawn ones are replaced by new ones from time to time. */
static input *any_seed(fuzzer *f)
{
    input *in = &f->seed[draw(&f->r, f->seeds)];

    if (in < &f->seed[f->drawn] && draw(&f->r, 4) == 0) {
        free(in->bytes);
        *in = drawn(f);
    }
    return in;
}

/* -- mutation ----------------------------------------------------------------------------------- */

static int64_t interesting(rng *r, int64_t old)
{
    static const int64_t values[] = {
        0, 1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 31, 32, 63, 64, 65, 127, 128, 255, 256, 4095, 4096, 4097,
        32767, 32768, 65535, 65536, 1 << 20, (1 << 24) - 1, 1 << 24, (1 << 24) + 1, INT32_MAX - 1,
        INT32_MAX, INT32_MIN, INT64_C(1) << 31, INT64_C(1) << 32, (INT64_C(1) << 61) - 1,
        INT64_C(1) << 62, (INT64_C(1) << 62) - 1, INT64_MAX, INT64_MIN, -1, -2, -127, -128, -32768};

    switch (draw(r, 8)) {
    case 0:
        return (int64_t)((uint64_t)old + 1);
    case 1:
        return (int64_t)((uint64_t)old - 1);
    case 2:
        return (int64_t)((uint64_t)old * 2);
    case 3:
        return old / 2;
    case 4:
        return (int64_t)(0 - (uint64_t)old);
    case 5:
        return (int64_t)draw(r, 8);
    default:
        return values[draw(r, sizeof(values) / sizeof(*values))];
    }
}

/* Words before the data, as far as there are so many. */
static size_t record_words(const input *in)
{
    const int64_t *head = (const int64_t *)(const void *)in->bytes;
    uint64_t words = EV_HEAD_WORDS;

    if (in->size < EV_HEAD_WORDS * 8)
        return 0;
    words += (uint64_t)head[EV_HEAD_NODES] % 4096 * EV_NODE_WORDS;
    words += (uint64_t)head[EV_HEAD_PROJECTIONS] % 4096 * EV_PROJECTION_WORDS;
    return words < in->size / 8 ? (size_t)words : in->size / 8;
}

static void edit_field(rng *r, input *in)
{
    size_t words = record_words(in), at;
    int64_t *field = (int64_t *)(void *)in->bytes;

    if (words == 0)
        return;
    at = draw(r, 16) && words > EV_HEAD_WORDS
             ? EV_HEAD_WORDS + draw(r, (uint32_t)(words - EV_HEAD_WORDS))
             : draw(r, (uint32_t)words);
    field[at] = interesting(r, field[at]);
}

/* Weights, biases or levels. */
static void edit_data(rng *r, input *in)
{
    size_t words = record_words(in), all = in->size / 8, at;
    int64_t *field = (int64_t *)(void *)in->bytes;
    int16_t *weight = (int16_t *)(void *)in->bytes;

    if (words >= all)
        return;
    at = words + draw(r, (uint32_t)(all - words));
    if (draw(r, 2))
        field[at] = interesting(r, field[at]);
    else
        weight[4 * at + draw(r, 4)] = (int16_t)interesting(r, weight[4 * at]);
}

static void flip(rng *r, input *in)
{
    if (in->size > 0)
        in->bytes[draw(r, (uint32_t)in->size)] ^= (uint8_t)(1 << draw(r, 8));
}

static uint32_t least(size_t a, size_t b)
{
    return (uint32_t)(a < b ? a : b);
}

/* Some words of another network, at the same place or any. */
static void splice(fuzzer *f, input *in)
{
    const input *other = any_seed(f);
    uint32_t words = least(in->size, other->size) / 8, from, to, count;

    if (words == 0)
        return;
    from = draw(&f->r, words);
    to = draw(&f->r, 2) ? from : draw(&f->r, words);
    count = 1 + draw(&f->r, EV_NODE_WORDS);
    count = least(count, words - (from > to ? from : to));
    memmove(in->bytes + 8 * to, other->bytes + 8 * from, 8 * count);
}

/* A record over another one of the same network. */
static void repeat(rng *r, input *in)
{
    size_t words = record_words(in), from, to;

    if (words < EV_HEAD_WORDS + 2 * EV_NODE_WORDS)
        return;
    from = EV_HEAD_WORDS + draw(r, (uint32_t)(words - EV_HEAD_WORDS - EV_NODE_WORDS));
    to = EV_HEAD_WORDS + draw(r, (uint32_t)(words - EV_HEAD_WORDS - EV_NODE_WORDS));
    memmove(in->bytes + 8 * to, in->bytes + 8 * from, 8 * EV_NODE_WORDS);
}

static void resize(rng *r, input *in)
{
    size_t change = draw(r, 64);

    in->size = draw(r, 2) || in->size + change > MOST_BYTES ? in->size - least(change, in->size)
                                                             : in->size + change;
}

static void mutate(fuzzer *f, input *in)
{
    uint32_t kind = draw(&f->r, 20);

    if (kind < 8)
        edit_data(&f->r, in);
    else if (kind < 14)
        edit_field(&f->r, in);
    else if (kind < 16)
        flip(&f->r, in);
    else if (kind < 18)
        splice(f, in);
    else if (kind < 19)
        repeat(&f->r, in);
    else
        resize(&f->r, in);
}

/* -- main --------------------------------------------------------------------------------------- */

static void keep_failing(const input *in)
{
    FILE *file = fopen("fuzz_net.failing", "wb");

    if (file != NULL) {
        fwrite(in->bytes, 1, in->size, file);
        fclose(file);
    }
    fputs("the network is in fuzz_net.failing\n", stderr);
}

static void execute(fuzzer *f, uint8_t *room)
{
    const input *seed = any_seed(f);
    input in = {room, seed->size};
    agreement result;

    memcpy(room, seed->bytes, seed->size);
    memset(room + seed->size, 0, MOST_BYTES - seed->size < 1024 ? MOST_BYTES - seed->size : 1024);
    for (uint32_t left = draw(&f->r, 4); left > 0; left--)
        mutate(f, &in);
    result = try(in.bytes, in.size);
    f->count[result]++;
    if (result == AGREE_WRONG && f->count[AGREE_WRONG] == 1)
        keep_failing(&in);
}

static void take_seeds(fuzzer *f, char **paths, int count)
{
    for (f->drawn = 0; f->drawn < 256; f->drawn++)
        f->seed[f->drawn] = drawn(f);
    f->seeds = f->drawn;
    for (int i = 0; i < count && f->seeds < MOST_SEEDS; i++)
        f->seed[f->seeds++] = read_file(paths[i]);
}

int main(int argc, char **argv)
{
    static fuzzer f;
    uint8_t *room = zeros(MOST_BYTES, 1);
    uint64_t executions = 20000;
    int at = 1;

    f.r.state = 1;
    for (; at + 1 < argc && argv[at][0] == '-'; at += 2)
        if (argv[at][1] == 'n')
            executions = strtoull(argv[at + 1], NULL, 10);
        else
            f.r.state = strtoull(argv[at + 1], NULL, 10);
    take_seeds(&f, argv + at, argc - at);
    for (uint64_t i = 0; i < executions; i++)
        execute(&f, room);
    printf("fuzz_net: %llu executions, %llu refused, %llu valid but too large to run, %llu run and "
           "equal, %llu mismatched\n", (unsigned long long)executions,
           (unsigned long long)f.count[AGREE_REFUSED], (unsigned long long)f.count[AGREE_TOO_LARGE],
           (unsigned long long)f.count[AGREE_EQUAL], (unsigned long long)f.count[AGREE_WRONG]);
    for (uint32_t i = 0; i < f.seeds; i++)
        free(f.seed[i].bytes);
    free(room);
    return f.count[AGREE_WRONG] > 0;
}

#endif
