#include "naive.h"

#include "net.h"
#include "testing.h"

typedef struct {
    const int64_t *head;
    int64_t **now;      /* [nodes] values of this timestep */
    int64_t **membrane; /* [nodes] */
} reading;

static const int64_t *node_of(const int64_t *head, int64_t node)
{
    return head + EV_HEAD_WORDS + node * EV_NODE_WORDS;
}

static const int64_t *projection_of(const int64_t *head, int64_t k)
{
    return node_of(head, head[EV_HEAD_NODES]) + k * EV_PROJECTION_WORDS;
}

static const void *data_at(const int64_t *head, int64_t offset)
{
    return (const uint8_t *)projection_of(head, head[EV_HEAD_PROJECTIONS]) + offset;
}

int64_t naive_elements(const int64_t *bytes, int32_t node)
{
    const int64_t *f = node_of(bytes, node);

    return f[EV_NODE_CHANNELS] * f[EV_NODE_HEIGHT] * f[EV_NODE_WIDTH];
}

/* The value of a node at (c, y, x), or 0 outside of its map. */
static int64_t value(const reading *r, int64_t node, int64_t c, int64_t y, int64_t x)
{
    const int64_t *f = node_of(r->head, node);

    if (y < 0 || y >= f[EV_NODE_HEIGHT] || x < 0 || x >= f[EV_NODE_WIDTH])
        return 0;
    return r->now[node][(c * f[EV_NODE_HEIGHT] + y) * f[EV_NODE_WIDTH] + x];
}

/* -- accumulators ------------------------------------------------------------------------------- */

static int64_t weight(const reading *r, const int64_t *p, int64_t at)
{
    int64_t sum = 0;

    for (int64_t part = 0; part < p[EV_PROJECTION_PARTS]; part++) {
        const int64_t *f = p + EV_PROJECTION_PART + 2 * part;

        sum += ((const int16_t *)data_at(r->head, f[0]))[at] * (INT64_C(1) << f[1]);
    }
    return sum;
}

/* What a linear projection sees: all values as the channels, channels last, of one pixel. */
static int64_t input(const reading *r, const int64_t *p, int64_t c, int64_t y, int64_t x)
{
    int64_t node = p[EV_PROJECTION_SOURCE];
    const int64_t *f = node_of(r->head, node);
    int64_t channels = f[EV_NODE_CHANNELS], pixel = c / channels;

    if (p[EV_PROJECTION_KIND] == EV_CONV)
        return value(r, node, c, y, x);
    if (y != 0 || x != 0)
        return 0;
    return value(r, node, c % channels, pixel / f[EV_NODE_WIDTH], pixel % f[EV_NODE_WIDTH]);
}

static int64_t weighted(const reading *r, const int64_t *p, int64_t outputs, int64_t o, int64_t y,
                        int64_t x)
{
    int64_t source = p[EV_PROJECTION_SOURCE], groups = p[EV_PROJECTION_GROUPS];
    int64_t channels = p[EV_PROJECTION_KIND] == EV_LINEAR
                           ? naive_elements(r->head, (int32_t)source)
                           : node_of(r->head, source)[EV_NODE_CHANNELS];
    int64_t per_group = channels / groups, first = o / (outputs / groups) * per_group, sum = 0;
    int64_t height = p[EV_PROJECTION_KERNEL_H], width = p[EV_PROJECTION_KERNEL_W];

    for (int64_t j = 0; j < height; j++)
        for (int64_t i = 0; i < width; i++)
            for (int64_t c = 0; c < per_group; c++) {
                int64_t from_y = y * p[EV_PROJECTION_STRIDE_H] + j * p[EV_PROJECTION_DILATION_H] -
                                 p[EV_PROJECTION_PAD_TOP];
                int64_t from_x = x * p[EV_PROJECTION_STRIDE_W] + i * p[EV_PROJECTION_DILATION_W] -
                                 p[EV_PROJECTION_PAD_LEFT];
                int64_t arrives = input(r, p, first + c, from_y, from_x);

                if (arrives != 0)
                    sum += arrives *
                           weight(r, p, ((o * height + j) * width + i) * per_group + c);
            }
    return sum;
}

static int is_masked(const reading *r, const int64_t *f, int64_t y, int64_t x)
{
    const int64_t *source = node_of(r->head, 0);
    int64_t h = f[EV_NODE_PATCHES_H], w = f[EV_NODE_PATCHES_W];

    if (h == 0)
        return 0;
    return value(r, 0, source[EV_NODE_CHANNELS] - 1,
                 y * h / f[EV_NODE_HEIGHT] * source[EV_NODE_HEIGHT] / h,
                 x * w / f[EV_NODE_WIDTH] * source[EV_NODE_WIDTH] / w) != 0;
}

