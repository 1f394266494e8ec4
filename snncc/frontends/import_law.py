"""The law of import: the imported graph computes what the trained network itself computes.

Every value of the graph that the trained network has too is computed from the network's own values
before it, and compared: an error cannot travel, and a fault names its node. What the comparison
covers is checked as well: all activations that become neurons, and all results.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from snncc.errors import BadInputError, Fault, UnsupportedModelError, VerificationError
from snncc.ir.graphs import label, provenance
from snncc.ir.lineage import Lineage
from snncc.ir.metadata import CLASS
from snncc.ir.oracle import evaluate
from snncc.ir.validation import MARGIN, Difference, recomputed

__all__ = ["ImportLaw", "check_import"]

Array = npt.NDArray[Any]

#: What the names of our own classes begin with.
_OURS = f"{__name__.partition('.')[0]}."


@dataclass(frozen=True)
class ImportLaw:
    """What the comparison found.

    Attributes:
        against: What the graph was compared with.
        samples: On how many.
        neurons: Activations that become neurons; all of them were compared.
        results: Results, likewise.
        values: Values compared, these included.
        elements: Numbers that these hold.
        worst: Largest change of one, relative to the sum of abs(weight * activation) behind it.
        margin: What is allowed.
        changed: Activations that differ end to end (counted, not judged).
        activations: Of so many.
    """

    against: str
    samples: int
    neurons: int
    results: int
    values: int
    elements: int
    worst: float
    changed: int
    activations: int
    margin: float = MARGIN


def check_import(
    model: ir.Model,
    feeds: Mapping[str, Array],
    trained: Mapping[str, Array],
    neurons: Collection[Sequence[str]],
    against: str,
) -> ImportLaw:
    """Compare the imported graph with the trained network's own values.

    Args:
        model: In stage ``imported``.
        feeds: Its inputs, float32 (N, *shape).
        trained: What the network computes for them, under the names that the graph's lineage has.
        neurons: Of each activation that becomes a neuron, the values of the graph that it is.
        against: What ``trained`` was computed by, for people.

    Raises:
        BadInputError: The trained network's own values are infinite or NaN: its weights overflow.
        VerificationError: A value lies outside the margin, or an activation differs although its
            potential was given. Or a neuron or result was not compared.
        UnsupportedModelError: A neuron of the author's does not do what it was described as.
    """
    given = _given(model, trained)
    _require_finite(model, given, against)
    results = [str(v.name) for v in model.graph.outputs]
    _require_covered(model, given, [*neurons, *([name] for name in results)])
    found = recomputed(model, feeds, given)
    _require_equal(model, found, against)
    names = list(dict.fromkeys(name for parts in neurons for name in parts))
    free = evaluate(model, feeds, names)
    return ImportLaw(
        against=against,
        samples=len(next(iter(feeds.values()))),
        neurons=len(neurons),
        results=len(results),
        values=len(found),
        elements=sum(d.total for d in found),
        worst=float(np.max([d.worst for d in found], initial=0.0)),
        changed=sum(int((free[name] != given[name]).sum()) for name in names),
        activations=sum(given[name].size for name in names),
    )


def _given(model: ir.Model, trained: Mapping[str, Array]) -> dict[str, Array]:
    """Values of the graph as the trained network computes them."""
    lineage = Lineage.of(model)
    values = (v for n in model.graph for v in n.outputs if v.dtype == ir.DataType.FLOAT)
    names = [str(v.name) for v in values]
    return {n: lineage.trace(n, trained) for n in names if lineage.origins(n, trained)}


def _require_finite(model: ir.Model, given: Mapping[str, Array], against: str) -> None:
    """Names the first values that are not: all that reads them is infinite or NaN, too."""
    bad = {name for name, values in given.items() if not np.isfinite(values).all()}
    first = [
        _fault(node, name, _overflow(given[name]), _SMALLER)
        for node in model.graph
        for name in (str(node.outputs[0].name),)
        if name in bad and not any(x is not None and x.name in bad for x in node.inputs)
    ]
    if bad:
        raise BadInputError(f"{against} computes values that float32 does not hold", first)


def _overflow(values: Array) -> str:
    finite = np.isfinite(values)
    return f"{values.size - np.count_nonzero(finite)} of {values.size} values are infinite or NaN"


def _makers(model: ir.Model) -> dict[str, ir.Node]:
    """Of each value the node that makes it."""
    return {str(v.name): n for n in model.graph for v in n.outputs}


def _require_covered(
    model: ir.Model, given: Mapping[str, Array], wanted: Collection[Sequence[str]]
) -> None:
    makers = _makers(model)
    lost = [name for parts in wanted for name in parts or [""] if name not in given]
    faults = [_fault(makers.get(name), name, "was not compared") for name in lost]
    if faults or not wanted:
        count = f"{len(wanted) - len(faults)} of {len(wanted)}"
        raise VerificationError(f"import: {count} neurons and results were compared", faults)


def _require_equal(model: ir.Model, found: Sequence[Difference], against: str) -> None:
    makers = _makers(model)
    wrong = {d.name: d for d in found if d.changed}
    if described := [name for name in wrong if _is_described(makers[name])]:
        faults = [
            _fault(makers[n], n, _otherwise(makers[n], wrong[n]), _DESCRIBE) for n in described
        ]
        what = "import: neurons do not fire as they were described"
        raise UnsupportedModelError(what, faults)
    if wrong:
        faults = [_fault(makers[name], name, str(d)) for name, d in wrong.items()]
        what = f"import: the graph does not compute what {against} does"
        raise VerificationError(what, faults)


#: Numbers of channels that a message shows.
_FEW = 3
_SMALLER = "its weights, or those of a norm, are far too large"
_DESCRIBE = (
    "a description that fits (register_leaf), or a neuron that begins with an empty membrane"
)


def _is_described(node: ir.Node) -> bool:
    """Whether the node stands for a class that is not ours."""
    return not node.metadata_props.get(CLASS, _OURS).startswith(_OURS)


def _otherwise(node: ir.Node, found: Difference) -> str:
    settings = ", ".join(f"{k}={_short(a.value)}" for k, a in node.attributes.items())
    return f"{found.changed} of {found.total} spikes of PyTorch's are not those of {settings}"


def _short(value: Any) -> str:
    """What an attribute has of all channels; of those of each the first ones."""
    if not isinstance(value, tuple):
        return str(value)
    return ", ".join(map(str, value[:_FEW])) + ", …" * (len(value) > _FEW)


def _fault(
    node: ir.Node | None, name: str, what: str, todo: str = "please report this network"
) -> Fault:
    if node is None:
        return Fault(what, name, todo=todo)
    origin = provenance(node)
    return Fault(what, name, node.op_type, origin.module or label(node), origin.source, todo)
