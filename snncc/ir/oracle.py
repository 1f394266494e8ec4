"""ONNX Runtime as the judge: run any stage, and compare two stages value by value.

Graph optimisations stay off: with them ONNX Runtime folds batch norms itself, and a comparison
of before and after such a pass would compare a thing with itself.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from snncc.errors import Fault, VerificationError
from snncc.ir.carried import carry_of, near_border
from snncc.ir.graphs import label, nodes, static_shape, to_proto
from snncc.ir.ops import NEURONS

__all__ = [
    "MARGIN",
    "Difference",
    "affordable",
    "compare",
    "evaluate",
    "magnitudes",
    "session",
    "shared_values",
    "teacher_forced",
    "validate_translation",
]

Array = npt.NDArray[Any]

#: Relative rounding margin of float32 rewrites, per element: |change| <= MARGIN * sum|w||a|.
MARGIN = 1e-5
#: Protobuf cannot hold more than 2 GiB; larger models go through a file with external data.
_IN_MEMORY_LIMIT = 1 << 30
#: Numbers of all values together that a comparison holds at once, a few times over.
_VALUES_AT_ONCE = 1 << 27


def session(model: onnx.ModelProto | bytes | str, threads: int = 0, optimise: bool = False) -> Any:
    """An ONNX Runtime CPU session.

    Args:
        model: Proto, its bytes, or a path.
        threads: Intra-op threads; 0 lets ONNX Runtime choose.
        optimise: Allow graph optimisations.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4  # what fails raises as well
    options.intra_op_num_threads = threads
    levels = ort.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimise else levels.ORT_DISABLE_ALL
    source = model.SerializeToString() if isinstance(model, onnx.ModelProto) else model
    return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def _run(model: ir.Model, feeds: Mapping[str, Array]) -> dict[str, Array]:
    names = [str(v.name) for v in model.graph.outputs]
    wanted = {str(v.name) for v in model.graph.inputs}
    given = {k: v for k, v in feeds.items() if k in wanted}
    if not names:
        return {}
    size = sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value)
    if size < _IN_MEMORY_LIMIT:
        return dict(zip(names, session(to_proto(model)).run(names, given), strict=True))
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "model.onnx")
        onnx.save(to_proto(model), path, save_as_external_data=True, location="weights.bin")
        return dict(zip(names, session(path).run(names, given), strict=True))


def _values(model: ir.Model) -> dict[str, ir.Value]:
    return {str(v.name): v for node in model.graph for v in node.outputs if v.name}


def evaluate(
    model: ir.Model, feeds: Mapping[str, Array], names: Collection[str] | None = None
) -> dict[str, Array]:
    """Run a stage; values by name (all graph outputs, or the inner values asked for)."""
    if names is None:
        return _run(model, feeds)
    copy = model.clone()
    values = _values(copy)
    copy.graph.outputs[:] = [values[name] for name in names]
    return _run(copy, feeds)