/* Division that rounds halves up, without shifts of what may be negative. */
static int64_t rounded(int64_t v, int64_t drop)
{
    int64_t size = INT64_C(1) << drop, half = size / 2, rest;

    rest = ((v + half) % size + size) % size;
    return (v + half - rest) / size;
}

static int64_t potential(const reading *r, const int64_t *f, int64_t c, int64_t y, int64_t x)
{
    int64_t channels = f[EV_NODE_CHANNELS];
    int64_t at = f[EV_NODE_BIAS_IS_MAP] ? (y * f[EV_NODE_WIDTH] + x) * channels + c : c;
    int64_t sum = ((const int64_t *)data_at(r->head, f[EV_NODE_BIAS]))[at];

    if (is_masked(r, f, y, x))
        return 0;
    for (int64_t k = 0; k < f[EV_NODE_COUNT]; k++) {
        const int64_t *p = projection_of(r->head, f[EV_NODE_FIRST] + k);

        if (p[EV_PROJECTION_KIND] == EV_IDENTITY)
            sum += rounded(value(r, p[EV_PROJECTION_SOURCE], c, y, x), p[EV_PROJECTION_DROP]) *
                   (INT64_C(1) << p[EV_PROJECTION_PART + 1]);
        else
            sum += weighted(r, p, channels, c, y, x);
    }
    return sum;
}

/* -- other nodes -------------------------------------------------------------------------------- */

static int64_t spikes(const reading *r, const int64_t *f, int64_t channel, int64_t v)
{
    const int64_t *levels = data_at(r->head, f[EV_NODE_LEVELS]);
    int64_t count = 0;

    for (int64_t d = 0; d < f[EV_NODE_TICKS]; d++)
        count += v >= levels[d * f[EV_NODE_CHANNELS] + channel];
    return count;
}

/* The largest integer that is not above value / 2^shift. */
static int64_t floor_of(int64_t value, int64_t shift)
{
    int64_t divisor = INT64_C(1) << shift;

    return value / divisor - (value % divisor < 0);
}

/* Spikes of neuron `at`, channels first, what stays of its membrane, what that is lowered by after
 * the next decay, and the current before it. */
static int64_t fired(const reading *r, int32_t node, int64_t at)
{
    const int64_t *f = node_of(r->head, node);
    int64_t channel = at / (f[EV_NODE_HEIGHT] * f[EV_NODE_WIDTH]);
    int64_t v = r->now[f[EV_NODE_SOURCE]][at], *membrane = &r->membrane[node][3 * at];
    int64_t count, raised = 0;
    const int64_t *threshold, *decay, *current;

    if (f[EV_NODE_CARRY] == EV_CARRY_NONE) /* its threshold was not checked */
        return spikes(r, f, channel, v);
    threshold = data_at(r->head, f[EV_NODE_THRESHOLD]);
    decay = data_at(r->head, f[EV_NODE_DECAY]);
    current = data_at(r->head, f[EV_NODE_CURRENT]);
    if (f[EV_NODE_CARRY] == EV_CARRY_RAISED && spikes(r, f, channel, membrane[0]) > 0)
        raised = threshold[channel];
    membrane[2] = v * (INT64_C(1) << f[EV_NODE_FRACTION]) +
                  floor_of(membrane[2] * current[channel], f[EV_NODE_CURRENT_SHIFT]);
    v = membrane[2] - membrane[1] +
        floor_of(membrane[0] * decay[channel], f[EV_NODE_DECAY_SHIFT]);
    count = spikes(r, f, channel, v - raised);
    membrane[0] = v;
    if (f[EV_NODE_CARRY] == EV_CARRY_DELAYED)
        membrane[1] = count * threshold[channel];
    else if (f[EV_NODE_CARRY] != EV_CARRY_HARD)
        membrane[0] -= count * threshold[channel];
    else if (count > 0)
        membrane[0] = 0;
    return count;
}

/* Padding adds nothing, and is below every value: a maximum of potentials may be negative. */
static int64_t pooled(const reading *r, const int64_t *f, int64_t c, int64_t y, int64_t x)
{
    const int64_t *from = node_of(r->head, f[EV_NODE_SOURCE]);
    int64_t sum = 0, most = INT64_MIN;

    for (int64_t j = 0; j < f[EV_NODE_KERNEL_H]; j++)
        for (int64_t i = 0; i < f[EV_NODE_KERNEL_W]; i++) {
            int64_t from_y = y * f[EV_NODE_STRIDE_H] + j - f[EV_NODE_PAD_TOP];
            int64_t from_x = x * f[EV_NODE_STRIDE_W] + i - f[EV_NODE_PAD_LEFT], arrives;

            if (from_y < 0 || from_y >= from[EV_NODE_HEIGHT] || from_x < 0 ||
                from_x >= from[EV_NODE_WIDTH])
                continue;
            arrives = value(r, f[EV_NODE_SOURCE], c, from_y, from_x);
            if (f[EV_NODE_POOL] == EV_POOL_SUM) /* else it may pass 64 bits */
                sum += arrives;
            most = arrives > most ? arrives : most;
        }
    if (f[EV_NODE_POOL] == EV_POOL_SUM)
        return sum;
    return most == INT64_MIN ? 0 : most; /* spikes of a window that lies outside */
}

