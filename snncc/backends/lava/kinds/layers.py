"""Weights as Lava's own Conv and Dense, which deliver a tick after what they read."""

from __future__ import annotations

from snncc.backends.lava.kernels import lava_kernel, symmetric
from snncc.backends.lava.plan import GRADED_BITS, Emission, Plan
from snncc.program import Node, Projection

__all__ = ["conv", "linear"]


def linear(plan: Plan, name: str, node: Node, p: Projection, source: Emission) -> Emission:
    """A Dense of that name, with what a projection brings to a node."""
    weight = plan.tensor(name, p.weights[0])
    emission = Emission(name, node.shape, source.first + 1, source.burst, GRADED_BITS)
    fields = {"weight": weight, "shift": p.shift, "message_bits": source.bits}
    outputs, inputs = p.weights[0].shape
    note = f"{inputs} to {outputs}{_shift(p)}"
    return plan.add("Dense", emission, source, note=note, module=node.module, **fields)


def conv(plan: Plan, name: str, node: Node, p: Projection, source: Emission) -> Emission:
    """Likewise a Conv."""
    kernel, padding, dilations = symmetric(p.weights[0], p.pads, p.dilations)
    fields = {
        "weight": plan.tensor(name, lava_kernel(kernel)),
        "input_shape": list(source.shape),
        "stride": list(p.strides[::-1]),
        "padding": list(padding[::-1]),
        "dilation": list(dilations[::-1]),
        "groups": p.groups,
        "shift": p.shift,
        "message_bits": source.bits,
    }
    emission = Emission(name, node.shape[::-1], source.first + 1, source.burst, GRADED_BITS)
    groups = f", {p.groups} groups" if p.groups > 1 else ""
    h, w = kernel.shape[2:]
    note = f"{w}x{h}, stride {p.strides[1]}{groups}{_shift(p)}"
    return plan.add("Conv", emission, source, note=note, module=node.module, **fields)


def _shift(p: Projection) -> str:
    return f", times {2**p.shift}" if p.shift else ""
