"""Where the timesteps of a network's values are, and what became of each value.

A value holds elements of a folded one, its twin [T*N, ...]. Which ones, in which order, is a view
of it (``snncc.ir.axes``): T and N are two axes of the twin's index, its other axes are called by
their numbers. So what only moves elements changes the view, and what computes asks where T is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from snncc.errors import Fault
from snncc.ir.axes import Digit, Group, View
from snncc.ir.exact import Exact
from snncc.ir.graphs import Edit, initializer, label, provenance
from snncc.ir.lineage import Lineage
from snncc.ir.ops import having

__all__ = ["SAMPLES", "TIME", "Seen", "When", "Work", "folded_shape", "inner", "outer", "sizes_of"]

Array = npt.NDArray[Any]

#: The axes of views that are the batch axis of a folded value.
TIME, SAMPLES = "T", "N"

#: What only moves elements.
_MOVES = (
    *having("imported", lambda t: t.regroups),
    *("Transpose", "Expand", "Tile", "Concat", "Slice", "Split", "Gather"),
)


class When(Enum):
    """Which timesteps a value is of."""

    #: All of those whose digits the view has; without one, the single one that the view starts at.
    EACH = "each"
    #: The same in every timestep.
    STILL = "still"
    #: Some timesteps summed.
    PART = "part"
    #: To be averaged over time.
    MEAN = "mean"
    #: No value of the network: arithmetic on shapes.
    SHAPE = "shape"
    #: Not known, as what it comes from cannot be folded.
    LOST = "lost"


@dataclass(frozen=True)
class Seen:
    """What became of a value.

    Attributes:
        view: Which elements of the twin it holds.
        twin: The folded value, [T*N, ...].
        when: Which timesteps it is of.
        summed: The timesteps of a ``part``.
    """

    view: View
    twin: ir.Value
    when: When = When.EACH
    summed: tuple[int, ...] = ()

    def timesteps(self) -> list[int]:
        """Those that its elements are of, in the order of its digits; of a step that one."""
        digits = tuple(d for d in self.view.digits if d.axis == TIME)
        found = View((digits,), self.view.starts).index(0, TIME)
        return [] if found is None else [int(t) for t in found]


def outer(group: Iterable[Digit]) -> Group:
    """The digits of timesteps and samples."""
    return tuple(d for d in group if d.axis in (TIME, SAMPLES))


def inner(group: Iterable[Digit]) -> Group:
    """The digits of the axes after them."""
    return tuple(d for d in group if d.axis not in (TIME, SAMPLES))


def sizes_of(value: ir.Value) -> tuple[int | None, ...] | None:
    """Sizes with None for those that vary."""
    if value.shape is None:
        return None
    return tuple(d if isinstance(d, int) else None for d in value.shape)


def folded_shape(sizes: Iterable[Any]) -> ir.Shape:
    """That of a folded value with these sizes after its batch axis."""
    return ir.Shape(["M", *sizes])


@dataclass
class Work:
    """A network whose timesteps are being folded.

    Attributes:
        model: The graph.
        T: Its timesteps.
        made_by: The pass, for provenance.
        seen: What became of each value so far.
        made: Folded values that are computed once for all timesteps that compute alike.
        steps: Names of the values of single timesteps that a folded value holds.
        faults: What cannot be folded.
    """

    model: ir.Model
    T: int
    made_by: str
    seen: dict[ir.Value, Seen] = field(default_factory=dict)
    made: dict[Any, ir.Value] = field(default_factory=dict)
    steps: dict[str, dict[int, str]] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.lineage = Lineage.of(self.model)

    # -- what is said of a value -----------------------------------------------------------

    def is_flat(self, found: Seen) -> bool:
        """Whether it is its twin under another name: [T*N, ...] of all timesteps."""
        first, *rest = found.view.groups
        whole = (Digit(TIME, self.T),) if self.T > 1 else ()
        at_front = first == (*whole, Digit(SAMPLES, None))
        return found.when is When.EACH and at_front and not any(outer(g) for g in rest)

    def note(self, out: ir.Value, found: Seen) -> None:
        """Say how the folded value comes from ``out``, or from one value for each timestep."""
        twin, times, name = str(found.twin.name), found.timesteps(), str(out.name)
        if found.when is When.EACH and self.T > 1 and len(times) == 1:
            self.steps.setdefault(twin, {}).setdefault(times[0], name)
        elif found.when is When.STILL or (len(times) == self.T and not self.is_flat(found)):
            digits = [[(d.axis, d.size or 0, d.stride) for d in g] for g in found.view.groups]
            sizes = [int(d) for d in (found.twin.shape or ())[1:] if isinstance(d, int)]
            self.lineage.note(twin, "folded", name, groups=digits, sizes=sizes, T=self.T)

    def name_of(self, out: ir.Value, found: Seen) -> str:
        """[T*N, ...] is the same quantity under the same name; anything else is another one."""
        return str(out.name) if self.is_flat(found) else f"{out.name}/folded"

    # -- faults ----------------------------------------------------------------------------

    def fault(self, node: ir.Node, what: str, todo: str) -> None:
        """Note what cannot be folded."""
        origin = provenance(node)
        where = (label(node), node.op_type, origin.module, origin.source)
        self.faults.append(Fault(what, *where, todo))

    def mixed(self, node: ir.Node, live: list[ir.Value], axis: int | None = None) -> None:
        """Note a node that makes one value of several timesteps, or loses their axis.

        Args:
            node: The node.
            live: Its inputs that are no constants.
            axis: The one of timesteps or samples that it works along, if there is one.
        """
        read = list(dict.fromkeys(self.axes(v) for v in live))
        if len(read) > 1:
            what = f"reads {' and '.join(read)}, whose timesteps are in different places"
            self.fault(node, what, "values of the same timesteps, laid out alike")
        elif node.op_type in _MOVES:
            what = f"of {read[0]} makes a value in which timesteps cannot be followed"
            self.fault(node, what, "all timesteps, in order, as an axis or next to the samples")
        elif axis is not None:
            held = self._axis(self.seen[live[0]].view.groups[axis])
            self.fault(node, f"works along axis {axis} of {read[0]}, which holds {held}", _APART)
        else:
            rule = f"only neurons with memory and a final mean or sum may see T = {self.T}"
            self.fault(node, f"mixes the timesteps of {read[0]}", rule)
        self.lose(node, live)

    def lose(self, node: ir.Node, live: list[ir.Value]) -> None:
        """What comes of its results is not judged: they have no known layout."""
        lost = Seen(self.seen[live[0]].view, self.seen[live[0]].twin, When.LOST)
        self.seen.update(dict.fromkeys(node.outputs, lost))

    def axes(self, value: ir.Value) -> str:
        """A value's axes, as people are told of them: [T, N, 64, 8]."""
        found = self.seen[value]
        which = found.summed if found.when is When.PART else tuple(found.timesteps())
        is_some = found.when is When.PART or (found.when is When.EACH and len(which) < self.T)
        when = f" of timestep {', '.join(map(str, which))}" if is_some else ""
        return f"[{', '.join(self._axis(group) for group in found.view.groups)}]{when}"

    def _axis(self, group: Group) -> str:
        """T·N, or 8·N, or 64."""
        times = prod(d.size or 1 for d in group if d.axis == TIME)
        others = prod(d.size or 1 for d in inner(group))
        names = {TIME: TIME if times == self.T else f"{times}", SAMPLES: SAMPLES}
        known = list(dict.fromkeys(names.get(d.axis, str(others)) for d in group))
        return "·".join(known) or "1"

    # -- arithmetic ------------------------------------------------------------------------

    def const(self, node: ir.Node, what: str, array: Array | Exact) -> ir.Value:
        """A new constant that a node on folded values reads."""
        return initializer(self.model.graph, f"{node.outputs[0].name}.{what}", array)

    def times(self, node: ir.Node, twin: ir.Value, factor: int) -> ir.Value:
        """A folded value times a number; of a mean over time it makes a sum."""
        out, edit = node.outputs[0], Edit(node, self.made_by)
        number = edit.const(f"{out.name}.T", np.array(factor, np.float32))
        return edit.op("Mul", twin, number, name=f"{out.name}/times", like=twin)


_APART = "timesteps and samples in axes along which nothing but neurons works"