/* Channel c of y at position n: products over the channels of its head and all positions of k. */
static int64_t attended(const reading *r, const int64_t *f, int64_t c, int64_t n)
{
    const int64_t *k_node = node_of(r->head, f[EV_NODE_K]);
    int64_t positions = k_node[EV_NODE_HEIGHT] * k_node[EV_NODE_WIDTH], sum = 0;
    int64_t d = k_node[EV_NODE_CHANNELS] / f[EV_NODE_HEADS];
    int64_t head = c / (f[EV_NODE_CHANNELS] / f[EV_NODE_HEADS]);
    const int64_t *q = r->now[f[EV_NODE_SOURCE]], *k = r->now[f[EV_NODE_K]], *v = r->now[f[EV_NODE_V]];

    for (int64_t i = head * d; i < (head + 1) * d; i++)
        for (int64_t m = 0; m < positions; m++)
            sum += q[i * f[EV_NODE_HEIGHT] * f[EV_NODE_WIDTH] + n] * k[i * positions + m] *
                   v[c * positions + m];
    return sum;
}

/* What a train counts at (c, y, x); one that has a value for each channel has it everywhere. */
static int64_t counted(const reading *r, int64_t node, int64_t c, int64_t y, int64_t x)
{
    const int64_t *f = node_of(r->head, node);

    return value(r, node, c, f[EV_NODE_HEIGHT] == 1 ? 0 : y, f[EV_NODE_WIDTH] == 1 ? 0 : x);
}

/* Each spike of a with each of b, or with each that b could have fired and did not. */
static int64_t gated(const reading *r, const int64_t *f, int64_t c, int64_t y, int64_t x)
{
    int64_t a = counted(r, f[EV_NODE_SOURCE], c, y, x), b = counted(r, f[EV_NODE_B], c, y, x);

    return f[EV_NODE_GATE] == EV_GATE_AND ? a * b : a * f[EV_NODE_PAYLOAD] - a * b;
}

/* -- the whole ---------------------------------------------------------------------------------- */

static int64_t emitted(const reading *r, int32_t node, int64_t at, const int32_t *sample)
{
    const int64_t *f = node_of(r->head, node);
    int64_t width = f[EV_NODE_WIDTH], pixels = f[EV_NODE_HEIGHT] * width;
    int64_t c = at / pixels, y = at % pixels / width, x = at % width;

    switch (f[EV_NODE_KIND]) {
    case EV_SOURCE:
        return sample[at];
    case EV_ACCUMULATOR:
        return potential(r, f, c, y, x);
    case EV_NEURON:
        return fired(r, node, at);
    case EV_POOL:
        return pooled(r, f, c, y, x);
    case EV_ATTENTION:
        return attended(r, f, c, at % pixels);
    case EV_GATE:
        return gated(r, f, c, y, x);
    case EV_SUM:
        return r->now[f[EV_NODE_SOURCE]][at] + r->now[f[EV_NODE_B]][at];
    default:
        return r->now[f[EV_NODE_SOURCE]][at];
    }
}

static void run_timestep(const reading *r, const int32_t *sample)
{
    for (int32_t i = 0; i < r->head[EV_HEAD_NODES]; i++)
        for (int64_t at = 0; at < naive_elements(r->head, i); at++)
            r->now[i][at] = emitted(r, i, at, sample);
}

void naive_run(const int64_t *bytes, const int32_t *sample, int64_t **values)
{
    size_t nodes = (size_t)bytes[EV_HEAD_NODES];
    reading r = {bytes, zeros(nodes, sizeof(*r.now)), zeros(nodes, sizeof(*r.membrane))};

    for (size_t i = 0; i < nodes; i++)
        r.membrane[i] = zeros(3 * (size_t)naive_elements(bytes, (int32_t)i), sizeof(int64_t));
    for (int64_t t = 0; t < bytes[EV_HEAD_TIMESTEPS]; t++) {
        for (size_t i = 0; i < nodes; i++)
            r.now[i] = values[i] + t * naive_elements(bytes, (int32_t)i);
        run_timestep(&r, sample + t * naive_elements(bytes, 0));
    }
    for (size_t i = 0; i < nodes; i++)
        free(r.membrane[i]);
    free(r.membrane);
    free(r.now);
}
