"""A small network from Lava's own processes alone: thermometer.py NET.npz COUNTS.npz.

Stock neurons reset hard, so a neuron with D levels is D neurons of LIFReset, which share their
input. A frame is 4 ticks. A tick after the input each of the D gets a further current from
outside, VTH + 1 + bias - level, and so fires, once, iff potential and bias reach that level. Their
spikes are summed at the next layer's port: that sum is the spike count.
"""

import sys

import numpy as np
from lava.magma.core.run_conditions import RunSteps
from lava.magma.core.run_configs import Loihi2SimCfg
from lava.proc.conv.process import Conv
from lava.proc.dense.process import Dense
from lava.proc.io.sink import RingBuffer as Sink
from lava.proc.io.source import RingBuffer as Player
from lava.proc.lif.process import LIFReset
from lava.utils.weightutils import SignMode

FRAME, VTH, BITS = 4, 2**16, 8


def population(current, shape, bias, levels, tick):
    """D populations after ``current``, whose gates open in ``tick`` of a frame, 0..3."""
    made = []
    for level in levels:
        neurons = LIFReset(
            shape=shape, du=4095, dv=0, vth=VTH,
            reset_interval=FRAME, reset_offset=tick % FRAME,  # time steps count from 1
        )  # fmt: skip
        current.connect(neurons.a_in)
        gate = np.zeros((*shape, FRAME), dtype=int)
        gate[..., tick] = VTH + 1 + bias - level
        Player(data=gate).s_out.connect(neurons.a_in)
        made.append(neurons)
    return made


def main(net, result):
    samples = len(net["x"])
    ticks = FRAME * samples + FRAME
    frames = np.zeros((*net["x"].shape[:0:-1], ticks), dtype=int)
    frames[..., 0 : FRAME * samples : FRAME] = net["x"].T
    source = Player(data=frames)

    conv = Conv(weight=net["conv"], input_shape=frames.shape[:3], padding=1, num_message_bits=BITS)
    source.s_out.connect(conv.s_in)
    # frame i: pixels in tick 4i, currents in 4i + 1, spikes in 4i + 2, currents in 4i + 3
    shape = conv.a_out.shape
    hidden = population(conv.a_out, shape, net["bias1"], net["levels1"], 2)

    dense = Dense(
        weights=2 * net["dense"], weight_exp=-1, sign_mode=SignMode.MIXED, num_message_bits=BITS
    )
    sinks = [Sink(shape=shape, buffer=ticks), Sink(shape=dense.a_out.shape, buffer=ticks)]
    for neurons in hidden:
        neurons.s_out.flatten().connect(dense.s_in)
        neurons.s_out.connect(sinks[0].a_in)
    # and spikes in the first tick of the next frame
    for neurons in population(dense.a_out, dense.a_out.shape, net["bias2"], net["levels2"], 0):
        neurons.s_out.connect(sinks[1].a_in)

    source.run(condition=RunSteps(num_steps=ticks), run_cfg=Loihi2SimCfg(select_tag="fixed_pt"))
    counts = [sink.data.get() for sink in sinks]
    source.stop()
    firing = [counts[0][..., 2::FRAME][..., :samples], counts[1][..., FRAME::FRAME]]
    np.savez(result, **{f"n{i + 1}": np.moveaxis(c, -1, 0) for i, c in enumerate(firing)})


if __name__ == "__main__":
    main(np.load(sys.argv[1]), sys.argv[2])
