/* Packing: biases, levels and weights in the forms that the engine reads. */
#include <stdlib.h>
#include <string.h>

#include "net.h"

static void *copied(ev_net *net, const void *from, size_t size)
{
    void *to = ev_net_alloc(net, size);

    if (to != NULL)
        memcpy(to, from, size);
    return to;
}

static int32_t clipped(int64_t value)
{
    return value > INT32_MAX ? INT32_MAX : value < INT32_MIN ? INT32_MIN : (int32_t)value;
}

/* Rows of `channels` int64 as rows of `lanes` int32; a sum never reaches a level that is clipped. */
static int32_t *narrowed(ev_net *net, const int64_t *from, int64_t rows, int32_t channels)
{
    int32_t lanes = ev_rounded(channels, EV_LANES);
    int32_t *to = ev_net_alloc(net, (size_t)rows * (size_t)lanes * sizeof(*to));

    for (int64_t i = 0; to != NULL && i < rows; i++)
        for (int32_t c = 0; c < channels; c++)
            to[i * lanes + c] = clipped(from[i * channels + c]);
    return to;
}

/* -- weights ------------------------------------------------------------------------------------ */

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

    part->plain = copied(net, part->weights, count * sizeof(*part->plain));
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
        .payload = (int32_t)net->node[p->source].payload,
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

/* -- nodes -------------------------------------------------------------------------------------- */

static int prepare_accumulator(ev_net *net, ev_node *node)
{
    int64_t rows = node->bias_is_map ? (int64_t)node->height * node->width : 1;

    if (!node->is_wide) {
        node->bias32 = narrowed(net, node->bias, rows, node->channels);
        if (node->bias32 == NULL)
            return EV_ERR_NO_MEMORY;
    }
    node->bias = copied(net, node->bias, (size_t)(rows * node->channels) * sizeof(*node->bias));
    if (node->bias == NULL)
        return EV_ERR_NO_MEMORY;
    for (int32_t k = node->first; k < node->first + node->count; k++) {
        ev_projection *p = &net->projection[k];

        for (int32_t i = 0; i < p->parts; i++)
            if (pack_part(net, p, &p->part[i], node) != EV_OK)
                return EV_ERR_NO_MEMORY;
    }
    return EV_OK;
}

static int prepare_neuron(ev_net *net, ev_node *node)
{
    size_t size = (size_t)node->channels * sizeof(int64_t);

    if (node->is_fused && !net->node[node->source].is_wide && node->carry == EV_CARRY_NONE) {
        node->levels32 = narrowed(net, node->levels, node->ticks, node->channels);
        if (node->levels32 == NULL)
            return EV_ERR_NO_MEMORY;
    }
    node->levels = copied(net, node->levels, (size_t)node->ticks * size);
    if (node->levels == NULL)
        return EV_ERR_NO_MEMORY;
    if (node->carry != EV_CARRY_NONE) {
        node->threshold = copied(net, node->threshold, size);
        if (node->threshold == NULL)
            return EV_ERR_NO_MEMORY;
    }
    return EV_OK;
}

int ev_net_prepare(ev_net *net)
{
    int status = EV_OK;

    for (int32_t i = 0; i < net->nodes && status == EV_OK; i++) {
        ev_node *node = &net->node[i];

        if (node->kind == EV_ACCUMULATOR)
            status = prepare_accumulator(net, node);
        if (node->kind == EV_NEURON)
            status = prepare_neuron(net, node);
    }
    return status;
}
