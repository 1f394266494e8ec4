"""recognise-sum: where spikes are added, layers read the sum, once and with one set of weights.

Residual streams of spikes grow with every block. Moved into the layers, a sum of k would give each
of them k copies of its weights (``distribute-linear`` does so where this pass cannot): where spikes
of both count the same, and come in as many ticks, it is a stream of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import prod
from typing import ClassVar, NamedTuple

import onnx_ir as ir

from snncc.ir.exact import unit_of
from snncc.ir.graphs import Edit, attribute, replace_value, static_shape
from snncc.ir.lineage import Lineage
from snncc.ir.names import NEW
from snncc.ir.ops import traits
from snncc.passes.base import Pass
from snncc.passes.reading import has_identity, identity_layer, is_branch_sum, read_affine

__all__ = ["RecogniseSum"]


@dataclass(frozen=True)
class RecogniseSum(Pass):
    """Add of two trains, or of sums of such, that layers read."""

    name: ClassVar[str] = "recognise-sum"
    stage_in: ClassVar[str] = "imported"
    stage_out: ClassVar[str] = "imported"

    def run(self, model: ir.Model) -> int:
        """How many sums were found."""
        bursts: dict[ir.Value, _Burst] = {}
        count = sum(_read_result(model, i, self.name) for i in range(len(model.graph.outputs)))
        streams = _streams(model)
        for node in list(model.graph):
            if node.op_type == "Add":
                count += node.outputs[0] in streams and _join(node, bursts, self.name)
            elif (found := _burst(node, bursts)) is not None:
                bursts[node.outputs[0]] = found
        return count


def _read_result(model: ir.Model, place: int, made_by: str) -> bool:
    """Where a result is a sum of spikes, a layer of ones reads it: engines keep potentials."""
    out, reader = model.graph.outputs[place], None
    value: ir.Value = out
    while (found := _before_the_end(value)) is not None:
        reader, value = value.producer(), found
    sizes = static_shape(value)
    if sizes is None or not has_identity(sizes) or not _is_sum_of_spikes(value):
        return False
    anchor = reader or list(model.graph)[-1]
    layer = identity_layer(anchor, value, sizes, made_by, name=f"{out.name}/read")
    if reader is None:  # it comes last, after all that it reads
        made = layer.producer()
        assert made is not None
        model.graph.remove(made)
        model.graph.append(made)
        model.graph.outputs[place] = layer
        lineage = Lineage.of(model)
        lineage.note(str(layer.name), "same", str(out.name))
        lineage.write(model)
    else:
        reader.replace_input_with(list(reader.inputs).index(value), layer)
    return True


def _before_the_end(value: ir.Value) -> ir.Value | None:
    """What a factor, a reshape or the sum over timesteps makes ``value`` of."""
    node = value.producer()
    if node is not None and (traits(node).ends_time or traits(node).regroups):
        return node.inputs[0]
    affine = read_affine(node) if node is not None else None
    return affine[0] if affine is not None else None


def _is_sum_of_spikes(value: ir.Value) -> bool:
    """Whether spikes, pooled or regrouped, were added on the way to a value, and nothing else."""
    todo, seen, has_sum = [value], set[ir.Value](), False
    while todo:
        made = todo.pop()
        if made in seen:
            continue
        seen.add(made)
        node = made.producer()
        if node is None:
            return False
        if is_branch_sum(node):
            has_sum = True
            todo += [x for x in node.inputs if x is not None]
        elif traits(node).keeps_counts and node.inputs[0] is not None:
            todo.append(node.inputs[0])
        elif not traits(node).makes_counts:
            return False
    return has_sum


class _Burst(NamedTuple):
    """What the spikes of a value are.

    Attributes:
        unit: What one counts.
        ticks: In which they come.
        shape: Per sample, of what emits them: reshapes move nothing.
    """

    unit: Fraction
    ticks: int
    shape: tuple[int, ...] | None


def _burst(node: ir.Node, bursts: dict[ir.Value, _Burst]) -> _Burst | None:
    asked, out, x = traits(node), node.outputs[0], node.inputs[0] if node.inputs else None
    if asked.fires:
        return _Burst(unit_of(node), attribute(node, "D"), static_shape(out))
    read = [bursts[v] for v in node.inputs if v in bursts]
    if asked.multiplies and asked.makes_counts and len(read) == len(node.inputs):
        unit = prod((one.unit for one in read), start=Fraction(1))
        return _Burst(unit, max(one.ticks for one in read), static_shape(out))
    if x not in bursts or not asked.keeps_counts:
        return None
    before = bursts[x]
    if not asked.pools:
        return before
    share = prod(attribute(node, "kernel_shape")) if asked.averages else 1
    return _Burst(before.unit / share, before.ticks, static_shape(out))


def _join(node: ir.Node, bursts: dict[ir.Value, _Burst], made_by: str) -> bool:
    left, right = node.inputs
    if left is None or right is None or static_shape(left) != static_shape(right):
        return False
    one, two, out = bursts.get(left), bursts.get(right), node.outputs[0]
    if one is None or one != two or one.shape is None or not is_branch_sum(node):
        return False
    made = Edit(node, made_by).own("TrainSum", *node.inputs, name=f"{out.name}{NEW}", like=out)
    replace_value(out, made)
    bursts[made] = one
    return True


def _streams(model: ir.Model) -> set[ir.Value]:
    """What layers read in the end, through sums, averages and reshapes; results are none of it.

    Where neurons alone read a sum they add potentials, which needs no stream.
    """
    found: set[ir.Value] = set()
    for node in reversed(list(model.graph)):
        found.update(out for out in node.outputs if _is_read(out, found))
    return found


def _is_read(value: ir.Value, found: set[ir.Value]) -> bool:
    readers = [user for user, _ in value.uses()]
    if value.is_graph_output() or any(traits(user).ends_time for user in readers):
        return False
    passing = [user for user in readers if traits(user).keeps_counts or is_branch_sum(user)]
    if not all(_leads_on(user, found) for user in passing):
        return False
    return bool(passing) or not all(traits(user).fires for user in readers)


def _leads_on(user: ir.Node, found: set[ir.Value]) -> bool:
    """Whether a stream goes on there: before a neuron an average gets a layer of its own."""
    out = user.outputs[0]
    after = [reader for reader, _ in out.uses()]
    if traits(user).averages and after and not out.is_graph_output():
        return out in found or all(traits(reader).fires for reader in after)
    return out in found
