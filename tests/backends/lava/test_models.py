"""Single ProcessModels against Lava's own, and against processes that share none with ours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from lava_runs import python
from networks import half_even_levels

from snncc.backends.clocked.engine import ClockedEngine
from snncc.backends.lava.kernels import lava_kernel
from snncc.program import Accumulator, Neuron, Program, Projection, Readout, Source

HERE = Path(__file__).parent


def _two_layers() -> tuple[Program, np.ndarray]:
    """conv - n1 - dense - n2, with many ties, and 6 samples."""
    rng = np.random.default_rng(5)
    conv = rng.integers(-3, 5, (4, 2, 3, 3)).astype(np.int8)
    dense = rng.integers(-128, 128, (6, 4 * 5 * 5)).astype(np.int8)
    first = Projection("x", "conv", (conv,), 15, pads=(1, 1, 1, 1))
    second = Projection("n1", "linear", (dense,), 3)
    bias1, bias2 = rng.integers(-9, 9, 4), rng.integers(-99, 99, 6)
    levels1 = half_even_levels(np.array([16, 18, 40, 41]), 3)
    levels2 = half_even_levels(rng.integers(150, 700, 6), 4)
    program = Program(
        "two",
        (
            Source("x", (2, 5, 5), 15),
            Accumulator("v1", (4, 5, 5), (first,), bias1, -(2**15), 2**15),
            Neuron("n1", (4, 5, 5), "v1", levels1, 0),
            Accumulator("v2", (6,), (second,), bias2, -(2**16), 2**16),
            Neuron("n2", (6,), "v2", levels2, 1),
            Readout("y", (6,), "n2", 1.0),
        ),
        ticks=4,
    )
    program.validate()
    return program, rng.integers(0, 16, (6, 2, 5, 5)).astype(np.uint8)


def test_stock_neurons_fire_the_same_counts(tmp_path: Path) -> None:
    program, x = _two_layers()
    v1, n1, v2, n2 = (program.by_name[name] for name in ("v1", "n1", "v2", "n2"))
    dense = v2.projections[0].weights[0].reshape(6, 4, 5, 5).transpose(0, 3, 2, 1).reshape(6, -1)
    np.savez(
        tmp_path / "net.npz", x=x, conv=lava_kernel(v1.projections[0].weights[0]).astype(int),
        dense=dense.astype(int), bias1=v1.bias, bias2=v2.bias, levels1=n1.levels.T,
        levels2=n2.levels.T,
    )  # fmt: skip
    done = python(HERE / "thermometer.py", tmp_path / "net.npz", tmp_path / "counts.npz")
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "counts.npz")
    wanted = ClockedEngine(program).run(x).counts
    assert len(np.unique(wanted["n1"])) == 4
    assert np.array_equal(found["n1"].transpose(0, 3, 2, 1), wanted["n1"][0])
    assert np.array_equal(found["n2"], wanted["n2"][0])


def test_the_fast_convolution_is_the_stock_one(tmp_path: Path) -> None:
    done = python(HERE / "convolutions.py", tmp_path)
    assert done.returncode == 0, done.stderr
    found = [line.split() for line in done.stdout.splitlines()]
    assert len(found) == 60
    assert all(same == "same" for same, *_ in found), done.stdout
    reached = {kind for _, *kinds in found for kind in kinds}
    assert reached == {"binary", "graded", "wraps", "groups", "dilated", "strided", "float64"}
