"""lower-to-spikes: every count becomes D binary ticks; linear layers run once per tick."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from snncc.ir.graphs import Edit, nodes, replace_value, static_shape
from snncc.ir.lineage import Lineage
from snncc.ir.names import APART, COUNT, NEW, SPIKES, TICKS, WIDE, counted
from snncc.ir.ops import OPS, traits
from snncc.passes.base import Law, Pass

__all__ = ["LowerToSpikes"]


@dataclass(frozen=True)
class LowerToSpikes(Pass):
    """FireCount -> IFSoftReset; ticks are folded into the batch through pools and layers.

    Currents are summed over the ticks only after the linear layer, before the bias: a sum
    right after the neuron would undo the spikes and make the comparison with counts vacuous.
    """

    name: ClassVar[str] = "lower-to-spikes"
    stage_in: ClassVar[str] = "quantised"
    stage_out: ClassVar[str] = "spiking"
    law: ClassVar[Law] = Law.EXACT

    def run(self, model: ir.Model) -> int:
        """Lower every population."""
        ticks: dict[ir.Value, int] = {}
        count = 0
        for node in nodes(model):
            x, asked = node.inputs[0] if node.inputs else None, traits(node)
            if asked.fires:
                _fire(node, ticks, self.name)
                count += 1
            elif x is None or x not in ticks:
                continue
            elif asked.weighs:
                _sum_behind(node, ticks[x], self.name)
            elif asked.multiplies:
                _multiply(node, ticks, self.name)
            elif asked.ends_time:
                node.replace_input_with(0, _summed(node, x, ticks[x], self.name))
            else:
                _carry(node, ticks, ticks[x])
        lineage = Lineage.of(model)
        for i, out in enumerate(model.graph.outputs):
            if out in ticks:
                total = _result(model, out, ticks[out], self.name)
                lineage.note(str(total.name), "times", counted(str(out.name)), factor="1")
                model.graph.outputs[i] = total
        lineage.write(model)
        return count


def _fire(node: ir.Node, ticks: dict[ir.Value, int], made_by: str) -> None:
    old, table = node.outputs[0], node.inputs[1]
    D = int(table.shape[1]) if table is not None and table.shape is not None else 1  # type: ignore[arg-type]
    edit = Edit(node, made_by)
    train = edit.own(
        traits(node).becomes, *node.inputs, name=f"{old.name}{SPIKES}",
        dtype=ir.DataType.UINT8, shape=[D, *(old.shape or ())],
        attributes={k: a.value for k, a in node.attributes.items()},
    )  # fmt: skip
    ticks[_folded(edit, old, train)] = D


def _folded(edit: Edit, old: ir.Value, train: ir.Value) -> ir.Value:
    """The ticks of a train as samples, in place of the counts that it had before."""
    size = static_shape(old) or ()
    folded = edit.op(
        "Reshape", train, edit.const(f"{old.name}.fold", np.array([-1, *size], np.int64)),
        name=f"{old.name}{TICKS}", dtype=ir.DataType.UINT8, shape=[None, *size],
    )  # fmt: skip
    replace_value(old, folded, keep_name=False)
    return folded


def _carry(node: ir.Node, ticks: dict[ir.Value, int], D: int) -> None:
    """Pools, casts and reshapes work on ticks as on samples; their values are per tick now."""
    out = node.outputs[0]
    out.name = node.name = f"{out.name}{TICKS}"
    out.shape = ir.Shape([None, *(static_shape(out) or ())])
    ticks[out] = D


def _sum_behind(node: ir.Node, D: int, made_by: str) -> None:
    old = node.outputs[0]
    size, name = static_shape(old) or (), old.name
    readers = list(old.uses())
    old.name = node.name = f"{name}{TICKS}"
    edit = Edit(readers[0][0], made_by)
    batch = old.shape[0] if old.shape is not None else None
    apart = edit.op(
        "Reshape", old, edit.const(f"{name}.apart", np.array([D, -1, *size], np.int64)),
        name=f"{name}{APART}", dtype=ir.DataType.INT32, shape=[D, batch, *size],
    )  # fmt: skip
    total = edit.own(
        "SpikeSum", apart, name=str(name), dtype=ir.DataType.INT32, shape=[batch, *size]
    )
    old.shape = ir.Shape([None, *size])
    for reader, index in readers:
        reader.replace_input_with(index, total)


def _multiply(node: ir.Node, ticks: dict[ir.Value, int], made_by: str) -> None:
    """Products of trains in place of products of counts; ticks apart, each train with its own."""
    old, edit, lengths = node.outputs[0], Edit(node, made_by), []
    trains = []
    for letter, x in zip(OPS[node.op_type].inputs, node.inputs, strict=True):
        assert x is not None
        size, name = static_shape(x) or (), f"{old.name}:{letter.lower()}"
        lengths.append(D := ticks[x])
        target = edit.const(f"{name}.apart", np.array([D, -1, *size], np.int64))
        shape = [D, None, *size]
        trains.append(
            edit.op("Reshape", x, target, name=name, dtype=ir.DataType.UINT8, shape=shape)
        )
    attributes, becomes = {k: a.value for k, a in node.attributes.items()}, traits(node).becomes
    if traits(node).makes_counts:
        D = max(lengths)
        train = edit.own(
            becomes, *trains, name=f"{old.name}{SPIKES}", dtype=ir.DataType.UINT8,
            shape=[D, *(old.shape or ())], attributes=attributes,
        )  # fmt: skip
        ticks[_folded(edit, old, train)] = D
        return
    new = edit.own(becomes, *trains, name=f"{old.name}{NEW}", like=old, attributes=attributes)
    replace_value(old, new)


def _summed(node: ir.Node, x: ir.Value, D: int, made_by: str) -> ir.Value:
    """Counts before a sum over time: the ticks summed."""
    size, edit, name = static_shape(x) or (), Edit(node, made_by), f"{x.name}{COUNT}"
    narrow = edit.op(
        "Cast", x, name=f"{name}/narrow", dtype=ir.DataType.INT32, shape=[None, *size],
        attributes={"to": ir.DataType.INT32.value},
    )  # fmt: skip
    apart = edit.op(
        "Reshape", narrow, edit.const(f"{name}.apart", np.array([D, -1, *size], np.int64)),
        name=f"{name}/apart", dtype=ir.DataType.INT32, shape=[D, None, *size],
    )  # fmt: skip
    node.outputs[0].type = ir.TensorType(ir.DataType.INT32)
    return edit.own("SpikeSum", apart, name=name, dtype=ir.DataType.INT32, shape=[None, *size])


def _result(model: ir.Model, out: ir.Value, D: int, made_by: str) -> ir.Value:
    """Counts as a result: the ticks summed."""
    size, last = static_shape(out) or (), list(model.graph)[-1]
    edit = Edit(last, made_by)
    made = []
    wide = edit.op(
        "Cast", out, name=f"{out.name}{WIDE}", dtype=ir.DataType.INT32, shape=[None, *size],
        attributes={"to": ir.DataType.INT32.value},
    )  # fmt: skip
    apart = edit.op(
        "Reshape", wide, edit.const(f"{out.name}.apart", np.array([D, -1, *size], np.int64)),
        name=f"{out.name}{APART}", dtype=ir.DataType.INT32, shape=[D, None, *size],
    )  # fmt: skip
    total = edit.own(
        "SpikeSum", apart, name=f"{out.name}{COUNT}", dtype=ir.DataType.INT32, shape=[None, *size]
    )
    made += [wide, apart, total]
    for value in made:  # after the node they read
        node = value.producer()
        assert node is not None
        model.graph.remove(node)
        model.graph.append(node)
    return total
