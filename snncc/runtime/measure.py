"""What quantisation changes, measured on data: the figures behind the report.

The network is compared with the trained network in float64: where float32 does not decide a
rounding, its own errors grow through a network as a change of ours would. What float32 changes is
counted apart. In float64 a file is computed as it was given, a module by its imported graph, which
import has compared with the module.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from snncc.backends.base import Progress
from snncc.errors import Fault, Option, UnsupportedModelError, VerificationError, Words
from snncc.ir.float64 import in_float64
from snncc.ir.graphs import attribute, label, nodes
from snncc.ir.lineage import Lineage
from snncc.ir.names import TRAINED
from snncc.ir.neurons import ties
from snncc.ir.ops import NEURONS, traits
from snncc.ir.oracle import affordable, evaluate, teacher_forced
from snncc.ir.results import results_of
from snncc.passes.fold.fold_scale import output_scales

__all__ = ["LayerChange", "Measured", "Trained", "measure", "require_spikes"]

Array = npt.NDArray[Any]
Head = Callable[[Sequence[Array]], Array]
Heads = Mapping[str, Head]
Meaning = Callable[[Mapping[str, Array]], dict[str, Array]]
_BATCH = 64


class Trained(Protocol):
    """The trained network: in float32 as its own framework runs it, and in float64."""

    @property
    def words(self) -> str:
        """What computes its values, for people."""

    def values(
        self, feeds: Mapping[str, Array], wanted: Collection[str] | None = None
    ) -> dict[str, Array]:
        """Its values in float32, by the names that lineages begin with."""

    @property
    def wide_names(self) -> Collection[str]:
        """The values that are known in float64."""

    def wide_values(self, feeds: Mapping[str, Array], wanted: Collection[str]) -> dict[str, Array]:
        """These, of inputs of float64."""


@dataclass
class LayerChange:
    """One population on the calibration data.

    Attributes:
        module: Module path.
        total: Activations compared with the trained network.
        teacher_forced: Changed by this layer's own weight quantisation alone.
        end_to_end: Changed when all layers are quantised (input included).
        ties: Potentials of the trained network exactly on a rounding border.
        saturated: Counts at D.
        spikes: All counts.
        trained_spikes: Those of the trained network.
    """

    module: str
    total: int = 0
    teacher_forced: int = 0
    end_to_end: int = 0
    ties: int = 0
    saturated: int = 0
    spikes: int = 0
    trained_spikes: int = 0


@dataclass
class Measured:
    """All populations, and the result.

    Attributes:
        against: What ran the trained network in float32; what is compared with is float64.
        samples: How many.
        layers: Per population, in topological order.
        input_changed: Activations changed by input quantisation alone; None where the input is
            taken as the integers it is.
        float32_changed: Activations that the trained network's own float32 has otherwise.
        float32_classes: Samples that it puts into another class; None as ``same_class``.
        same_class: Samples whose class is the trained network's, by the first result that is no
            map; None where all are maps, of potentials or spikes at many positions, which have no
            class.
    """

    against: str = ""
    samples: int = 0
    layers: list[LayerChange] = field(default_factory=list)
    input_changed: int | None = None
    float32_changed: int = 0
    float32_classes: int | None = 0
    same_class: int | None = 0

    @property
    def total(self) -> int:
        """Activations compared, all populations."""
        return sum(layer.total for layer in self.layers)

    def share(self, what: str) -> float:
        """A count of the layers, e.g. ``end_to_end``, as a share of all activations."""
        return float(sum(getattr(layer, what) for layer in self.layers)) / max(self.total, 1)


def measure(
    trained: Trained,
    integer: ir.Model,
    quantised: ir.Model,
    feeds: Mapping[str, Array],
    heads: Heads | None = None,
    progress: Progress | None = None,
    is_real: bool = False,
    exactly: Meaning | None = None,
) -> Measured:
    """Compare the network's quantised form with the trained network on data.

    Args:
        trained: The network itself.
        integer: Float graph after fold-scale: the same integers, input on its grid.
        quantised: Integer graph; its lineage leads back to the trained network.
        feeds: Inputs under all their names, with the same number of samples.
        heads: By result, what the host makes of the real values that it is made of.
        progress: Called with the number of samples done.
        is_real: The input is real, and quantised by our choice: its change is measured as well.
        exactly: What a batch of feeds stands for, float64, where float32 does not hold it: a pixel
            / 255 is on no border of a neuron whose border it is. Without, it is what float32 has.

    Raises:
        VerificationError: A population cannot be compared, as nobody knows what it comes from.
    """
    work = _Work(trained, integer, quantised, heads or {}, is_real, exactly)
    for batch in _batches(feeds, affordable(integer, _BATCH)):
        work.add(batch)
        if progress is not None:
            progress(_size(batch))
    return work.result


def require_spikes(measured: Measured, squeezed: Sequence[Mapping[str, Any]]) -> None:
    """Refuse a network with a layer that lost all its spikes, and say why it did.

    Args:
        measured: What was compared.
        squeezed: Layers with fewer bits than asked for (``passes.quantise_weights.squeezed``).

    Raises:
        UnsupportedModelError: Of layers that fire in the trained network and never in the compiled
            one; all are listed.
    """
    lost = [layer for layer in measured.layers if layer.trained_spikes and not layer.spikes]
    reasons = {
        layer["module"]: f"'{layer['by']}' leaves its weights too few bits" for layer in squeezed
    }
    faults = [
        Fault(
            f"never fires in {measured.samples} samples, the trained network {n.trained_spikes:,} "
            f"times: {reasons.get(n.module, _why_silent(n))}",
            kind="layer",
            module=n.module,
            todo=Words("more ", Option("weight_bits"), ", or samples in which it fires more"),
        )
        for n in lost
    ]
    if faults:
        raise UnsupportedModelError("with these weight bits layers fall silent", faults)


def _why_silent(layer: LayerChange) -> str:
    own = "what its weights lose to rounding decides"
    return own if layer.teacher_forced else "layers before it no longer drive it"


def _batches(feeds: Mapping[str, Array], batch: int) -> Iterator[dict[str, Array]]:
    size = _size(feeds)
    for start in range(0, size, batch):
        yield {name: x[start : start + batch] for name, x in feeds.items()}


def _size(feeds: Mapping[str, Array]) -> int:
    return len(next(iter(feeds.values())))


def _name(value: ir.Value | None) -> str:
    return "" if value is None else str(value.name)


class _Own(Container[str]):
    """All names of the trained network itself."""

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.startswith(TRAINED)


class _Reference:
    """Counts and results of the trained network, under the names of the compiled one."""

    def __init__(self, lineage: Lineage, values: Mapping[str, Array]) -> None:
        self.lineage, self.values = lineage, values

    def counts(self, name: str) -> Array:
        """Spike counts of a population; in float32 a norm may have left them beside integers."""
        return np.rint(self.lineage.trace(name, self.values))

    def real(self, name: str, scale: float) -> Array:
        """A result in units of the network."""
        return self.lineage.trace(name, self.values) * scale


class _Work:
    """The comparison under way.

    Attributes:
        compared: Of each population, the value that is compared: its counts, or the maximum over
            them where the trained network pools before it fires.
    """

    def __init__(
        self,
        trained: Trained,
        integer: ir.Model,
        quantised: ir.Model,
        heads: Heads,
        is_real: bool,
        exactly: Meaning | None,
    ) -> None:
        self.exactly = exactly or (lambda _: {})
        self.trained, self.integer, self.quantised, self.heads = trained, integer, quantised, heads
        self.lineage = Lineage.of(quantised)
        self.wide_integer = in_float64(integer) if is_real else None
        self.fires = list(nodes(integer, *NEURONS))
        known = trained.wide_names
        self.compared = [self._compared(node.outputs[0], known) for node in self.fires]
        self.outs = [_name(v) for v in integer.graph.outputs]
        names = [*self.compared, *self.outs]
        self.wide_names = self._origins(names, known)
        self.names = self._origins(names, _Own())
        self.result = Measured(
            against=trained.words,
            layers=[LayerChange(label(node)) for node in self.fires],
            input_changed=0 if is_real else None,
        )

    def _compared(self, value: ir.Value, known: Container[str]) -> str:
        if self.lineage.origins(_name(value), known):
            return _name(value)
        pools = [user for user, _ in value.uses() if traits(user).takes_maximum]
        if not pools:
            raise VerificationError(f"measure: '{value.name}' is not known to the trained network")
        return self._compared(pools[0].outputs[0], known)

    def _origins(self, names: Collection[str], known: Container[str]) -> list[str]:
        found = [self.lineage.origins(name, known) or [] for name in names]
        return list(dict.fromkeys(origin for origins in found for origin in origins))

    def add(self, feeds: Mapping[str, Array]) -> None:
        """Compare one batch."""
        wide = {k: v.astype(np.float64) for k, v in feeds.items() if v.dtype == np.float32}
        wide |= self.exactly(feeds)
        double = _Reference(self.lineage, self.trained.wide_values(wide, self.wide_names))
        single = _Reference(self.lineage, self.trained.values(feeds, self.names))
        given = {name: double.counts(name) for name in self.compared}
        outs = [_name(v) for v in self.quantised.graph.outputs]
        forced = teacher_forced(self.quantised, feeds, given)
        wanted = list(dict.fromkeys([*self.compared, *map(_name, self._fired()), *outs]))
        free = evaluate(self.quantised, feeds, wanted)
        for layer, name, node in zip(self.result.layers, self.compared, self.fires, strict=True):
            counts = free[_name(node.outputs[0])]
            layer.total += given[name].size
            layer.teacher_forced += int((given[name] != forced[name]).sum())
            layer.end_to_end += int((given[name] != free[name]).sum())
            layer.saturated += int((counts == attribute(node, "D")).sum())
            layer.spikes += int(free[name].sum(dtype=np.int64))
            layer.trained_spikes += int(given[name].sum())
            self.result.float32_changed += int((given[name] != single.counts(name)).sum())
        self._add_ties(feeds, given)
        self._add_input(wide, given)
        self._add_classes(double, single, [free[out] for out in outs], _size(feeds))

    def _scores(self, outs: Sequence[Array]) -> Array:
        """The result that has a class, of the real values of all outputs: the first that is no map.

        Where all are maps, it is the first.
        """
        named = results_of(self.integer)
        found = [
            self.heads[name]([outs[p] for p in places]) if name in self.heads else outs[places[0]]
            for name, places in named.items()
        ]
        return next((result for result in found if result.ndim == 2), found[0])

    def _fired(self) -> list[ir.Value]:
        return [node.outputs[0] for node in self.fires]

    def _add_ties(self, feeds: Mapping[str, Array], given: Mapping[str, Array]) -> None:
        """Drives on a border, as float32 has them, of the trained network's counts."""
        drives = list(dict.fromkeys(_name(node.inputs[0]) for node in self.fires))
        inner = [u for u in drives if u not in {_name(v) for v in self.integer.graph.inputs}]
        found = teacher_forced(self.integer, feeds, given, inner)
        for layer, node in zip(self.result.layers, self.fires, strict=True):
            u, counts = found.get(_name(node.inputs[0])), given.get(_name(node.outputs[0]))
            if u is not None:
                layer.ties += ties(node, u, counts)

    def _add_input(self, wide: Mapping[str, Array], given: Mapping[str, Array]) -> None:
        if self.wide_integer is None or self.result.input_changed is None:
            return
        found = evaluate(self.wide_integer, wide, list(dict.fromkeys(self.compared)))
        self.result.input_changed += sum(int((given[n] != found[n]).sum()) for n in self.compared)

    def _add_classes(
        self, double: _Reference, single: _Reference, outs: Sequence[Array], samples: int
    ) -> None:
        scales = output_scales(self.integer)
        pairs = list(zip(self.outs, scales, strict=True))
        units = output_scales(self.quantised)
        found = [
            [double.real(name, scale) for name, scale in pairs],
            [out * unit for out, unit in zip(outs, units, strict=True)],
            [single.real(name, scale) for name, scale in pairs],
        ]
        real, ours, float32 = map(self._scores, found)
        self.result.samples += samples
        self.result.same_class = _sum(self.result.same_class, _same_class(real, ours, samples))
        same = _same_class(real, float32, samples)
        others = None if same is None else samples - same
        self.result.float32_classes = _sum(self.result.float32_classes, others)


def _sum(total: int | None, more: int | None) -> int | None:
    return None if total is None or more is None else total + more


def _same_class(real: Array, found: Array, samples: int) -> int | None:
    """Samples with the same class in every timestep; None for results that are maps."""
    if np.prod(real.shape[2:]) > 1:
        return None
    flat = (real.reshape(len(real), -1), found.reshape(len(found), -1))
    same = flat[0].argmax(1) == flat[1].argmax(1)
    return int(same.reshape(-1, samples).all(axis=0).sum())
