/* What a projection is: its fields, the sums it may come to, its weights as the kernels read them. */
#include "projection.h"

#include <stdlib.h>
#include <string.h>

#include "nodes/bounds.h"
#include "nodes/node.h"

/* Of a padded map and of an output's window: kernels count in 32 bits, values of a row times EV_LANES,
 * weights of a window times up to 512, and padding makes four channels of one. */
enum { MAX_MAP = (1 << 29) - 1, MAX_ROW = (1 << 26) - 1, MAX_WEIGHTS = (1 << 22) - 1 };

/* -- fields -------------------------------------------------------------------------------------- */

static void read_window(ev_record *r, ev_projection *p)
{
    p->kernel_h = ev_small(r, EV_PROJECTION_KERNEL_H, 1, EV_MAX_WINDOW, "kernel out of range");
    p->kernel_w = ev_small(r, EV_PROJECTION_KERNEL_W, 1, EV_MAX_WINDOW, "kernel out of range");
    p->stride_h = ev_small(r, EV_PROJECTION_STRIDE_H, 1, EV_MAX_WINDOW, "stride out of range");
    p->stride_w = ev_small(r, EV_PROJECTION_STRIDE_W, 1, EV_MAX_WINDOW, "stride out of range");
    p->pad_top = ev_small(r, EV_PROJECTION_PAD_TOP, 0, EV_MAX_WINDOW, "padding out of range");
    p->pad_left = ev_small(r, EV_PROJECTION_PAD_LEFT, 0, EV_MAX_WINDOW, "padding out of range");
    p->dilation_h = ev_small(r, EV_PROJECTION_DILATION_H, 1, EV_MAX_WINDOW, "dilation out of range");
    p->dilation_w = ev_small(r, EV_PROJECTION_DILATION_W, 1, EV_MAX_WINDOW, "dilation out of range");
}

/* The padded map that `to` outputs need. */
static void size_map(ev_record *r, ev_projection *p, const ev_node *to)
{
    p->map_height = ev_extent(to->height, p->stride_h, p->dilation_h, p->kernel_h);
    p->map_width = ev_extent(to->width, p->stride_w, p->dilation_w, p->kernel_w);
    ev_require(r, p->map_height > 0 && p->map_width > 0, "padded map is too large");
    ev_require(r, p->map_width <= MAX_ROW / p->channels &&
                      (int64_t)p->map_height * p->map_width <= MAX_MAP / p->channels,
               "padded map is too large");
    ev_require(r, p->kernel_h * p->kernel_w <= MAX_WEIGHTS / ev_rounded(p->channels, EV_GRAIN),
               "kernel is too large");
}

static void read_part(ev_record *r, ev_projection *p, const ev_node *to, int32_t i)
{
    ev_part *part = &p->part[i];
    int field = EV_PROJECTION_PART + 2 * i;
    int64_t count = (int64_t)p->kernel_h * p->kernel_w * (p->channels / p->groups);

    part->weights = ev_array(r, field, count * to->channels, 2, "weights lie outside the data");
    part->shift = ev_small(r, field + 1, 0, EV_MAX_SHIFT, "shift out of range");
}

static void read_geometry(ev_record *r, ev_projection *p, const ev_node *from, const ev_node *to)
{
    int linear = p->kind == EV_LINEAR;

    p->height = linear ? 1 : from->height;
    p->width = linear ? 1 : from->width;
    ev_require(r, !linear || ev_elements(from) < EV_MAX_SIZE, "too many inputs");
    p->channels = linear && ev_elements(from) < EV_MAX_SIZE ? (int32_t)ev_elements(from)
                                                            : from->channels;
    p->groups = ev_small(r, EV_PROJECTION_GROUPS, 1, p->channels, "groups out of range");
    ev_require(r, p->channels % p->groups == 0 && to->channels % p->groups == 0,
               "groups do not divide the channels");
    read_window(r, p);
    size_map(r, p, to);
    ev_require(r, !linear || ev_elements(to) == to->channels, "linear makes a map");
}

static void read_fields(ev_record *r, const ev_net *net, ev_projection *p, const ev_node *to)
{
    int32_t before = (int32_t)(to - net->node) - 1;
    const ev_node *from;

    p->source = ev_small(r, EV_PROJECTION_SOURCE, 0, before, "reads a node that is not before it");
    p->kind = ev_small(r, EV_PROJECTION_KIND, EV_CONV, EV_IDENTITY, "unknown kind of projection");
    from = &net->node[p->source];
    ev_require(r, ev_kind_of(from)->emits, "a readout emits nothing");
    if (p->kind == EV_IDENTITY) {
        ev_require(r, from->channels == to->channels && from->height == to->height &&
                          from->width == to->width, "identity changes the shape");
        p->part[0].shift = ev_small(r, EV_PROJECTION_PART + 1, 0, EV_MAX_SHIFT, "shift out of range");
        p->drop = ev_small(r, EV_PROJECTION_DROP, 0, EV_MAX_SHIFT, "drop out of range");
        return;
    }
    read_geometry(r, p, from, to);
    p->parts = ev_small(r, EV_PROJECTION_PARTS, 1, EV_MAX_PARTS, "parts out of range");
    for (int32_t k = 0; k < p->parts && r->fault->what == NULL; k++)
        read_part(r, p, to, k);
}

