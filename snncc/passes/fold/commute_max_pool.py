"""commute-max-pool: pool then fire becomes fire then pool, where a pool of spikes is an OR.

What reads the maximum of potentials otherwise, as a neuron with memory does, reads that: it is an
integer maximum, as all elements of a channel are on one grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from snncc.ir.graphs import Edit, attribute, nodes, replace_value
from snncc.ir.names import NEW
from snncc.ir.ops import traits
from snncc.passes.base import Pass
from snncc.passes.reading import holds_counts

__all__ = ["CommuteMaxPool"]


@dataclass(frozen=True)
class CommuteMaxPool(Pass):
    """A max-pool read only by SFA neurons becomes max-pools of their spikes.

    Exact because such a neuron is monotone and stateless, and its smallest value, 0, is what the
    pool's padding stands for. Any other max-pool of potentials becomes ``MaxPotential``.
    """

    name: ClassVar[str] = "commute-max-pool"
    stage_in: ClassVar[str] = "integer"
    stage_out: ClassVar[str] = "integer"

    def run(self, model: ir.Model) -> int:
        """Move every pool whose readers are all such neurons; of a chain the last one first."""
        pools = reversed(list(nodes(model, "MaxPool")))
        count = sum(_commute(node, self.name) for node in pools)
        return count + sum(_stay(node, self.name) for node in nodes(model, "MaxPool"))


def _stay(pool: ir.Node, made_by: str) -> bool:
    """A max-pool of potentials that stays where it is gets the operator that keeps integers."""
    out, x = pool.outputs[0], pool.inputs[0]
    if x is None or holds_counts(x):
        return False
    attributes = {name: attribute(pool, name) for name in ("kernel_shape", "strides", "pads")}
    made = Edit(pool, made_by).own(
        "MaxPotential", x, name=f"{out.name}{NEW}", like=out, attributes=attributes
    )
    replace_value(out, made)
    return True


def _commute(pool: ir.Node, made_by: str) -> bool:
    out, x = pool.outputs[0], pool.inputs[0]
    readers = [user for user, _ in out.uses()]
    if x is None or not readers or not all(traits(r).is_monotone for r in readers):
        return False
    if out.is_graph_output():
        return False
    attributes = {name: a.value for name, a in pool.attributes.items()}
    for fire in readers:
        old = fire.outputs[0]
        settings = {name: a.value for name, a in fire.attributes.items()}
        edit = Edit(fire, made_by)
        fired = edit.own(fire.op_type, x, name=f"{old.name}/ahead", like=x, attributes=settings)
        pooled = edit.op("MaxPool", fired, name=f"{old.name}{NEW}", like=old, attributes=attributes)
        replace_value(old, pooled)
    return True
