"""What quantisation changes, measured on data: the figures behind the report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from snncc.ir.carried import carry_of, near_border
from snncc.ir.graphs import attribute, label
from snncc.ir.ops import NEURONS
from snncc.ir.oracle import affordable, evaluate, teacher_forced
from snncc.passes.fold_scale import output_scales

__all__ = ["LayerChange", "Measured", "measure"]

Array = npt.NDArray[Any]
Head = Callable[[Sequence[Array]], Array]
_BATCH = 64


@dataclass
class LayerChange:
    """One population on the calibration data.

    Attributes:
        module: Module path.
        total: Activations seen.
        teacher_forced: Changed by this layer's own weight quantisation alone.
        end_to_end: Changed when all layers are quantised (input included).
        ties: Potentials of the trained network exactly on a rounding border.
        saturated: Counts at D.
    """

    module: str
    total: int = 0
    teacher_forced: int = 0
    end_to_end: int = 0
    ties: int = 0
    saturated: int = 0


@dataclass
class Measured:
    """All populations, and the result.

    Attributes:
        samples: How many.
        layers: Per population, in topological order.
        input_changed: Activations changed by input quantisation alone (0 for raw uint8).
        same_class: Samples whose class is the trained network's; None where the result is a map,
            of potentials or spikes at many positions, which has no class.
    """

    samples: int = 0
    layers: list[LayerChange] = field(default_factory=list)
    input_changed: int = 0
    same_class: int | None = 0

    @property
    def total(self) -> int:
        """Activations seen, all populations."""
        return sum(layer.total for layer in self.layers)

    def share(self, what: str) -> float:
        """A count of the layers, e.g. ``end_to_end``, as a share of all activations."""
        return float(sum(getattr(layer, what) for layer in self.layers)) / max(self.total, 1)


def measure(
    trained: ir.Model,
    integer: ir.Model,
    quantised: ir.Model,
    feeds: Mapping[str, Array],
    head: Head | None = None,
) -> Measured:
    """Compare the trained network with its quantised form on data.

    Args:
        trained: Float graph before quantise-input.
        integer: Float graph behind fold-scale: the same integers, input on its grid.
        quantised: Integer graph.
        feeds: Inputs under all their names, with the same number of samples.
        head: What the host makes of the graph's results, real values; the class is that of its own
            result. Without, of the first.
    """
    result = Measured(layers=[LayerChange(label(node)) for node in _fires(integer)])
    for batch in _batches(feeds, affordable(integer, _BATCH)):
        _add(result, trained, integer, quantised, batch, head)
    return result


def _batches(feeds: Mapping[str, Array], batch: int) -> Iterator[dict[str, Array]]:
    size = len(next(iter(feeds.values())))
    for start in range(0, size, batch):
        yield {name: x[start : start + batch] for name, x in feeds.items()}


def _fires(model: ir.Model) -> list[ir.Node]:
    return [node for node in model.graph if node.op_type in NEURONS]


def _names(model: ir.Model) -> list[str]:
    return [str(node.outputs[0].name) for node in _fires(model)]


def _add(
    result: Measured,
    trained: ir.Model,
    integer: ir.Model,
    quantised: ir.Model,
    feeds: Mapping[str, Array],
    head: Head | None,
) -> None:
    names = _names(integer)
    potentials = [str(n.inputs[0].name) for n in _fires(integer) if n.inputs[0] is not None]
    before = _counts(trained, feeds)
    floats = evaluate(integer, feeds, list(dict.fromkeys(names + potentials)))
    given = {name: floats[name] for name in names}
    forced = teacher_forced(quantised, feeds, given)
    outs = [str(value.name) for value in quantised.graph.outputs]
    free = evaluate(quantised, feeds, list(dict.fromkeys([*names, *outs])))
    for i, node in enumerate(_fires(integer)):
        layer, name, D = result.layers[i], names[i], attribute(node, "D")
        layer.total += before[i].size
        layer.teacher_forced += int((given[name] != forced[name]).sum())
        layer.end_to_end += int((before[i] != free[name]).sum())
        layer.ties += _ties(node, floats[potentials[i]], given[name])
        layer.saturated += int((free[name] == D).sum())
        result.input_changed += int((before[i] != given[name]).sum())
    reals = [*evaluate(trained, feeds).values()]
    scales = output_scales(quantised)
    found = [free[out] * scale for out, scale in zip(outs, scales, strict=True)]
    real, free_real = (x[0] if head is None else head(x) for x in (reals, found))
    same = _same_class(real, free_real, len(next(iter(feeds.values()))))
    result.same_class = None if same is None else (result.same_class or 0) + same
    result.samples += len(next(iter(feeds.values())))


def _counts(trained: ir.Model, feeds: Mapping[str, Array]) -> list[Array]:
    """Spike counts of the trained network: its activations times their norm."""
    values = evaluate(trained, feeds, _names(trained))
    fires = _fires(trained)
    return [np.rint(values[str(n.outputs[0].name)] * attribute(n, "norm")) for n in fires]


def _ties(node: ir.Node, u: Array, counts: Array) -> int:
    if node.op_type == "StatefulFire":
        return int(near_border(u, counts, carry_of(node), 0.0, later=False).sum())
    inside = u[(u > 0) & (u < attribute(node, "D"))]
    return int((inside - np.floor(inside) == 0.5).sum())


def _same_class(real: Array, found: Array, samples: int) -> int | None:
    if np.prod(real.shape[2:]) > 1:
        return None
    flat = (real.reshape(len(real), -1), found.reshape(len(found), -1))
    same = flat[0].argmax(1) == flat[1].argmax(1)
    return int(same.reshape(-1, samples).all(axis=0).sum())  # in every timestep, if many
