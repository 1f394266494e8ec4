"""Two graphs that should compute the same, compared value by value.

Each value is computed from the values before it as the other graph has them, so that an error
cannot travel, and a fault names its node.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from snncc.errors import Fault, VerificationError
from snncc.ir.graphs import label, nodes
from snncc.ir.lineage import Lineage
from snncc.ir.neurons import near_a_border
from snncc.ir.ops import NEURONS, traits
from snncc.ir.oracle import evaluate, magnitudes, teacher_forced, values_of

__all__ = ["MARGIN", "Difference", "compare", "recomputed", "validate_translation"]

Array = npt.NDArray[Any]

#: Relative rounding margin of float32 rewrites, per element: |change| <= MARGIN * sum|w||a|.
MARGIN = 1e-5
#: Numbers that are computed anew and compared at once.
_COMPARED_AT_ONCE = 1 << 24


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

    def __str__(self) -> str:
        at = f", first at {list(self.first)}" if self.first else ""
        return f"{self.changed} of {self.total} elements differ{at}, worst {self.worst:.3g}"


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
    """Compare every value of ``after`` that ``before`` has too, or that comes from its values.

    Values are teacher-forced. The margin is one of sum|w||a| as either graph has it, whichever is
    larger: the difference of a pixel and the mean is a small number before its two terms go apart,
    and no longer exact then. A neuron whose drive ``after`` computes anew may fire either way where
    that is within the margin of a rounding border.

    Args:
        before: The graph that a pass was given.
        after: The graph that it made; its lineage says what its new values come from.
        feeds: Inputs of ``before``; ``after`` must take the same.
        exact: Demand equality (integer stages) instead of the float32 margin.

    Raises:
        VerificationError: A value changed; one fault per value, naming its node. Or a result of
            ``after`` comes from nothing that ``before`` has, so that it was not compared.
    """
    pairs = _Pairs(before, after)
    pairs.require_inputs(feeds)
    pairs.require_results()
    borders = {} if exact else _borders(pairs)
    drives = {u for border in borders.values() for u in border.drives if u not in feeds}
    known = {**feeds, **evaluate(before, feeds, list(dict.fromkeys([*pairs.sources, *drives])))}
    work = _Comparison(pairs, feeds, known, exact)
    tied = {name: border.near(pairs.lineage, name, known) for name, border in borders.items()}
    found = [d for part in _portions(work.given) for d in work.of(part, tied)]
    values = values_of(after)
    faults = [_fault(values[d.name], d) for d in found if d.changed]
    if faults:
        raise VerificationError("the graph changed its meaning", faults)
    return found


class _Pairs:
    """Values of two graphs that are one quantity.

    Attributes:
        before, after: The graphs.
        lineage: Of ``after``.
        origins: Values of ``after``, in its order, and what each comes from in ``before``.
    """

    def __init__(self, before: ir.Model, after: ir.Model) -> None:
        self.before, self.after, self.lineage = before, after, Lineage.of(after)
        known = values_of(before)
        found = {name: self.lineage.origins(name, known) for name in values_of(after)}
        self.origins = {name: origins for name, origins in found.items() if origins}

    @property
    def sources(self) -> list[str]:
        """Values of ``before`` that are needed to know those of ``after``."""
        return list(dict.fromkeys(n for found in self.origins.values() for n in found))

    def require_results(self) -> None:
        """Whatever a graph computes ends in its results: these must be compared."""
        inputs = {v.name for v in self.before.graph.inputs}
        handed_on = [v.name for v in self.before.graph.outputs if v.name in inputs]
        outs = [v for v in self.after.graph.outputs if v.name not in handed_on]
        lost = [v for v in outs if str(v.name) not in self.origins]
        faults = [Fault("its result has no counterpart before the pass", str(v.name)) for v in lost]
        if faults:
            raise VerificationError("a result was not compared", faults)

    def require_inputs(self, feeds: Mapping[str, Array]) -> None:
        """Where ``after`` takes what ``before`` computed, it must be fed with just that.

        Values that are compared are fed: an input that stands for one would agree with itself.
        """
        computed = values_of(self.before)
        taken = [str(v.name) for v in self.after.graph.inputs if str(v.name) in computed]
        found = evaluate(self.before, feeds, taken)
        wrong = [n for n in taken if n not in feeds or not np.array_equal(feeds[n], found[n])]
        if wrong:
            faults = [Fault("the graph takes what was computed", name) for name in wrong]
            raise VerificationError("an input has another meaning", faults)


@dataclass(frozen=True)
class _Border:
    """Where a neuron of ``before`` is so near a border that rounding decides.

    Attributes:
        nodes: It, or one for each of the values that the neuron of ``after`` comes from.
    """

    nodes: tuple[ir.Node, ...]

    @property
    def drives(self) -> list[str]:
        """What they read."""
        return [str(n.inputs[0].name) for n in self.nodes if n.inputs[0] is not None]

    def near(self, lineage: Lineage, name: str, known: Mapping[str, Array]) -> Array:
        """Of each activation of ``name``, a neuron of ``after``."""
        near = {
            str(node.outputs[0].name): _near(node, known[u], known[str(node.outputs[0].name)])
            for node, u in zip(self.nodes, self.drives, strict=True)
        }
        return np.asarray(lineage.trace(name, near) != 0)


def _borders(pairs: _Pairs) -> dict[str, _Border]:
    """For the neurons that ``after`` may drive or charge anew, those that they come from."""
    makers = {name: value.producer() for name, value in values_of(pairs.before).items()}
    given = {*pairs.origins, *(str(v.name) for v in pairs.after.graph.inputs)}
    found = {}
    for node in nodes(pairs.after, *NEURONS):
        name, u = str(node.outputs[0].name), node.inputs[0]
        is_given = u is not None and u.name in given and not traits(node).remembers
        made = [makers[origin] for origin in pairs.origins.get(name, [])]
        fired = [n for n in made if n is not None and traits(n).fires]
        if made and len(fired) == len(made) and not is_given:
            found[name] = _Border(tuple(fired))
    return found


def _near(node: ir.Node, u: Array, fired: Array) -> Array:
    """1 where the drive lies within the margin of a border, else 0."""
    return near_a_border(node, u, fired, MARGIN).astype(np.int8)


def _decides(node: ir.Node) -> bool:
    """Whether a node makes whole numbers of its input, in units of that."""
    return traits(node).fires or traits(node).border is not None


def recomputed(
    model: ir.Model, feeds: Mapping[str, Array], given: Mapping[str, Array]
) -> list[Difference]:
    """Compare values that somebody else computed with what the graph makes of those before them.

    The margin is that of ``validate_translation``. An activation may be either way where rounding
    decides: next to a border, if its drive is not given, or if the neuron has a memory.

    Args:
        model: Any float stage.
        feeds: Its inputs.
        given: Values by name, float32.
    """
    found, firing = [], _firing(model, given)
    for names in _portions(given):
        drives = [str(firing[n].inputs[0].name) for n in names if n in firing]  # type: ignore[union-attr]
        wanted = list(dict.fromkeys([*names, *(u for u in drives if u not in feeds)]))
        again = teacher_forced(model, feeds, given, wanted)
        scale = magnitudes(model, feeds, given, names)
        for name in names:
            if name in firing:
                node = firing[name]
                u = {**feeds, **again}[str(node.inputs[0].name)]  # type: ignore[union-attr]
                again[name] = np.where(_near(node, u, given[name]), given[name], again[name])
        found += [compare(name, given[name], again[name], scale[name]) for name in names]
    return found


def _firing(model: ir.Model, given: Mapping[str, Array]) -> dict[str, ir.Node]:
    """The given values that a rounding makes, where it may decide otherwise than in ``given``."""
    makers = {name: value.producer() for name, value in values_of(model).items() if name in given}
    rounding = {n: m for n, m in makers.items() if m is not None and _decides(m)}
    return {
        name: node
        for name, node in rounding.items()
        if node.inputs[0] is not None
        and (traits(node).remembers or node.inputs[0].name not in given)
    }


def _portions(given: Mapping[str, Array]) -> Iterator[list[str]]:
    """Names of the values in their order, so many at once that copies of them take little."""
    part: list[str] = []
    size = 0
    for name, array in given.items():
        if part and size + array.size > _COMPARED_AT_ONCE:
            yield part
            part, size = [], 0
        part.append(name)
        size += array.size
    if part:
        yield part


class _Comparison:
    """Two graphs, and the values of ``after`` as ``before`` computes them."""

    def __init__(
        self, pairs: _Pairs, feeds: Mapping[str, Array], known: Mapping[str, Array], exact: bool
    ) -> None:
        self.pairs, self.feeds, self.exact = pairs, feeds, exact
        self.known = {name: known[name] for name in pairs.sources}
        self.given = {name: pairs.lineage.trace(name, self.known) for name in pairs.origins}

    def of(self, names: Collection[str], near: Mapping[str, Array]) -> list[Difference]:
        """How ``after`` changed these values; ``near`` says where neurons may fire either way."""
        again = teacher_forced(self.pairs.after, self.feeds, self.given, names)
        for name in names:
            if name in near and near[name].shape == again[name].shape:
                again[name] = np.where(near[name], self.given[name], again[name])
        scale = {} if self.exact else self._before(names)
        found = [compare(n, self.given[n], again[n], scale.get(n)) for n in names]
        if self.exact or not any(d.changed for d in found):
            return found
        larger = magnitudes(self.pairs.after, self.feeds, self.given, names)
        scale = {n: np.maximum(scale[n], larger[n]) for n in names}
        return [compare(n, self.given[n], again[n], scale[n]) for n in names]

    def _before(self, names: Collection[str]) -> dict[str, Array]:
        """Magnitudes as ``before`` has them, moved to where ``after`` has its values."""
        sources = list(dict.fromkeys(n for name in names for n in self.pairs.origins[name]))
        found = magnitudes(self.pairs.before, self.feeds, self.known, sources)
        return {name: self.pairs.lineage.trace(name, found) for name in names}


def _fault(value: ir.Value, found: Difference) -> Fault:
    node = value.producer()
    kind = node.op_type if node is not None else ""
    where = label(node) if node is not None else ""
    return Fault(str(found), node=str(value.name), kind=kind, module=where)
