"""ONNX Runtime as the oracle: run any stage, whole or each value from others as they are given.

Graph optimisations stay off: with them ONNX Runtime folds batch norms itself, and a comparison
of before and after such a pass would compare a thing with itself.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Callable, Collection, Mapping
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from snncc.ir.fed import fed
from snncc.ir.graphs import static_shape
from snncc.ir.names import ABSOLUTE, FED

__all__ = ["affordable", "evaluate", "magnitudes", "session", "teacher_forced", "values_of"]

Array = npt.NDArray[Any]

#: Numbers of all values together that a comparison holds at once, a few times over.
_VALUES_AT_ONCE = 1 << 27
#: Bytes of a float tensor whose absolute values are kept beside it.
_SMALL = 1 << 16


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
    made = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    _SESSIONS.add(made)
    return made


# -- forks: a session that a child inherits waits for its threads, which did not come along, when it
# is deleted, at the latest when the child ends

_SESSIONS: weakref.WeakSet[Any] = weakref.WeakSet()
_inherited: list[Any] = []


def _before_fork() -> None:
    _inherited.extend(_SESSIONS)


def _after_fork_in_parent() -> None:
    _inherited.clear()


def _after_fork_in_child() -> None:
    """Nothing deletes them: each is referred to once more than anybody knows of."""
    for each in _inherited:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(each))
    _inherited.clear()
    _SESSIONS.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )


def _run(model: ir.Model, feeds: Mapping[str, Array]) -> dict[str, Array]:
    names = [str(v.name) for v in model.graph.outputs]
    wanted = {str(v.name) for v in model.graph.inputs}
    given = {k: v for k, v in feeds.items() if k in wanted}
    if not names:
        return {}
    graph = fed(model)
    found = session(graph.serialised()).run(names, {**given, **graph.weights})
    return dict(zip(names, found, strict=True))


def values_of(model: ir.Model) -> dict[str, ir.Value]:
    """All computed values of a graph by name."""
    return {str(v.name): v for node in model.graph for v in node.outputs if v.name}


def evaluate(
    model: ir.Model, feeds: Mapping[str, Array], names: Collection[str] | None = None
) -> dict[str, Array]:
    """Run a stage; values by name (all graph outputs, or the inner values asked for)."""
    if names is None:
        return _run(model, feeds)
    copy = model.clone()
    values = values_of(copy)
    copy.graph.outputs[:] = [values[name] for name in names]
    return _run(copy, feeds)


def affordable(model: ir.Model, most: int) -> int:
    """Samples whose every value fits into memory: ``most`` for small networks, at least one."""
    shapes = [static_shape(value) or () for node in model.graph for value in node.outputs]
    each = sum(prod(shape) for shape in shapes)
    return max(1, min(most, _VALUES_AT_ONCE // max(each, 1)))


def _cut(model: ir.Model, names: Collection[str], wanted: Collection[str]) -> ir.Model:
    """A copy in which readers of each named value read a new input, and those wanted are outputs.

    What makes none of these is left out.
    """
    copy = model.clone()
    values = values_of(copy)
    for name in names:
        value = values[name]
        entry = ir.Value(name=f"{name}{FED}", shape=value.shape, type=value.type)
        copy.graph.inputs.append(entry)
        ir.convenience.replace_all_uses_with(value, entry, replace_graph_outputs=True)
    copy.graph.outputs[:] = [values[name] for name in wanted]
    for node in reversed(copy.graph):
        if not any(o.uses() or o.is_graph_output() for o in node.outputs):
            copy.graph.remove(node, safe=True)
    for name, value in list(copy.graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            del copy.graph.initializers[name]
    unread = [v for v in copy.graph.inputs if not v.uses() and not v.is_graph_output()]
    copy.graph.inputs[:] = [v for v in copy.graph.inputs if v not in unread]
    return copy


def teacher_forced(
    model: ir.Model,
    feeds: Mapping[str, Array],
    given: Mapping[str, Array],
    wanted: Collection[str] | None = None,
) -> dict[str, Array]:
    """Recompute each value of ``given`` from the others as given: errors cannot travel.

    Args:
        model: Any stage.
        feeds: The graph's inputs.
        given: Reference values by name; cast to the dtype the graph has there.
        wanted: Which of them to recompute; default: all.
    """
    return _forced(model, feeds, given, wanted, lambda array: array)


def _forced(
    model: ir.Model,
    feeds: Mapping[str, Array],
    given: Mapping[str, Array],
    wanted: Collection[str] | None,
    seen: Callable[[Array], Array],
) -> dict[str, Array]:
    """See ``teacher_forced``; of each array the graph gets what ``seen`` makes of it."""
    cut = _cut(model, given.keys(), given.keys() if wanted is None else wanted)
    values, read = values_of(model), {str(v.name) for v in cut.graph.inputs}
    forced = {
        f"{name}{FED}": seen(array).astype(_numpy_dtype(values[name]), copy=False)
        for name, array in given.items()
        if f"{name}{FED}" in read
    }
    return _run(cut, {**{k: seen(v) for k, v in feeds.items()}, **forced})


def _numpy_dtype(value: ir.Value) -> Any:
    return value.dtype.numpy() if value.dtype is not None else np.float32


def magnitudes(
    model: ir.Model,
    feeds: Mapping[str, Array],
    given: Mapping[str, Array],
    wanted: Collection[str] | None = None,
) -> dict[str, Array]:
    """sum|w||a| behind each value of ``given``: the same graph with everything positive.

    Weights, biases and fed values become absolute, subtraction becomes addition; a batch norm
    adds the magnitudes of its two terms. Arguments are those of ``teacher_forced``.
    """
    copy = model.clone()
    normalised = {
        str(v.name): role
        for node in copy.graph
        if node.op_type == "BatchNormalization"
        for v, role in ((node.inputs[3], "mean"), (node.inputs[4], "var"))
        if v is not None
    }
    for name, value in list(copy.graph.initializers.items()):
        tensor = value.const_value
        if tensor is None or tensor.dtype != ir.DataType.FLOAT or normalised.get(name) == "var":
            continue
        if tensor.nbytes > _SMALL and name not in normalised:
            _read_absolute(copy.graph, value)
        else:
            sign = -1 if normalised.get(name) == "mean" else 1
            value.const_value = ir.tensor(sign * np.abs(tensor.numpy()), name=name)
    for node in list(copy.graph):
        if node.op_type == "Sub" and node.outputs[0].dtype == ir.DataType.FLOAT:
            _turn_into_add(node)
    return _forced(copy, feeds, given, wanted, _positive)


def _read_absolute(graph: ir.Graph, weight: ir.Value) -> None:
    """Readers of a large weight read its absolute values, which exist only while they are read."""
    node = ir.Node("", "Abs", [weight])
    absolute = node.outputs[0]
    absolute.name = f"{weight.name}{ABSOLUTE}"
    absolute.shape, absolute.type = weight.shape, weight.type
    for reader, index in list(weight.uses()):
        if reader is not node:
            reader.replace_input_with(index, absolute)
    graph.insert_before(graph[0], node)


def _positive(array: Array) -> Array:
    return np.abs(array) if array.dtype.kind == "f" else array  # integers are indices


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
