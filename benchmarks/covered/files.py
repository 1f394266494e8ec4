"""Quantised ONNX files beside what they are compared with: ONNX Runtime, optimisations off."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from covered.subject import Subject, images, noise

__all__ = ["of_file"]

Array = npt.NDArray[Any]


def of_file(path: Path, samples: Array | None = None, **options: Any) -> Subject:
    """A file that quantises its own input, or takes float32 of that range.

    Args:
        path: One input, samples first.
        samples: float32; default: normal noise of the input's shape.
        **options: Of the compilation.
    """
    proto = onnx.load(path, load_external_data=False)
    weights = {t.name for t in proto.graph.initializer}
    port = next(v for v in proto.graph.input if v.name not in weights)
    sizes = [d.dim_value for d in port.type.tensor_type.shape.dim]
    given = noise(tuple(sizes[1:])) if samples is None else samples
    return Subject(path, given, _runner(path, port.name, sizes[0]), options)


def pixels_of(shape: tuple[int, ...], count: int = 8) -> Array:
    """Pixels as float32 from 0 to 1."""
    return (images(shape, count=count) / np.float32(255)).astype(np.float32)


def _runner(path: Path, port: str, batch: int) -> Callable[[Array], Array]:
    """The file in ONNX Runtime, in batches of the size that it has."""

    def run(samples: Array) -> Array:
        from snncc.frontends.onnx_file import read_onnx
        from snncc.frontends.qonnx_functions import with_quantisers
        from snncc.ir.oracle import session

        runner = session(with_quantisers(read_onnx(path)))
        if not batch:
            return np.asarray(runner.run(None, {port: samples})[0])
        parts = (samples[i : i + batch] for i in range(0, len(samples), batch))
        return np.concatenate([runner.run(None, {port: part})[0] for part in parts])

    return run