void ev_read_projection(ev_record *r, ev_net *net, const ev_node *to)
{
    ev_record of = *r;

    of.field = r->projections + (size_t)r->next * EV_PROJECTION_WORDS;
    read_fields(&of, net, &net->projection[r->next], to);
    r->next++;
}

/* -- bounds -------------------------------------------------------------------------------------- */

static int64_t widest_row(const int16_t *weights, int64_t rows, int64_t length)
{
    int64_t widest = 0;

    for (int64_t i = 0; i < rows; i++) {
        int64_t sum = 0;

        for (int64_t k = 0; k < length; k++)
            sum += ev_magnitude(weights[i * length + k]);
        widest = sum > widest ? sum : widest;
    }
    return widest;
}

static int weights_fit_a_byte(const ev_projection *p, int64_t count)
{
    for (int32_t i = 0; i < p->parts; i++)
        for (int64_t k = 0; k < count; k++)
            if (ev_magnitude(p->part[i].weights[k]) > INT8_MAX)
                return 0;
    return 1;
}

static ev_method method_of(const ev_projection *p, int32_t outputs)
{
    int dilated = (p->dilation_h > 1 && p->kernel_h > 1) || (p->dilation_w > 1 && p->kernel_w > 1);

    if (dilated)
        return EV_PLAIN;
    if (p->groups == 1)
        return EV_BY_DENSITY;
    return p->groups == p->channels && p->groups == outputs ? EV_DEPTHWISE : EV_PLAIN;
}

/* How the projection is computed, and the map that takes. */
static void choose(const ev_net *net, ev_projection *p, const ev_node *to)
{
    const ev_node *from = &net->node[p->source];
    int64_t length = (int64_t)p->kernel_h * p->kernel_w * (p->channels / p->groups);
    int is_byte;

    p->is_graded = from->format >= EV_I32 || p->digits.count > 1;
    is_byte = !p->is_graded && from->payload <= UINT8_MAX &&
              weights_fit_a_byte(p, length * to->channels);
    p->map_format = p->method == EV_PLAIN ? EV_I32 : is_byte ? EV_U8 : EV_U16;
    p->map_channels = p->channels;
    if (p->method == EV_BY_DENSITY)
        p->map_channels = ev_rounded(p->channels, EV_GRAIN);
    if (p->method == EV_DEPTHWISE)
        p->map_channels = ev_rounded(p->channels, EV_LANES);
}

/* The least digits that hold `payload`, of either sign, if none may exceed `most`; of count 0: there
 * are none. Digits below the last one are -low .. low - 1. */
static ev_digits digits_of(int64_t payload, int64_t most)
{
    ev_digits found = {.count = 1, .top = payload, .most = payload};

    if (payload <= most)
        return found;
    for (found.low = 1; found.low <= most / 2; found.low *= 2)
        found.bits++;
    found.bits++;
    if (most < 1)
        found.count = 0;
    for (; most >= 1 && found.top > most; found.count++) {
        found.most += found.low << found.bits * (found.count - 1);
        found.top = found.most >> found.bits * found.count;
    }
    return found;
}

/* What no digit may exceed, so that its products with any row of weights fit 32 bits, and it the map. */
static int64_t most_of(const ev_projection *p)
{
    int64_t most = p->method == EV_PLAIN ? INT32_MAX - 1 : INT16_MAX;

    for (int32_t i = 0; i < p->parts; i++)
        if (p->part[i].row > 0 && (INT32_MAX - 1) / p->part[i].row < most)
            most = (INT32_MAX - 1) / p->part[i].row;
    return most;
}

int64_t ev_largest_digit(const ev_projection *p, int32_t digit)
{
    return digit == p->digits.count - 1 ? p->digits.top : p->digits.low;
}

