"""How authors describe neurons of their own: numbers and words, checked as they are written."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from snncc.errors import UsageError

__all__ = ["Decay", "IntegerFireSpec", "Spec", "StatefulFireSpec", "StepSpec"]

#: What is left of a membrane after a timestep: of all neurons alike, or nested tuples of each.
Decay = float | tuple[Any, ...]

_MAX_D = 255  # spike counts travel as uint8
_ROUNDINGS = ("half-even", "half-up")
_COMPARES = (">=", ">")
_RESETS = ("hard", "soft", "delayed", "raised", "none")
_AXES = ("T,N", "N,T", "T*N", "N*T")


@dataclass(frozen=True)
class IntegerFireSpec:
    """What ``ai.snncc.IntegerFire`` needs to know: levels, value of a spike, rounding rule.

    Numbers may be tensors of one value.

    Raises:
        UsageError: A field is not one of what it may be.
    """

    D: int
    norm: float = 1.0
    rounding: str = "half-even"

    def __post_init__(self) -> None:
        _take(self, "D", _levels(self.D))
        _take(self, "norm", _positive("norm", self.norm))
        _require_word("rounding", self.rounding, _ROUNDINGS)


@dataclass(frozen=True)
class StatefulFireSpec:
    """What ``ai.snncc.StatefulFire`` needs to know; the module reads [T, N, ...].

    H = decay * V + gain * I; rule ``>=``: as many spikes as H reaches thresholds, ``>`` (D = 1),
    ``half-even`` or ``half-up``; reset ``soft``, ``hard``, ``delayed``: V = H, and the next H is
    lowered by s * threshold; ``raised`` (D = 1): as ``soft``, but while V itself would fire, H must
    reach one threshold more; or ``none``: V = H. I is the drive, or with ``current`` one that
    remembers: I = current * I + x. ``state`` names the attribute in which the module keeps V
    between calls, if it does.

    Several ``thresholds`` are those of as many memories on one drive, whose spikes are added; they
    take the place of ``threshold``, and D is that of each.

    A module that reads something else than [T, N, ...] says so: ``axes`` is ``N,T`` for
    [N, T, ...], ``T*N`` or ``N*T`` where one axis has both, and then ``T`` says how many timesteps
    these are. One that returns (spikes, states) has ``hands_on``: nobody may read these states.

    Numbers may be tensors of one value. Threshold, gain, ``decay`` and ``current`` may be ones of
    several, or nested lists, that broadcast against what the module reads in a timestep, as one for
    each channel does. ``units`` are thresholds over gains then, by which drives are divided, and
    threshold and gain are 1; decays are nested tuples.

    Raises:
        UsageError: A field is not one of what it may be.
    """

    D: int = 1
    decay: Decay = 0.5
    gain: float = 0.5
    threshold: float = 1.0
    norm: float = 1.0
    rule: str = ">="
    reset: str = "hard"
    state: str = ""
    thresholds: tuple[float, ...] = field(default=(), repr=False)
    axes: str = field(default="T,N", repr=False)
    T: int = field(default=0, repr=False)
    current: Decay = field(default=0.0, repr=False)
    hands_on: bool = field(default=False, repr=False)
    units: torch.Tensor | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _take(self, "D", _levels(self.D))
        _take(self, "decay", _decay("decay", self.decay))
        _take(self, "current", _decay("current", self.current))
        if any(map(_is_several, (self.threshold, self.gain))):
            self._take_units()
        _take(self, "gain", _number("gain", self.gain))
        _take(self, "threshold", _positive("threshold", self.threshold))
        _take(self, "thresholds", _thresholds(self.thresholds))
        _take(self, "norm", _positive("norm", self.norm))
        _require_word("rule", self.rule, _COMPARES + _ROUNDINGS)
        _require_word("reset", self.reset, _RESETS)
        if self.gain == 0:
            raise UsageError("gain is 0, so that nothing reaches the neuron; give another number")
        if self.rule == ">" and self.D != 1:
            todo = "D=1, or rule='>=', 'half-even' or 'half-up'"
            raise UsageError(f"rule {self.rule!r} fires one spike, but D is {self.D}; give {todo}")
        if self.reset == "raised" and (self.D > 1 or self.rule not in _COMPARES):
            raise UsageError("reset 'raised' goes with D=1 and rule '>=' or '>'; give one of these")
        _require_name(self.state)
        _require_word("axes", self.axes, _AXES)
        if "*" in self.axes and self.T < 1:
            raise UsageError(f"axes is {self.axes!r}, so that T must be given; give T=4 or so")

    def _take_units(self) -> None:
        """Drives are given in thresholds and gains, where there are several of either."""
        lowest = min(_each(self.threshold).flatten().tolist())
        _positive("threshold", lowest)
        if bool((_each(self.gain) == 0).any()):
            raise UsageError("gain is 0 for some neurons, so that nothing reaches them")
        wide = _each(self.threshold).double() / _each(self.gain).double()
        _take(self, "units", wide.float())
        _take(self, "threshold", 1.0)
        _take(self, "gain", 1.0)

    def __str__(self) -> str:
        """Without what goes without saying: one threshold, [T, N, ...], and no current."""
        plain = StatefulFireSpec()
        kept = {name: getattr(self, name) for name in ("thresholds", "current", "axes", "T")}
        said = [f"{n}={value!r}" for n, value in kept.items() if value != getattr(plain, n)]
        return f"{', '.join([repr(self)[:-1], *said])})"

    @property
    def parts(self) -> tuple[StatefulFireSpec, ...]:
        """The memories whose spikes are added: of most neurons one."""
        return tuple(replace(self, threshold=t, thresholds=()) for t in self.thresholds) or (self,)

    @property
    def top(self) -> int:
        """The largest count of a timestep."""
        return self.D * len(self.parts)

    def in_thresholds(self, x: torch.Tensor) -> torch.Tensor:
        """What the module reads, in units of its thresholds if there are several."""
        return x if self.units is None else x / self.units

    def from_thresholds(self, x: torch.Tensor) -> torch.Tensor:
        """What ``in_thresholds`` makes ``x`` of."""
        return x if self.units is None else x * self.units

    def over_time(self, x: torch.Tensor) -> torch.Tensor:
        """What the module reads or returns, as [T, N, ...]."""
        if self.axes == "T*N":
            return x.reshape(self.T, -1, *x.shape[1:])
        if self.axes == "N*T":
            x = x.reshape(-1, self.T, *x.shape[1:])
        return x if self.axes == "T,N" else x.transpose(0, 1)

    def for_module(self, x: torch.Tensor) -> torch.Tensor:
        """[T, N, ...] as the module reads it."""
        turned = x.transpose(0, 1) if self.axes.startswith("N") else x
        return turned.flatten(0, 1) if "*" in self.axes else turned

    @property
    def has_own_decays(self) -> bool:
        """Whether neurons of a layer have decays of their own."""
        return any(isinstance(value, tuple) for value in (self.decay, self.current))

    @property
    def varies(self) -> bool:
        """Whether neurons of a layer have any numbers of their own."""
        return self.has_own_decays or self.units is not None

    def require_channels(self, sample: Sequence[int]) -> None:
        """Numbers that neurons have of their own are those of channels.

        Args:
            sample: See ``numbers``.

        Raises:
            UsageError: They differ within one.
        """
        self.numbers(sample)
        if self.units is not None:
            _by_channel("threshold", self.units.tolist(), sample)

    def numbers(self, sample: Sequence[int]) -> dict[str, Any]:
        """What the operator needs to know: all but where the module's timesteps are.

        Args:
            sample: Sizes of what the module reads in a timestep without the samples, [C, ...].

        Raises:
            UsageError: Decays differ within a channel.
        """
        apart = ("state", "thresholds", "axes", "T", "hands_on", "units")
        found = {key: value for key, value in vars(self).items() if key not in apart}
        return found | {
            name: _by_channel(name, found[name], sample) for name in ("decay", "current")
        }


@dataclass(frozen=True)
class StepSpec:
    """A neuron with memory that is called once per timestep, ``spikes, membrane = m(x, membrane)``.

    Attributes:
        neuron: What it does in a timestep.
        alone: Calls return spikes alone; the membrane stays in the module.
        state: Name of the attribute in which the module keeps it; of several, with a comma
            between, the membrane is the last. None: it begins anew where a call is given none.
        states: How many tensors calls are given and return beside drive and spikes, the membrane
            last; none of them with ``alone``.

    Raises:
        UsageError: A field is not one of what it may be.
    """

    neuron: StatefulFireSpec
    alone: bool = False
    state: str = "mem"
    states: int = field(default=1, repr=False)

    def __str__(self) -> str:
        """With all that its neuron has."""
        return repr(self).replace(repr(self.neuron), str(self.neuron))

    def __post_init__(self) -> None:
        if not isinstance(self.neuron, StatefulFireSpec):
            what = f"StepSpec's neuron is {type(self.neuron).__name__}"
            raise UsageError(f"{what}; give a StatefulFireSpec, of what it does in a timestep")
        if self.neuron.thresholds:
            what = "several thresholds are several memories, which no call hands on"
            raise UsageError(f"{what}; give a module that reads all timesteps at once")
        _require_name(self.state)


Spec = IntegerFireSpec | StatefulFireSpec | StepSpec


def _take(spec: Any, name: str, value: Any) -> None:
    """A field as the number that it stands for: specs are read off attributes of any kind."""
    object.__setattr__(spec, name, value)


def _is_several(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and bool((value != value.flatten()[:1]).any())


def _each(value: Any) -> torch.Tensor:
    """One value, or those of several neurons."""
    return torch.as_tensor(value).detach().clone()


def _decay(name: str, value: Any) -> Decay:
    """One for all neurons, or nested tuples of several."""
    if isinstance(value, (list, tuple)):
        try:
            value = torch.tensor(value, dtype=torch.float64)
        except (TypeError, ValueError) as e:
            raise UsageError(f"{name} is {value!r}; give a number, or one for each channel") from e
    if not _is_several(value):
        return _number(name, value)
    if not bool(value.isfinite().all()):
        raise UsageError(f"{name} has values that are not finite; give finite numbers")
    found: tuple[Any, ...] = _nested(value.detach().tolist())
    return found


def _nested(value: Any) -> Any:
    return tuple(map(_nested, value)) if isinstance(value, list) else value


def _by_channel(name: str, value: Any, sample: Sequence[int]) -> list[float]:
    """One value, or one of each channel."""
    each = np.array(value)  # while a module is exported, PyTorch would note what it computes
    while each.ndim > len(sample) and len(each) == 1:
        each = each[0]
    if each.ndim == 0:
        return [float(each)]
    sizes = [1] * (len(sample) - each.ndim) + [*each.shape]
    if each.ndim > len(sample) or sizes[0] != sample[0] or any(n != 1 for n in sizes[1:]):
        raise UsageError(
            f"{name} has the shape {[*each.shape]}, for {[*sample]} in a timestep of a sample; one "
            f"for all neurons of a layer, or of each channel, becomes spikes"
        )
    found: list[float] = each.flatten().tolist()
    return found


def _number(name: str, value: Any) -> float:
    try:
        is_tensor = isinstance(value, torch.Tensor)
        values = sorted({float(v) for v in (value.detach().flatten() if is_tensor else [value])})
    except (TypeError, ValueError, RuntimeError):
        values = []
    if len(values) > 1:
        span = f"{len(values)} values from {values[0]:.6g} to {values[-1]:.6g}"
        raise UsageError(f"{name} has {span}; one {name} for all neurons of a layer becomes spikes")
    if not values or not math.isfinite(values[0]):
        raise UsageError(f"{name} is {value!r}; give a finite number")
    return values[0]


def _positive(name: str, value: Any) -> float:
    number = _number(name, value)
    if number <= 0:
        raise UsageError(f"{name} is {number:g}; give a number above 0")
    return number


def _thresholds(value: Any) -> tuple[float, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise UsageError(f"thresholds is {value!r}; give a list of numbers above 0")
    return tuple(_positive("thresholds", one) for one in value)


def _levels(value: Any) -> int:
    number = _number("D", value)
    if not number.is_integer() or not 1 <= number <= _MAX_D:
        raise UsageError(f"D is {number:g}; give an integer from 1 to {_MAX_D}")
    return int(number)


def _require_word(name: str, value: Any, words: tuple[str, ...]) -> None:
    if value not in words:
        known = ", ".join(map(repr, words[:-1]))
        raise UsageError(f"{name} is {value!r}; give {known} or {words[-1]!r}")


def _require_name(state: Any) -> None:
    if not isinstance(state, str):
        raise UsageError(f"state is {state!r}; give the name of the attribute that holds V")
