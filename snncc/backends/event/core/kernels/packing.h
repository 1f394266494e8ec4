/* The form of packed weights, which pack.c writes and all kernels read.
 *
 * dense: the lanes are cut into groups of EV_GROUP, the last one may be narrower; a group of
 * `width` lanes is [kernel_h][kernel_w * channels / taps][width][taps], where taps values fill 32
 * bits: four of one byte, two of two. A window row of a channels-last map is contiguous, so that a
 * step of the kernel multiplies one broadcast of 32 bits of the map with `width` * 4 bytes of
 * weights. Groups are 64 lanes since four 512-bit (eight 256-bit) accumulators a pixel is what the
 * kernels hold.
 *
 * rows: one row of weights for one event. The lanes are cut into groups of 64, then 32 and 16; a
 * group is [kernel_h][kernel_w][channels][width]. So the rows of one group lie close together, and
 * an index times width / EV_LANES is the distance of its row. Within a row weights lie as
 * ev_rows_place says.
 *
 * depthwise: groups of 64 lanes, the last one padded with zeros; a group is [kernel_h][kernel_w /
 * taps, rounded up][64][taps], zero where a kernel row has no such tap, and lanes as
 * ev_depthwise_place says. Pixels next to each other, interleaved, meet 32 bits of weights of a
 * lane. */
#ifndef EV_PACKING_H
#define EV_PACKING_H

#include "kernels/kernels.h"

enum { EV_GROUP = 64 };

/* Values of a window row, which are contiguous in the map. */
static inline int32_t ev_span(const ev_conv *conv)
{
    return conv->kernel_w * conv->channels;
}

static inline int32_t ev_group_width(const ev_conv *conv, int32_t first)
{
    return conv->lanes - first < EV_GROUP ? conv->lanes - first : EV_GROUP;
}

/* Index of the first weight of the group, of dense or rows, that begins with lane `first`. */
static inline size_t ev_group_offset(const ev_conv *conv, int32_t first)
{
    return (size_t)first * (size_t)conv->kernel_h * (size_t)ev_span(conv);
}

/* Values that fill 32 bits. */
static inline int32_t ev_taps(const ev_conv *conv)
{
    return EV_GRAIN / conv->bytes;
}

/* Lanes of the group of rows that begins with lane `first`. */
static inline int32_t ev_rows_width(const ev_conv *conv, int32_t first)
{
    int32_t left = conv->lanes - first;

    return left >= 64 ? 64 : left >= 32 ? 32 : 16;
}

/* Where lane `lane` of a group lies in its rows. Unpacking four rows of 64 bytes (two of 32 words)
 * twice (once) within 128 bits leaves every fourth (second) lot of four lanes in one register; rows
 * lie so that each register then holds 16 lanes next to each other. */
static inline int32_t ev_rows_place(int32_t width, int32_t bytes, int32_t lane)
{
    int32_t block = 64 / bytes, lots = block / 16;

    if (width < block)
        return lane;
    return lane / block * block + lane % 16 / 4 * 4 * lots + lane % block / 16 * 4 + lane % 4;
}

/* The lane of the first of four weights of a row that lie next to each other, 4 * lot and
 * after. */
static inline int32_t ev_rows_lane(int32_t width, int32_t bytes, int32_t lot)
{
    int32_t lots = 4 / bytes, block = 4 * lots;

    if (width < 4 * block)
        return 4 * lot;
    return 4 * (lot / block * block + lot % lots * 4 + lot % block / lots);
}

/* Where the weights of lane `lane` of 64 lie in a step of a depthwise convolution: there the map is
 * unpacked, and weights lie so that they meet it. */
static inline int32_t ev_depthwise_place(int32_t bytes, int32_t lane)
{
    int32_t block = 64 / bytes, lots = block / 16;

    return lane / block * block + lane % (4 * lots) / 4 * 16 + lane % block / (4 * lots) * 4 +
           lane % 4;
}

/* The lane of the first of four that lie next to each other, 4 * lot and the next three. */
static inline int32_t ev_depthwise_lane(int32_t bytes, int32_t lot)
{
    int32_t lots = 4 / bytes, block = 4 * lots;

    return 4 * (lot / block * block + lot % 4 * lots + lot % block / 4);
}

/* Steps of `taps` pixels that cover a kernel row of a depthwise convolution. */
static inline int32_t ev_depthwise_steps(const ev_conv *conv)
{
    return (conv->kernel_w + ev_taps(conv) - 1) / ev_taps(conv);
}

/* Bytes of a group of 64 lanes of a depthwise convolution. */
static inline size_t ev_depthwise_group(const ev_conv *conv)
{
    return (size_t)conv->kernel_h * (size_t)ev_depthwise_steps(conv) * EV_GROUP * EV_GRAIN;
}

#endif