int64_t ev_bound_projection(const ev_net *net, ev_projection *p, const ev_node *to)
{
    int64_t payload = net->node[p->source].payload, total = 0, length;

    if (p->kind == EV_IDENTITY)
        return ev_added(0, ev_coarse(payload, p->drop), p->part[0].shift);
    length = (int64_t)p->kernel_h * p->kernel_w * (p->channels / p->groups);
    for (int32_t i = 0; i < p->parts; i++)
        p->part[i].row = widest_row(p->part[i].weights, to->channels, length);
    p->method = method_of(p, to->channels);
    p->digits = digits_of(payload, most_of(p));
    if (p->digits.count == 0)
        return -1;
    for (int32_t i = 0; i < p->parts; i++)
        for (int32_t digit = 0; digit < p->digits.count; digit++)
            total = ev_added(total, p->part[i].row * ev_largest_digit(p, digit),
                             p->part[i].shift + digit * p->digits.bits);
    choose(net, p, to);
    return total;
}

int ev_is_pointwise(const ev_projection *p)
{
    if (p->kind == EV_IDENTITY)
        return 1;
    return p->kernel_h == 1 && p->kernel_w == 1 && p->stride_h == 1 && p->stride_w == 1 &&
           p->pad_top == 0 && p->pad_left == 0 && p->map_height == p->height &&
           p->map_width == p->width && (int64_t)p->height * p->width <= MAX_ROW / p->map_channels;
}

void ev_flatten(ev_projection *p)
{
    p->width *= p->height;
    p->map_width *= p->map_height;
    p->height = p->map_height = 1;
}

/* -- weights ------------------------------------------------------------------------------------- */

static int pack_dense(ev_net *net, const ev_projection *p, ev_part *part)
{
    size_t places = (size_t)part->conv.outputs * (size_t)p->kernel_h * (size_t)p->kernel_w;
    size_t channels = (size_t)p->channels, padded = (size_t)p->map_channels;
    int16_t *weights = calloc(places * padded, sizeof(*weights));
    int status = EV_ERR_NO_MEMORY;

    if (weights == NULL)
        goto out;
    for (size_t i = 0; i < places; i++)
        memcpy(weights + i * padded, part->weights + i * channels, channels * sizeof(*weights));
    part->conv.dense = ev_net_alloc(net, ev_dense_size(&part->conv));
    part->conv.rows = ev_net_alloc(net, ev_rows_size(&part->conv));
    if (part->conv.dense == NULL || part->conv.rows == NULL)
        goto out;
    ev_pack(&part->conv, weights);
    status = EV_OK;
out:
    free(weights);
    return status;
}

/* Channels become the innermost axis. */
static int pack_depthwise(ev_net *net, const ev_projection *p, ev_part *part)
{
    size_t places = (size_t)p->kernel_h * (size_t)p->kernel_w, lanes = (size_t)part->conv.lanes;
    int16_t *weights = calloc(places * lanes, sizeof(*weights));
    int status = EV_ERR_NO_MEMORY;

    if (weights == NULL)
        goto out;
    for (size_t c = 0; c < (size_t)p->channels; c++)
        for (size_t i = 0; i < places; i++)
            weights[i * lanes + c] = part->weights[c * places + i];
    part->conv.dense = ev_net_alloc(net, ev_depthwise_size(&part->conv));
    if (part->conv.dense == NULL)
        goto out;
    ev_pack_depthwise(&part->conv, weights);
    status = EV_OK;
out:
    free(weights);
    return status;
}

static int pack_plain(ev_net *net, const ev_projection *p, ev_part *part)
{
    size_t count = (size_t)part->conv.outputs * (size_t)p->kernel_h * (size_t)p->kernel_w *
                   (size_t)(p->channels / p->groups);

    part->plain = ev_net_copied(net, part->weights, count * sizeof(*part->plain));
    return part->plain == NULL ? EV_ERR_NO_MEMORY : EV_OK;
}

static int pack_part(ev_net *net, const ev_projection *p, ev_part *part, const ev_node *to)
{
    int status;

    part->conv = (ev_conv){
        .channels = p->map_channels,
        .kernel_h = p->kernel_h,
        .kernel_w = p->kernel_w,
        .stride_w = p->stride_w,
        .outputs = to->channels,
        .lanes = to->lanes,
        .payload = (int32_t)(p->digits.count > 1 && p->digits.low > p->digits.top ? p->digits.low
                                                                                  : p->digits.top),
        .bytes = p->map_format == EV_U8 ? 1 : 2,
    };
    if (p->method == EV_BY_DENSITY)
        status = pack_dense(net, p, part);
    else if (p->method == EV_DEPTHWISE)
        status = pack_depthwise(net, p, part);
    else
        status = pack_plain(net, p, part);
    part->weights = NULL;
    return status;
}


int ev_pack_projection(ev_net *net, ev_projection *p, const ev_node *to)
{
    for (int32_t i = 0; i < p->parts; i++)
        if (pack_part(net, p, &p->part[i], to) != EV_OK)
            return EV_ERR_NO_MEMORY;
    return EV_OK;
}
