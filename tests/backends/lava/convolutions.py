"""PyFastConv against Lava's own model, on random convolutions: convolutions.py FOLDER.

Prints a line for each: ``same`` or ``different``, and what was special about it.
"""

import sys
from pathlib import Path

import numpy as np
from lava.proc.conv.models import PyConvModelFixed

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "snncc" / "backends" / "lava"))
from processes.fast_conv import PyFastConv


class Port:
    """Hands over one array."""

    def __init__(self, value):
        self.value, self.shape = value, value.shape

    def recv(self):
        return self.value

    def send(self, value):
        self.sent = np.array(value)


def answer(kind, case):
    """What a model sends in the second tick."""
    model = kind({})
    for name, value in case.items():
        setattr(model, name, np.atleast_1d(np.array(value)))
    model.weight = case["weight"].astype(np.int32)
    model.a_buf = np.zeros(1, dtype=np.int32)
    model.s_in, model.a_out = Port(case["s_in"]), Port(np.zeros(1))
    model.run_spk()
    model.run_spk()
    return model.a_out.sent, model


def draw(rng):
    """A convolution and what arrives."""
    pick = lambda *options: int(rng.choice(options))  # noqa: E731
    groups = pick(1, 1, 2, 3)
    kernel, dilation = (pick(1, 2, 3), pick(1, 2, 3)), (pick(1, 1, 2), pick(1, 2))
    outputs, inputs = groups * pick(1, 2, 4), groups * pick(1, 2)
    bits = pick(0, 0, 8, 24)
    shape = (pick(5, 6, 7), pick(5, 8), inputs)
    top = 2**bits
    s_in = (
        rng.integers(-top if bits == 24 else 0, top, shape) if bits else rng.integers(0, 2, shape)
    )
    return {
        "weight": rng.integers(-128, 128, (outputs, *kernel, inputs // groups)),
        "kernel_size": kernel, "dilation": dilation, "groups": groups,
        "stride": (pick(1, 2), pick(1, 2)), "padding": (pick(0, 1, 2), pick(0, 1)),
        "num_message_bits": bits, "s_in": s_in.astype(np.int32),
    }  # fmt: skip


rng = np.random.default_rng(0)
for _ in range(60):
    case = draw(rng)
    (stock, _), (fast, model) = answer(PyConvModelFixed, case), answer(PyFastConv, case)
    special = {
        "binary": case["num_message_bits"] == 0,
        "graded": case["num_message_bits"] == 8,
        "wraps": case["num_message_bits"] == 24,
        "groups": case["groups"] > 1,
        "dilated": max(case["dilation"]) > 1,
        "strided": max(case["stride"]) > 1,
        "float64": model.matrix.dtype == np.float64,
    }
    same = stock.dtype == fast.dtype and np.array_equal(stock, fast)
    print("same" if same else "different", *(name for name, holds in special.items() if holds))
