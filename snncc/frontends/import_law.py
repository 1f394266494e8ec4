"""The law of import: ONNX Runtime against eager PyTorch, each leaf fed with PyTorch's inputs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch

from snncc.errors import Fault, VerificationError
from snncc.frontends.leaves import find_leaves, record
from snncc.frontends.sequences import STATIC, Frames
from snncc.frontends.sparse_leaves import holding
from snncc.frontends.steps import CALLS
from snncc.ir.carried import carry_of, near_border
from snncc.ir.graphs import label
from snncc.ir.ops import NEURONS
from snncc.ir.oracle import MARGIN, compare, evaluate, magnitudes, teacher_forced

__all__ = ["ImportLaw", "check_import"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class ImportLaw:
    """What the comparison found.

    Attributes:
        leaves: Leaf calls compared; 0 when the network has no leaf modules.
        elements: Potentials compared.
        worst: Largest |change of u| / sum|w||a|.
        margin: What is allowed.
        changed: Activations that differ end to end (counted, not judged).
        activations: Of so many.
        per_leaf: Module path -> its worst ratio.
    """

    leaves: int
    elements: int
    worst: float
    changed: int
    activations: int
    margin: float = MARGIN
    per_leaf: dict[str, float] = field(default_factory=dict)


def check_import(
    module: torch.nn.Module,
    model: ir.Model,
    x: Array,
    mask: Array | None = None,
    frames: Frames = STATIC,
) -> ImportLaw:
    """Compare the imported graph with eager PyTorch on samples, leaf by leaf.

    Args:
        module: The network, in eval mode.
        model: What it was imported as, in stage ``imported``.
        x: float32 (N, *shape), sequences (N, T, *shape).
        mask: float32 (N, 1, h, w), if the graph takes one.
        frames: As it was imported.

    Raises:
        VerificationError: A potential lies outside the margin, or an activation differs although
            its potential was given.
    """
    with frames.given_to(module):
        calls = _record(module, x if mask is None else _masked(x, mask), mask)
    nodes = _match(model, calls)
    given_inputs = (x,) if mask is None else (x, mask)
    feeds = {str(v.name): a for v, a in zip(model.graph.inputs, given_inputs, strict=True)}
    given: dict[str, Array] = {}
    for node, (u, a) in nodes:
        given.setdefault(_name(node.inputs[0]), u)
        given[_name(node.outputs[0])] = a
    given.pop(str(model.graph.inputs[0].name), None)
    again = teacher_forced(model, feeds, given)
    scale = magnitudes(model, feeds, given)
    ratios = _judge(nodes, given, again, scale)
    free = evaluate(model, feeds, [_name(node.outputs[0]) for node, _ in nodes])
    changed = sum(int((free[_name(n.outputs[0])] != a).sum()) for n, (_, a) in nodes)
    return ImportLaw(
        leaves=len(nodes),
        elements=sum(u.size for _, (u, _) in nodes),
        worst=max(ratios.values(), default=0.0),
        changed=changed,
        activations=sum(a.size for _, (_, a) in nodes),
        per_leaf=ratios,
    )


def _masked(x: Array, mask: Array) -> Array:
    rows, columns = (x.shape[i] // mask.shape[i] for i in (2, 3))
    return np.asarray(x * mask.repeat(rows, axis=2).repeat(columns, axis=3))


def _record(
    module: torch.nn.Module, x: Array, mask: Array | None
) -> dict[str, list[tuple[Array, Array]]]:
    held = None if mask is None else torch.from_numpy(mask)
    with torch.no_grad(), holding(module, held), record(find_leaves(module)) as calls:
        module(torch.from_numpy(np.ascontiguousarray(x)))
    return {p: [(u.numpy(), a.numpy()) for u, a in found] for p, found in calls.items()}


def _match(
    model: ir.Model, calls: dict[str, list[tuple[Array, Array]]]
) -> list[tuple[ir.Node, tuple[Array, Array]]]:
    """Each neuron with the calls it stands for: same module path, same order."""
    found = []
    for path, made in calls.items():
        nodes = [n for n in model.graph if n.op_type in NEURONS and label(n) == path]
        if any(CALLS in n.metadata_props for n in nodes):
            found += [(n, _joined(n, made)) for n in nodes]
        else:
            found += [(n, _folded(n, *call)) for n, call in zip(nodes, made, strict=False)]
    return found


def _joined(node: ir.Node, made: list[tuple[Array, Array]]) -> tuple[Array, Array]:
    """The calls of single timesteps as the node sees them."""
    calls = [made[int(i)] for i in node.metadata_props[CALLS].split(",")]
    return np.concatenate([u for u, _ in calls]), np.concatenate([a for _, a in calls])


def _folded(node: ir.Node, u: Array, a: Array) -> tuple[Array, Array]:
    """The call as the node sees it: timesteps in the batch axis."""
    if node.op_type != "StatefulFire":
        return u, a
    return u.reshape(-1, *u.shape[2:]), a.reshape(-1, *a.shape[2:])


def _wrong(node: ir.Node, u: Array, before: Array, after: Array) -> int:
    """Activations that differ, where rounding of a membrane does not excuse it."""
    differs = before != after
    if node.op_type == "StatefulFire":
        differs &= ~near_border(u, before, carry_of(node), MARGIN)
    return int(differs.sum())


def _name(value: ir.Value | None) -> str:
    return str(value.name) if value is not None else ""


def _judge(
    nodes: list[tuple[ir.Node, tuple[Array, Array]]],
    given: dict[str, Array],
    again: dict[str, Array],
    scale: dict[str, Array],
) -> dict[str, float]:
    ratios: dict[str, float] = {}
    faults = []
    for node, (drive, _) in nodes:
        u, a = _name(node.inputs[0]), _name(node.outputs[0])
        if u in again:
            found = compare(u, given[u], again[u], scale[u])
            ratios[label(node)] = max(found.worst, ratios.get(label(node), 0.0))
            if found.changed:
                faults.append(_fault(node, f"potential off by {found.worst:.2g} of sum|w||a|"))
        if (wrong := _wrong(node, drive, given[a], again[a])) > 0:
            faults.append(_fault(node, f"{wrong} activations differ at the same potential"))
    if faults:
        raise VerificationError("import: the graph does not compute what PyTorch does", faults)
    return ratios


def _fault(node: ir.Node, what: str) -> Fault:
    return Fault(what, str(node.name), node.op_type, label(node), todo="please report this network")
