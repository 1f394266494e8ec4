"""How the values of a network over timesteps are laid out, and what became of each.

The rules for single nodes work with this: what regroups axes, and what a loop does with timesteps.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

import numpy as np
import onnx_ir as ir

from snncc.errors import Fault
from snncc.ir.graphs import Edit, label, provenance
from snncc.ir.ops import having

__all__ = ["Layout", "Seen", "Work"]


#: What only moves elements.
_MOVES = (
    *having("imported", lambda t: t.regroups),
    *("Transpose", "Expand", "Tile", "Concat", "Slice", "Split", "Gather"),
)


class Layout(Enum):
    """Where the timesteps of a value are; N are its samples, and «...» are its own axes."""

    #: [N, ...], the same in every timestep.
    STILL = "still"
    #: [1, N, ...], the same in every timestep.
    ONE = "one"
    #: [T, N, ...].
    APART = "apart"
    #: [T*N, ...].
    FLAT = "flat"
    #: [N, T, ...].
    LINED = "lined"
    #: [N*T, ...].
    ROWS = "rows"
    #: [N, ...], one timestep.
    STEP = "step"
    #: One timestep, with its axis.
    CUT = "cut"
    #: [N, ...], some timesteps summed.
    PART = "part"
    #: [N, ...], to be averaged over time.
    MEAN = "mean"
    #: No value of the network: arithmetic on shapes.
    SHAPE = "shape"

    @property
    def time_axis(self) -> int | None:
        """The axis of all timesteps, where they have one of their own."""
        return {Layout.APART: 0, Layout.LINED: 1}.get(self)

    @property
    def leading(self) -> tuple[str, ...]:
        """The axes of timesteps and samples, as people are told of them."""
        together = {
            Layout.ONE: ("1", "N"),
            Layout.APART: ("T", "N"),
            Layout.FLAT: ("T·N",),
            Layout.LINED: ("N", "T"),
            Layout.ROWS: ("N·T",),
            Layout.CUT: ("1", "N"),
        }
        return together.get(self, ("N",))


@dataclass(frozen=True)
class Seen:
    """What became of a value.

    Attributes:
        layout: Where its timesteps are.
        twin: The folded value, [T*N, ...].
        when: Timesteps of a ``step``, ``cut`` or ``part``.
    """

    layout: Layout
    twin: ir.Value
    when: tuple[int, ...] = ()

    def renamed(self, layout: Layout, *when: int, twin: ir.Value | None = None) -> Seen:
        """The same value, or ``twin``, in another layout."""
        return Seen(layout, twin or self.twin, when)


@dataclass
class Work:
    """A network whose timesteps are being folded.

    Attributes:
        model: The graph.
        T: Its timesteps.
        made_by: The pass, for provenance.
        seen: What became of each value so far.
        faults: What cannot be folded.
    """

    model: ir.Model
    T: int
    made_by: str
    seen: dict[ir.Value, Seen] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)

    def fault(self, node: ir.Node, what: str, todo: str) -> None:
        """Note what cannot be folded."""
        origin = provenance(node)
        where = (label(node), node.op_type, origin.module, origin.source)
        self.faults.append(Fault(what, *where, todo))

    def mixed(self, node: ir.Node, live: list[ir.Value]) -> None:
        """Note a node that makes one value of several timesteps, or loses their axis."""
        read = list(dict.fromkeys(self.axes(v) for v in live))
        if len(read) > 1:
            what = f"reads {' and '.join(read)}, whose timesteps are in different places"
            self.fault(node, what, "values of the same timesteps, laid out alike")
        elif node.op_type in _MOVES:
            what = f"of {read[0]} makes a value in which timesteps cannot be followed"
            self.fault(
                node, what, "T and N in front, [T, N, ...] or [T·N, ...], and axes after them"
            )
        else:
            rule = f"only neurons with memory and a final mean or sum may see T = {self.T}"
            self.fault(node, f"mixes the timesteps of {read[0]}", rule)
        self.seen[node.outputs[0]] = Seen(Layout.FLAT, self.seen[live[0]].twin)

    def axes(self, value: ir.Value) -> str:
        """A value's axes, as people are told of them: [T, N, 64, 8]."""
        found = self.seen[value]
        lead, shape = found.layout.leading, value.shape or ()
        rest = [d if isinstance(d, int) else "?" for d in shape[len(lead) :]]
        when = f" of timestep {', '.join(map(str, found.when))}" if found.when else ""
        return f"[{', '.join(map(str, (*lead, *rest)))}]{when}"

    def times(self, node: ir.Node, twin: ir.Value, factor: int) -> ir.Value:
        """A folded value times a number; of a mean over time it makes a sum."""
        out, edit = node.outputs[0], Edit(node, self.made_by)
        number = edit.const(f"{out.name}.T", np.array(factor, np.float32))
        return edit.op("Mul", twin, number, name=f"{out.name}/times", like=twin)
