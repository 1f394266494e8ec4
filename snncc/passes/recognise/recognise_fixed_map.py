"""recognise-fixed-map: what only moves, adds and scales features becomes one linear layer.

Voting layers, population codes and averages over uneven windows are written with reshapes, slices,
transposes, sums and means that no other pass has a form for. All of these are linear, so a run on
each unit vector tells what they compute: a matrix of constants, which is a layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import onnx
import onnx.helper
import onnx.numpy_helper
import onnx_ir as ir

from snncc.ir.exact import Exact, fraction_gcd, fraction_of
from snncc.ir.graphs import (
    Edit,
    attribute,
    constant,
    is_op,
    nodes,
    remove_dead,
    replace_value,
    static_shape,
)
from snncc.ir.names import NEW
from snncc.ir.ops import OPSET, traits
from snncc.ir.oracle import session
from snncc.passes.base import Pass

__all__ = ["RecogniseFixedMap"]

Array = npt.NDArray[Any]

#: What may be part of such a map: with constants besides, all are linear in the one live value.
_PARTS = frozenset(
    {"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Split", "Gather"}
    | {"GatherND", "Concat", "ReduceSum", "ReduceMean", "AveragePool", "GlobalAveragePool"}
    | {"Add", "Sub", "Sum", "Mean", "Mul", "Div", "Identity", "Expand", "Tile", "Pad", "MatMul"}
)
#: The matrix of a map holds so many numbers at most, and so many features are tried.
_MOST, _FEATURES = 2**22, 2**13


@dataclass(frozen=True)
class RecogniseFixedMap(Pass):
    """Regions of linear nodes between a value and features [N, G] become a Gemm.

    Attributes:
        only_features: Of such that begin at features, too: timesteps and tokens are not known yet.
    """

    only_features: bool = False

    name: ClassVar[str] = "recognise-fixed-map"
    stage_in: ClassVar[str] = "imported"
    stage_out: ClassVar[str] = "imported"

    def run(self, model: ir.Model) -> int:
        """The largest regions first: they end furthest down."""
        count = 0
        for node in reversed(list(nodes(model))):
            if node.graph is not None and _ends_a_map(node):
                count += self._replaced(node.outputs[0])
        return count

    def _replaced(self, out: ir.Value) -> bool:
        """Whether ``out`` is a map now: of all that leads to it, or of what has its samples."""
        for keeps_samples in (False, True):
            x, region = _region(out, keeps_samples) or (None, [])
            matrix = self._map(out, x, region) if x is not None else None
            if x is not None and matrix is not None:
                _write(out, x, matrix, self.name)
                return True
        return False

    def _map(self, out: ir.Value, x: ir.Value, region: list[ir.Node]) -> Exact | None:
        before, after = static_shape(x), static_shape(out)
        if not before or not after or not any(_is_odd(node) for node in region):
            return None
        if self.only_features and len(before) > 1:
            return None
        return _matrix(out, x, region, before, after[0])


def _ends_a_map(node: ir.Node) -> bool:
    """Whether features come out of it that nobody moves further."""
    out = node.outputs[0]
    size = static_shape(out)
    if node.op_type not in _PARTS or node.domain or not size or len(size) != 1:
        return False
    return not any(_is_part(user) for user, _ in out.uses())


def _is_part(node: ir.Node) -> bool:
    if node.domain or node.op_type not in _PARTS or len(node.outputs[0].shape or ()) == 0:
        return False
    return not (is_op(node, "MatMul", "Mul", "Div") and not _has_constant(node))


def _has_constant(node: ir.Node) -> bool:
    return any(constant(v) is not None for v in node.inputs)


def _region(out: ir.Value, keeps_samples: bool) -> tuple[ir.Value, list[ir.Node]] | None:
    """The one live value that ``out`` is computed from by parts of maps, and these."""
    found: set[ir.Node] = set()
    live: set[ir.Value] = set()
    pending = [out]
    while pending:
        value = pending.pop()
        node = value.producer()
        if constant(value) is not None or node in found:
            continue
        is_part = node is not None and _is_part(node)
        if node is None or not is_part or (keeps_samples and not _keeps_samples(node, out)):
            live.add(value)
            continue
        found.add(node)
        pending += [v for v in node.inputs if v is not None]
    graph = out.producer().graph  # type: ignore[union-attr]
    if len(live) != 1:
        return None
    return live.pop(), [node for node in graph or () if node in found]


def _keeps_samples(node: ir.Node, out: ir.Value) -> bool:
    """Whether what it reads has the samples of ``out`` in front, as far as that is known."""
    read = [v for v in node.inputs if v is not None and constant(v) is None]
    return all(_first(v) in (_first(out), "None") for v in read)


def _first(value: ir.Value) -> str:
    return str(value.shape[0]) if value.shape else "none"


def _is_odd(node: ir.Node) -> bool:
    """Whether a node has no form of its own: others know maps, and features of maps."""
    x, out = node.inputs[0], node.outputs[0]
    rank = len(static_shape(x) or ()) if x is not None else 0
    if node.op_type in ("AveragePool", "GlobalAveragePool"):
        plain = attribute(node, "count_include_pad", 0) and not attribute(node, "ceil_mode", 0)
        return rank != 3 or not (plain or is_op(node, "GlobalAveragePool"))
    if node.op_type in ("Reshape", "Flatten", "Squeeze", "Unsqueeze"):
        return len(static_shape(out) or ()) != 1 and rank == 1
    if node.op_type == "Concat":
        return False
    return node.op_type in _MOVES or (node.op_type in ("ReduceSum", "ReduceMean") and rank < 3)


_MOVES = ("Slice", "Split", "Gather", "GatherND", "Transpose", "Expand", "Tile")


def _matrix(
    out: ir.Value, x: ir.Value, region: list[ir.Node], before: tuple[int, ...], after: int
) -> Exact | None:
    """Of a linear map of samples the matrix (after, features); None: it is none, or too large."""
    features = int(np.prod(before))
    if features > _FEATURES or features * after > _MOST:
        return None
    try:
        runner = session(_model(out, x, region))
        units = np.eye(features, dtype=np.float32).reshape(features, *before)
        rows = np.concatenate([*_runs(runner, units)])
        mixed = np.random.default_rng(0).integers(-8, 9, (4, *before)).astype(np.float32)
        nothing, got = runner.run(None, {"x": 0 * mixed})[0], runner.run(None, {"x": mixed})[0]
    except Exception:  # ONNX Runtime's errors have no common base: what does not run is not known
        return None
    if rows.shape != (features, after) or nothing.any() or got.shape != (4, after):
        return None
    by_hand = mixed.reshape(4, -1).astype(np.float64) @ rows
    if not np.allclose(by_hand, got, rtol=1e-5, atol=1e-4):
        return None
    return _exact(rows.T)


def _runs(runner: Any, units: Array) -> Iterator[Array]:
    for start in range(0, len(units), 256):
        yield runner.run(None, {"x": units[start : start + 256]})[0]


def _exact(matrix: Array) -> Exact:
    """Shares as the fractions that they mean: a tenth of 0.1."""
    rows, steps = np.zeros(matrix.shape), list[Fraction]()
    for i, row in enumerate(matrix):
        known = {v: _simple(v) for v in set(row[row != 0].tolist())}
        step = fraction_gcd([*known.values()]) or Fraction(1)
        rows[i] = [float(known[v] / step) if v else 0.0 for v in row.tolist()]
        steps.append(step)
    return Exact.in_rows(rows, steps)


def _simple(number: float) -> Fraction:
    """The simple fraction next to a float32, if that is its float32; else the number itself."""
    near = Fraction(number).limit_denominator(2**12)
    return near if np.float32(float(near)) == np.float32(number) else fraction_of(number)


def _model(out: ir.Value, x: ir.Value, region: list[ir.Node]) -> onnx.ModelProto:
    """The region as a model of its own."""
    weights = {str(v.name): v for n in region for v in n.inputs if v and constant(v) is not None}
    tensors = [onnx.numpy_helper.from_array(constant(v), name) for name, v in weights.items()]  # type: ignore[arg-type]
    body = [ir.to_proto(node) for node in region]
    for node in body:
        node.input[:] = ["x" if name == x.name else name for name in node.input]
    sizes: list[str | int | None] = ["N", *(static_shape(x) or ())]
    float32 = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        body,
        "map",
        [onnx.helper.make_tensor_value_info("x", float32, sizes)],
        [onnx.helper.make_tensor_value_info(str(out.name), float32, None)],
        tensors,
    )
    opsets = [onnx.helper.make_opsetid("", OPSET)]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10)


def _write(out: ir.Value, x: ir.Value, matrix: Exact, made_by: str) -> None:
    """A Gemm of the features; before a sum over timesteps, as each timestep has the same."""
    last, before = out.producer(), static_shape(x) or (1,)
    assert last is not None
    edit, ends, source = Edit(last, made_by), x.producer(), x
    time = ends if ends is not None and traits(ends).ends_time else None
    if time is not None and time.inputs[0] is not None:
        source = time.inputs[0]
    batch = source.shape[0] if source.shape is not None else None
    flat = source
    if len(before) > 1:
        target = edit.const(f"{out.name}.flat", np.array([-1, int(np.prod(before))], np.int64))
        flat = edit.op(
            "Reshape", source, target, name=f"{out.name}/flat", dtype=source.dtype,
            shape=[batch, int(np.prod(before))],
        )  # fmt: skip
    weight = edit.const(f"{out.name}.weight", matrix)
    plain = {"transA": 0, "transB": 1, "alpha": 1.0, "beta": 1.0}
    name = f"{out.name}{NEW}" if time is None else f"{out.name}/each"
    made = edit.op(
        "Gemm", flat, weight, name=name, dtype=out.dtype, shape=[batch, len(matrix.values)],
        attributes=plain,
    )  # fmt: skip
    if time is not None:
        more = {k: a.value for k, a in time.attributes.items()}
        made = edit.own(time.op_type, made, name=f"{out.name}{NEW}", like=out, attributes=more)
    replace_value(out, made)
    remove_dead(last)
