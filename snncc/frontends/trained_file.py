"""The trained network itself where it is an ONNX file: ONNX Runtime runs the file as given."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx.shape_inference
import onnx_ir as ir
import onnxscript.optimizer

from snncc.frontends.onnx_file import at_opset, inlined, read_onnx, with_functions
from snncc.frontends.qonnx_functions import with_quantisers
from snncc.ir.float64 import in_float64
from snncc.ir.names import TRAINED
from snncc.ir.ops import traits
from snncc.ir.oracle import evaluate, session

__all__ = ["TrainedFile"]

Array = npt.NDArray[Any]

_FLOAT = "tensor(float)"
_ANY = 1 << 31


@dataclass(frozen=True, eq=False)
class TrainedFile:
    """A file, read anew for each of its two forms, so that neither is what import made of it.

    Attributes:
        path: Of the file.
    """

    path: Path

    words = "ONNX Runtime on the file"

    def _read(self) -> onnx.ModelProto:
        """The file in ONNX's own operators, without what no result needs.

        Import has bounded what is left.
        """
        return inlined(with_functions(with_quantisers(read_onnx(self.path))))

    @cached_property
    def _session(self) -> Any:
        proto = self._read()
        known = {value.name for value in proto.graph.output}
        made = [name for node in proto.graph.node for name in node.output if name]
        proto.graph.output.extend(onnx.ValueInfoProto(name=n) for n in made if n not in known)
        return session(proto)

    @cached_property
    def _wide(self) -> ir.Model:
        proto = at_opset(self._read())
        model = ir.from_proto(onnx.shape_inference.infer_shapes(proto))
        _round_constants(model)
        return in_float64(model)

    @property
    def wide_names(self) -> frozenset[str]:
        """The values that are known in float64, by names that begin with ``TRAINED``."""
        return frozenset(f"{TRAINED}{v.name}" for node in self._wide.graph for v in node.outputs)

    def wide_values(self, feeds: Mapping[str, Array], wanted: Collection[str]) -> dict[str, Array]:
        """As ``values``, computed in float64; float64 (N, *shape)."""
        names = [name.removeprefix(TRAINED) for name in wanted]

        def run(given: Mapping[str, Array]) -> list[Array]:
            found = evaluate(self._wide, given, names)
            return [found[name] for name in names]

        return self._in_batches(feeds, names, run)

    def values(
        self, feeds: Mapping[str, Array], wanted: Collection[str] | None = None
    ) -> dict[str, Array]:
        """What ONNX Runtime computes, optimisations off, under names that begin with ``TRAINED``.

        Args:
            feeds: The file's input, float32 (N, *shape).
            wanted: Names; none: all real values of the file.
        """
        work = self._session
        names = [out.name for out in work.get_outputs() if out.type == _FLOAT]
        names = [n for n in names if wanted is None or f"{TRAINED}{n}" in wanted]
        return self._in_batches(feeds, names, lambda given: work.run(names, given))

    def _in_batches(
        self,
        feeds: Mapping[str, Array],
        names: Sequence[str],
        run: Callable[[Mapping[str, Array]], Sequence[Array]],
    ) -> dict[str, Array]:
        """Values of all samples; where the file fixes N, computed from as many at a time."""
        x = self._session.get_inputs()[0]
        given = feeds[x.name]
        size = x.shape[0] if isinstance(x.shape[0], int) else len(given)
        parts = [run({x.name: part}) for part in _parts(given, size)]
        columns = zip(names, zip(*parts, strict=True), strict=True)
        found = {name: _joined(column, size, len(given)) for name, column in columns}
        return {f"{TRAINED}{name}": array for name, array in found.items() if array is not None}


def _round_constants(model: ir.Model) -> None:
    """Compute what rounds constants, in float32: weights off their grid are no drives of neurons.

    What scales the integers that come of it is left, so that they stand for exact numbers.
    """
    computed: set[ir.Node] = set()
    for node in model.graph:
        if traits(node).rounds and all(_is_constant(v) for v in node.inputs):
            computed |= _behind(node)
    onnxscript.optimizer.fold_constants(
        model, input_size_limit=_ANY, output_size_limit=_ANY, should_fold=computed.__contains__
    )


def _is_constant(value: ir.Value | None) -> bool:
    """Whether the value comes from constants alone."""
    if value is None or value.const_value is not None:
        return True
    node = value.producer()
    return node is not None and all(map(_is_constant, node.inputs))


def _behind(node: ir.Node) -> set[ir.Node]:
    """The node, and all that its inputs are computed by."""
    makers = [m for v in node.inputs if v is not None and (m := v.producer()) is not None]
    return {node}.union(*map(_behind, makers))


def _parts(x: Array, size: int) -> Iterator[Array]:
    """So many samples at a time; the last of them fill what is missing."""
    for start in range(0, len(x), size):
        part = x[start : start + size]
        yield np.concatenate([part, *[part[-1:]] * (size - len(part))])


def _joined(parts: Collection[Array], size: int, samples: int) -> Array | None:
    """Values of all samples; None where it is not clear which axis is theirs."""
    first = next(iter(parts))
    if size == samples:
        return first
    axis = next((i for i in (0, 1) if first.ndim > i and first.shape[i] == size), None)
    if axis is None:
        return None
    return np.take(np.concatenate([*parts], axis=axis), range(samples), axis=axis)
