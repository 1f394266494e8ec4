/* Weights in the forms that the kernels read; packing.h says which. */
#include "kernels/kernels.h"

#include <string.h>

#include "kernels/packing.h"

static size_t weights_of(const ev_conv *conv)
{
    return (size_t)conv->lanes * (size_t)conv->kernel_h * (size_t)ev_span(conv);
}

size_t ev_dense_size(const ev_conv *conv)
{
    return weights_of(conv) * (size_t)conv->bytes + EV_SLACK;
}

size_t ev_rows_size(const ev_conv *conv)
{
    return weights_of(conv) * (size_t)conv->bytes + EV_SLACK;
}

static void put(const ev_conv *conv, void *to, size_t at, int16_t weight)
{
    if (conv->bytes == 1)
        ((int8_t *)to)[at] = (int8_t)weight;
    else
        ((int16_t *)to)[at] = weight;
}

/* Where the weight of `lane` for value `k` of the window (window rows one after the other) is. */
static size_t dense_place(const ev_conv *conv, int32_t lane, size_t k)
{
    size_t taps = (size_t)ev_taps(conv);
    int32_t first = lane - lane % EV_GROUP;
    size_t width = (size_t)ev_group_width(conv, first);

    return ev_group_offset(conv, first) + (k / taps * width + (size_t)(lane - first)) * taps +
           k % taps;
}

static size_t rows_place(const ev_conv *conv, int32_t lane, size_t k)
{
    int32_t first = 0;

    while (lane - first >= ev_rows_width(conv, first))
        first += ev_rows_width(conv, first);
    size_t width = (size_t)ev_rows_width(conv, first);

    return ev_group_offset(conv, first) + k * width +
           (size_t)ev_rows_place((int32_t)width, conv->bytes, lane - first);
}

void ev_pack(const ev_conv *conv, const int16_t *weights)
{
    size_t window = (size_t)conv->kernel_h * (size_t)ev_span(conv);

    for (int32_t lane = 0; lane < conv->lanes; lane++)
        for (size_t k = 0; k < window; k++) {
            int16_t weight = lane < conv->outputs ? weights[(size_t)lane * window + k] : 0;

            if (conv->dense != NULL)
                put(conv, conv->dense, dense_place(conv, lane, k), weight);
            if (conv->rows != NULL)
                put(conv, conv->rows, rows_place(conv, lane, k), weight);
        }
}

size_t ev_depthwise_size(const ev_conv *conv)
{
    size_t groups = (size_t)(conv->lanes + EV_GROUP - 1) / EV_GROUP;

    return groups * ev_depthwise_group(conv) + EV_SLACK;
}

static size_t depthwise_place(const ev_conv *conv, int32_t lane, int32_t y, int32_t x)
{
    int32_t taps = ev_taps(conv);
    int32_t step = y * ev_depthwise_steps(conv) + x / taps;
    int32_t place = ev_depthwise_place(conv->bytes, lane % EV_GROUP);

    return (size_t)(lane / EV_GROUP) * ev_depthwise_group(conv) / (size_t)conv->bytes +
           (size_t)((step * EV_GROUP + place) * taps + x % taps);
}

void ev_pack_depthwise(const ev_conv *conv, const int16_t *weights)
{
    memset(conv->dense, 0, ev_depthwise_size(conv));
    for (int32_t y = 0; y < conv->kernel_h; y++)
        for (int32_t x = 0; x < conv->kernel_w; x++)
            for (int32_t lane = 0; lane < conv->lanes; lane++)
                put(conv, conv->dense, depthwise_place(conv, lane, y, x), *weights++);
}
