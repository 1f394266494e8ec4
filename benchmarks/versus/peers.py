"""What a user would run instead, each in the fastest of its forms that gives the same integers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from snncc.errors import MissingDependencyError, SnnccError, UnsupportedModelError
from snncc.program import Program
from versus.dense_form import exact_in_float32
from versus.onnx_fp32 import float_model
from versus.onnx_graph import open_session
from versus.onnx_int8 import Int8Form, int8_model

__all__ = ["EQUAL", "INT8", "PEERS", "Peer", "peer"]

Array = npt.NDArray[Any]
Run = Callable[[Array], Sequence[Array]]
Forms = Iterator[tuple[str, Callable[[], Run]]]

EQUAL, INEXACT, OTHER = "equal", "not exact: sums beyond 2^24", "fires at once: another function"

_TRIALS = 12


@dataclass(frozen=True)
class Peer:
    """Something to compare with.

    Attributes:
        name: A key of ``PEERS``.
        form: Which of its forms was fastest.
        outputs: ``EQUAL``, or why they need not be.
        run: Readouts (N, *shape) of uint8 samples (N, *shape), in the Program's order.
    """

    name: str
    form: str
    outputs: str
    run: Run


def peer(name: str, program: Program, x: Array, expected: Sequence[Array], threads: int) -> Peer:
    """The peer of that name for a network.

    Args:
        name: A key of ``PEERS``.
        program: T = 1.
        x: Samples.
        expected: Their readouts, as all engines of ours give them.
        threads: It may use.

    Raises:
        MissingDependencyError: It is not installed.
        UnsupportedModelError: It has no form for this network, or none that gives these integers.
    """
    found: list[Peer] = []
    reasons: list[str] = []
    for form, build in PEERS[name](program, threads):
        try:
            run = build()
        except SnnccError as e:
            reasons.append(str(e))
            continue
        if outputs := _judged(name, program, run(x), expected):
            found.append(Peer(name, form, outputs, run))
        else:
            reasons.append(f"{form}: other integers")
    if not found:
        raise UnsupportedModelError("; ".join(dict.fromkeys(reasons)))
    return min(found, key=lambda p: _seconds(p.run, x[:1])) if len(found) > 1 else found[0]


def _judged(name: str, program: Program, got: Sequence[Array], expected: Sequence[Array]) -> str:
    """What is to be said of the results; nothing if they are wrong."""
    if name == "spikingjelly_at_once":
        return OTHER
    if all(np.array_equal(a, b) for a, b in zip(got, expected, strict=True)):
        return EQUAL
    return "" if exact_in_float32(program) else INEXACT


def _seconds(run: Run, x: Array) -> float:
    """The shortest of a few runs."""
    taken = []
    for _ in range(_TRIALS):
        start = time.perf_counter()
        run(x)
        taken.append(time.perf_counter() - start)
    return min(taken)


# -- ONNX Runtime ---------------------------------------------------------------------------


def _session(model: onnx.ModelProto, threads: int) -> Run:
    session = open_session(model, threads)
    return lambda x: session.run(None, {"x": x})


def _float_session(program: Program, folded: bool, late: bool, threads: int) -> Run:
    return _session(float_model(program, folded, late), threads)


def _int8_session(program: Program, form: Int8Form, threads: int) -> Run:
    return _session(int8_model(program, form), threads)


def _ort_fp32(program: Program, threads: int) -> Forms:
    for folded, late in product((True, False), repeat=2):
        form = f"{'Clip, Round' if late else 'Round, Clip'}{', folded' if folded else ''}"
        yield form, partial(_float_session, program, folded, late, threads)


def _ort_int8(point: int, program: Program, threads: int) -> Forms:
    for last, unsigned in product((True, False), repeat=2):
        form = Int8Form(last, unsigned, point)
        yield str(form), partial(_int8_session, program, form, threads)


# -- PyTorch --------------------------------------------------------------------------------


def _eager(program: Program, threads: int) -> Run:
    with _importing("torch"):
        import torch

        from versus.eager import Eager
    torch.set_num_threads(threads)
    return Eager(program)


def _jelly(program: Program, barrier: bool, threads: int) -> Run:
    with _importing("torch; pip install --no-deps spikingjelly loguru"):
        import torch

        from versus.jelly import Jelly
    torch.set_num_threads(threads)
    return Jelly(program, barrier)


def _torch_fp32(program: Program, threads: int) -> Forms:
    yield "eager", partial(_eager, program, threads)


def _spikingjelly(program: Program, threads: int) -> Forms:
    yield "multi-step IF", partial(_jelly, program, True, threads)


def _spikingjelly_at_once(program: Program, threads: int) -> Forms:
    yield "multi-step IF", partial(_jelly, program, False, threads)


@contextmanager
def _importing(install: str) -> Iterator[None]:
    """What is not there, and how to get it."""
    try:
        yield
    except ImportError as e:
        raise MissingDependencyError(f"not installed ({e}): pip install {install}") from e


#: Name -> its forms, each with a function that builds it.
PEERS: dict[str, Callable[[Program, int], Forms]] = {
    "ort_fp32": _ort_fp32,
    "ort_int8": partial(_ort_int8, 0),
    "ort_int8_offset": partial(_ort_int8, -1),
    "torch_fp32": _torch_fp32,
    "spikingjelly": _spikingjelly,
    "spikingjelly_at_once": _spikingjelly_at_once,
}
#: Those that compute in int8; the fastest of them is what int8 can do.
INT8 = ("ort_int8", "ort_int8_offset")