def affordable(model: ir.Model, most: int) -> int:
    """Samples whose every value fits into memory: ``most`` for small networks, at least one."""
    shapes = [static_shape(value) or () for node in model.graph for value in node.outputs]
    each = sum(prod(shape) for shape in shapes)
    return max(1, min(most, _VALUES_AT_ONCE // max(each, 1)))


def shared_values(before: ir.Model, after: ir.Model) -> list[str]:
    """Names of the computed values that both graphs have, in the order of ``after``."""
    known = _values(before)
    return [name for name in _values(after) if name in known]


def _cut(model: ir.Model, names: Collection[str]) -> ir.Model:
    """A copy in which each named value is an output, and its readers read a new input instead."""
    copy = model.clone()
    values = _values(copy)
    for name in names:
        value = values[name]
        fed = ir.Value(name=f"{name}@fed", shape=value.shape, type=value.type)
        copy.graph.inputs.append(fed)
        ir.convenience.replace_all_uses_with(value, fed, replace_graph_outputs=True)
    copy.graph.outputs[:] = [values[name] for name in names]
    return copy


def teacher_forced(
    model: ir.Model, feeds: Mapping[str, Array], given: Mapping[str, Array]
) -> dict[str, Array]:
    """Recompute each value of ``given`` from the others as given: errors cannot travel.

    Args:
        model: Any stage.
        feeds: The graph's inputs.
        given: Reference values by name; cast to the dtype the graph has there.
    """
    cut = _cut(model, given.keys())
    values = _values(model)
    fed = {f"{k}@fed": v.astype(_numpy_dtype(values[k])) for k, v in given.items()}
    return _run(cut, {**feeds, **fed})


def _numpy_dtype(value: ir.Value) -> Any:
    return value.dtype.numpy() if value.dtype is not None else np.float32


def magnitudes(
    model: ir.Model, feeds: Mapping[str, Array], given: Mapping[str, Array]
) -> dict[str, Array]:
    """sum|w||a| behind each value of ``given``: the same graph with everything positive.

    Weights, biases and fed values become absolute, subtraction becomes addition; a batch norm
    adds the magnitudes of its two terms.
    """
    copy = model.clone()
    normalised = {
        str(v.name): role
        for node in copy.graph
        if node.op_type == "BatchNormalization"
        for v, role in ((node.inputs[3], "mean"), (node.inputs[4], "var"))
        if v is not None
    }
    for name, value in copy.graph.initializers.items():
        tensor = value.const_value
        if tensor is None or tensor.dtype != ir.DataType.FLOAT or normalised.get(name) == "var":
            continue
        sign = -1 if normalised.get(name) == "mean" else 1
        value.const_value = ir.tensor(sign * np.abs(tensor.numpy()), name=name)
    for node in list(copy.graph):
        if node.op_type == "Sub" and node.outputs[0].dtype == ir.DataType.FLOAT:
            _turn_into_add(node)
    absolute = {k: np.asarray(_positive(v)) for k, v in given.items()}  # integers are indices
    return teacher_forced(copy, {k: _positive(v) for k, v in feeds.items()}, absolute)


def _positive(array: Array) -> Array:
    return np.abs(array) if array.dtype.kind == "f" else array


def _turn_into_add(node: ir.Node) -> None:
    replacement = ir.Node("", "Add", node.inputs, name=node.name)
    assert node.graph is not None
    node.graph.insert_before(node, replacement)
    name = node.outputs[0].name
    replacement.outputs[0].shape, replacement.outputs[0].type = (
        node.outputs[0].shape,
        node.outputs[0].type,
    )
    ir.convenience.replace_all_uses_with(
        node.outputs[0], replacement.outputs[0], replace_graph_outputs=True
    )
    node.graph.remove(node, safe=True)
    replacement.outputs[0].name = name


@dataclass(frozen=True)
class Difference:
    """How one shared value changed.

    Attributes:
        name: The value.
        changed: Elements outside the margin (for integers: that differ).
        total: Elements.
        worst: Largest |change| / sum|w||a| (for integers: largest |change|).
        first: Index of the first element outside the margin.
    """

    name: str
    changed: int
    total: int
    worst: float
    first: tuple[int, ...] = ()


def compare(name: str, before: Array, after: Array, magnitude: Array | None) -> Difference:
    """Compare two arrays, exactly or within MARGIN of ``magnitude``."""
    if before.shape != after.shape:
        return Difference(name, after.size, after.size, float("inf"))
    same = before == after
    change = np.where(same, 0, np.abs(after.astype(np.float64) - before.astype(np.float64)))
    if magnitude is None:
        bad, worst = ~same, float(change.max(initial=0.0))
    else:
        scale = np.where(same, 1.0, magnitude)  # real-valued parts have no magnitude to speak of
        ratio = change / np.maximum(scale.astype(np.float64), 1e-30)
        bad, worst = ~(ratio <= MARGIN), float(ratio.max(initial=0.0))
    first = tuple(int(i) for i in np.argwhere(bad)[0]) if bad.any() else ()
    return Difference(name, int(bad.sum()), before.size, worst, first)


def validate_translation(
    before: ir.Model, after: ir.Model, feeds: Mapping[str, Array], exact: bool
) -> list[Difference]:
    """Compare every value that both graphs share, teacher-forced.

    The margin is one of sum|w||a| as either graph has it, whichever is larger: the difference of
    a pixel and the mean is a small number before its two terms go apart, and no longer exact then.
    A neuron whose drive ``after`` computes anew may fire either way where that is within the
    margin of a rounding border.

    Args:
        before: Graph ahead of a pass.
        after: Graph behind it.
        feeds: Inputs of ``before``; ``after`` must take the same.
        exact: Demand equality (integer stages) instead of the float32 margin.

    Raises:
        VerificationError: A value changed; one fault per value, naming its node.
    """
    names = shared_values(before, after)
    drives = {} if exact else _drives(before, after, names)
    inner = [u for u in drives.values() if u not in feeds]
    given = evaluate(before, feeds, [*names, *dict.fromkeys(inner)])
    known = {**feeds, **{u: given[u] for u in inner}}
    given = {name: given[name] for name in names}
    again = teacher_forced(after, feeds, given)
    producers = _values(before)
    for name, u in drives.items():
        again[name] = _settled(producers[name].producer(), known[u], given[name], again[name])
    scale = {} if exact else magnitudes(before, feeds, given)
    found = [compare(n, given[n], again[n], scale.get(n)) for n in names]
    if not exact and any(d.changed for d in found):
        scale = {n: np.maximum(scale[n], m) for n, m in magnitudes(after, feeds, given).items()}
        found = [compare(n, given[n], again[n], scale[n]) for n in names]
    values = _values(after)
    faults = [_fault(values[d.name], d) for d in found if d.changed]
    if faults:
        raise VerificationError("the graph changed its meaning", faults)
    return found


def _drives(before: ir.Model, after: ir.Model, names: Collection[str]) -> dict[str, str]:
    """For the shared neurons that ``after`` may drive or charge anew the values they read."""
    kept = {*names, *(str(v.name) for v in after.graph.inputs)}
    found = [(n, str(n.outputs[0].name), n.inputs[0]) for n in nodes(before, *NEURONS)]
    reads = {name: (n, str(u.name)) for n, name, u in found if u is not None and name in kept}
    return {k: u for k, (n, u) in reads.items() if u not in kept or n.op_type == "StatefulFire"}


def _settled(node: ir.Node | None, u: Array, before: Array, after: Array) -> Array:
    """``after``, with ``before`` where u lies within the margin of a rounding border."""
    if node is None or u.shape != after.shape:
        return after
    if node.op_type == "StatefulFire":
        tie = near_border(u, before, carry_of(node), MARGIN)
    else:
        tie = np.abs(u - np.floor(u) - 0.5) <= MARGIN * (1 + np.abs(u))
    return np.where(tie, before, after)


def _fault(value: ir.Value, found: Difference) -> Fault:
    node = value.producer()
    kind = node.op_type if node is not None else ""
    where = label(node) if node is not None else ""
    what = (
        f"{found.changed} of {found.total} elements differ, first at {list(found.first)}, "
        f"worst {found.worst:.3g}"
    )
    return Fault(what, node=str(value.name), kind=kind, module=where)
