"""What neurons of a network's own code do, found by experiment.

A module without layers that returns as many spikes as it reads drives, and whose timesteps depend
on each other, is such a neuron. Drives that lead an empty membrane to its borders tell threshold,
levels and rounding; two timesteps tell what the membrane keeps and what a spike takes from it. What
is found is tried afterwards, as every description is (``trial``).
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import torch

from snncc.errors import Fault, Option, UnsupportedModelError, UsageError, Words
from snncc.frontends.descriptions import StatefulFireSpec
from snncc.frontends.leaves import Call, Leaf, qualified
from snncc.frontends.tidy import users_line
from snncc.frontends.trial import require_described
from snncc.frontends.untouched import untouched

__all__ = ["NotANeuronError", "found_text", "own_neurons", "probe"]

#: A neuron trains a few numbers at most: a decay, a threshold.
_PARAMETERS = 4
#: Of the drives on which one timestep is to show in the next, several of each size.
_SCALES = [2.0**power for power in range(-2, 11) for _ in range(4)]
#: Sizes of axes after samples that suffice for experiments.
_SMALL = 8
#: Levels that spike counts of uint8 can hold.
_LEVELS = 255
#: Memories on one drive, at most.
_MEMORIES = 8
#: How near a measured number must be to what a rule says.
_NEAR = 1e-3


class NotANeuronError(Exception):
    """A module fires in no way that is known here; says how.

    Attributes:
        fires: Whether it returns spikes at all.
    """

    def __init__(self, why: str, fires: bool = True) -> None:
        super().__init__(why)
        self.fires = fires


# -- which modules ---------------------------------------------------------------------------


@dataclass(frozen=True)
class _Candidate:
    path: str
    module: torch.nn.Module
    drive: torch.Tensor


def own_neurons(
    module: torch.nn.Module, leaves: Sequence[Leaf], example: torch.Tensor, probes: bool
) -> list[Leaf]:
    """Neurons with memory of the network's own code, of which no description is known.

    Args:
        module: A network in eval mode.
        leaves: Those with a description.
        example: An input that it accepts.
        probes: They are to be what experiments find.

    Raises:
        UnsupportedModelError: They are not to be, or some fire otherwise; each class is listed
            with what was found.
    """
    found: list[Leaf] = []
    faults: dict[type, Fault] = {}
    specs: dict[type, StatefulFireSpec] = {}
    for one in _candidates(module, leaves, example):
        kind = type(one.module)
        try:
            spec = probe(one.module, one.drive, len(example))
        except NotANeuronError as e:
            faults.setdefault(kind, _fault(one, *_unknown(str(e))))
            continue
        if spec is not None:
            found.append(Leaf(one.path, one.module, spec, qualified(kind), {}, is_found=True))
            if not probes and specs.setdefault(kind, spec) == spec:
                faults.setdefault(kind, _fault(one, *_found(kind.__qualname__, spec)))
            elif not probes:  # no description of the class fits all of them
                todo = Words(Option("leaves", "auto"), ", as they are not alike")
                faults[kind] = _fault(one, _FOUND, todo)
    if faults:
        what = "neurons of the network's own code are not known"
        raise UnsupportedModelError(what, list(faults.values()))
    return found


def _candidates(
    module: torch.nn.Module, leaves: Sequence[Leaf], example: torch.Tensor
) -> Iterator[_Candidate]:
    """Modules that may be neurons, the outermost of each."""
    known = {leaf.path for leaf in leaves}
    taken: list[str] = []
    drives: dict[str, torch.Tensor] = {}

    def note(path: str, given: tuple[Any, ...], out: Any) -> None:
        if len(given) == 1 and _are_alike(given[0], out):
            drives.setdefault(path, given[0].detach().clone())

    parts = {path: part for path, part in module.named_modules() if _may_fire(part, path, known)}
    if not parts:
        return
    with ExitStack() as hooks, torch.no_grad():
        for path, part in parts.items():
            made = part.register_forward_hook(lambda _, x, y, path=path: note(path, x, y))
            hooks.callback(made.remove)
        module(example)
    for path, part in parts.items():
        if path in drives and not any(path.startswith(f"{outer}.") for outer in taken):
            taken.append(path)
            yield _Candidate(path, part, drives[path])


def _are_alike(x: Any, y: Any) -> bool:
    both = isinstance(x, torch.Tensor) and isinstance(y, torch.Tensor)
    return both and x.shape == y.shape and x.dtype == y.dtype == torch.float32 and x.ndim > 1


def _may_fire(part: torch.nn.Module, path: str, known: set[str]) -> bool:
    """An author's module without layers, in which no neuron is known."""
    if not path or type(part).__module__.partition(".")[0] == "torch" or path in known:
        return False
    if any(one.startswith(f"{path}.") or path.startswith(f"{one}.") for one in known):
        return False
    return sum(p.numel() for p in part.parameters()) <= _PARAMETERS


def _fault(one: _Candidate, what: str, todo: str) -> Fault:
    kind = type(one.module)
    code = kind.forward.__code__
    source = users_line(f'File "{code.co_filename}", line {code.co_firstlineno}')
    return Fault(what, "", kind.__name__, one.path, source, todo)


def _unknown(why: str) -> tuple[str, str]:
    what = f"has a memory over timesteps, and is no neuron that is known here: {why}"
    return what, "an IF, LIF or I-LIF neuron"


_FOUND = "a neuron with memory; what to give is found by experiment, and tried on many drives"


def _found(name: str, spec: StatefulFireSpec) -> tuple[str, str]:
    """What experiments say, and what to give so that it is taken."""
    given = Option("leaves", {name: _fields(spec)})
    return _FOUND, Words(given, ", or ", Option("leaves", "auto"))


def _fields(spec: StatefulFireSpec) -> dict[str, Any]:
    """A description as it is given."""
    plain = StatefulFireSpec()
    level = "thresholds" if spec.thresholds else "threshold"
    needed = ("decay", "gain", level, "rule", "reset")
    return {n: v for n, v in vars(spec).items() if n in needed or v != getattr(plain, n)}


def found_text(leaves: Sequence[Leaf]) -> str:
    """What was found by experiment, for people: each kind of neuron once, as it would be given."""
    texts = [
        f"{type(one.module).__qualname__}={json.dumps(_fields(one.spec))}"
        for one in leaves
        if one.is_found and isinstance(one.spec, StatefulFireSpec)
    ]
    return "; ".join(dict.fromkeys(texts))


# -- experiments -----------------------------------------------------------------------------


def probe(module: torch.nn.Module, drive: torch.Tensor, samples: int) -> StatefulFireSpec | None:
    """What a module does, found by experiment and proved; None: it is no neuron with memory.

    Args:
        module: Not changed.
        drive: One that it accepts, float32.
        samples: The size of its batch, N.

    Raises:
        NotANeuronError: It has a memory over timesteps, and is no neuron that is known here.
    """
    why = ""
    for axes, T in _layouts(drive.shape, samples):
        try:
            trial = _Trial(module, drive, StatefulFireSpec(axes=axes, T=T))
            if not trial.remembers():
                continue
            specs = _measured(trial)
        except NotANeuronError as e:
            if e.fires or axes == "T,N":  # else channels may have been taken for timesteps
                why = why or str(e)
            continue
        except (UsageError, RuntimeError, ValueError, TypeError):
            continue
        for spec in specs:
            if not (shown := _disproof(module, drive, spec)):
                return spec
            why = why or shown
    if why:
        raise NotANeuronError(why)
    return None


def _layouts(shape: torch.Size, samples: int) -> Iterator[tuple[str, int]]:
    """Where timesteps may be among the axes of a drive."""
    if len(shape) > 1 and shape[1] == samples and shape[0] > 1:
        yield "T,N", 0
    if len(shape) > 2 and shape[0] == samples and shape[1] > 1:
        yield "N,T", 0
    if shape[0] % samples == 0 and shape[0] > samples:
        yield "T*N", shape[0] // samples
        yield "N*T", shape[0] // samples


def _disproof(module: torch.nn.Module, drive: torch.Tensor, spec: StatefulFireSpec) -> str:
    """A drive that shows that a description is not the module's; empty if there is none."""
    leaf = Leaf("", module, spec, qualified(type(module)), {})
    call = Call(leaf, drive, torch.zeros_like(drive))
    try:
        require_described([leaf], [call])
    except UnsupportedModelError as e:
        return str(e.faults[0].what)
    return ""


class _Trial:
    """A module whose timesteps are taken to be in one place, to be driven element by element.

    Args:
        module: Copied for each run, so that nothing is left in it.
        drive: One that it accepts.
        layout: Where timesteps are.
    """

    def __init__(
        self, module: torch.nn.Module, drive: torch.Tensor, layout: StatefulFireSpec
    ) -> None:
        self.module, self.layout = module, layout
        whole = layout.over_time(drive).shape
        small = torch.Size([*whole[:2], *(min(size, _SMALL) for size in whole[2:])])
        self.shape = small if self._accepts(small) else whole
        self.T, self.room = self.shape[0], self.shape[1:].numel()

    def _accepts(self, shape: torch.Size) -> bool:
        try:
            with torch.no_grad(), untouched(self.module):
                out = copy.deepcopy(self.module)(self.layout.for_module(torch.zeros(shape)))
        except Exception:  # authors raise anything on shapes that they do not expect
            return False
        return self.layout.over_time(out).shape == shape

    def outputs(self, drives: torch.Tensor) -> torch.Tensor:
        """What it returns, [T, Q], of drives [t, Q] in the first timesteps and 0 in later ones."""
        x = torch.zeros(self.T, self.room)
        count = drives.shape[1]
        x[: len(drives)] = drives[:, torch.arange(self.room) % count]
        with torch.no_grad(), untouched(self.module):
            out = copy.deepcopy(self.module)(self.layout.for_module(x.view(self.shape)))
        return self.layout.over_time(out).reshape(self.T, -1)[:, :count]

    def remembers(self) -> bool:
        """Whether a timestep depends on earlier ones of its sample, and on nothing else."""
        generator, depends = torch.Generator().manual_seed(0), False
        for scale in _SCALES:
            x = scale * torch.rand(self.T, self.room, generator=generator)
            later, other = x.clone(), x.clone()
            later[-1], other[0, 1::2] = 0, 0
            before, changed, beside = map(self.outputs, (x, later, other))
            if not torch.equal(before[:-1], changed[:-1]):
                return False
            if not torch.equal(before[:, ::2], beside[:, ::2]):
                return False
            if depends := not torch.equal(before[1:], beside[1:]):
                break
        return depends

    def border(self, before: Sequence[float], least: float, low: float, high: float) -> float:
        """The smallest drive, after these, that fires ``least`` or more; of float32.

        Raises:
            NotANeuronError: ``low`` fires so much already, or ``high`` does not.
        """
        steps = min(self.room, 512)
        while True:
            last = torch.linspace(low, high, steps, dtype=torch.float64).float()
            drives = torch.cat([torch.tensor(before).float().view(-1, 1).expand(-1, steps),
                                last.unsqueeze(0)])  # fmt: skip
            fires = self.outputs(drives)[len(before)] >= least
            if not fires[-1] or fires[0]:
                raise NotANeuronError("what fires does not grow with the drive")
            at = int(fires.int().argmax())
            low, high = float(last[at - 1]), float(last[at])
            if float(torch.nextafter(last[at - 1], last[at])) == high or steps < 2:
                return high


def _measured(trial: _Trial) -> list[StatefulFireSpec]:
    """What two timesteps tell of a neuron: in the simplest numbers, and as measured."""
    unit, top, near = _levels(trial)
    first = trial.border([], 0.5 * unit, 0.0, near)
    kept = (first - trial.border([0.9 * first], 0.5 * unit, -near, near)) / (0.9 * first)
    decay = _tidy(kept)
    if abs(decay) < _NEAR:
        raise NotANeuronError("its timesteps are coupled by something else than a membrane")
    found: list[StatefulFireSpec] = []
    why = ""
    for borders, rule, D in _rules(trial, unit, top, first):
        step = borders[0]
        room = borders[1] - first if len(borders) > 1 else step
        fired = _tidy(first + 0.3 * min(step, room))
        second = trial.border([fired], 0.5 * unit, -4 * near, 4 * near)
        try:
            reset = _reset(first, step, decay, fired, second)
        except NotANeuronError as e:
            why = why or str(e)
            continue
        plain = replace(trial.layout, D=D, decay=decay, gain=1.0, norm=_tidy(1 / unit), rule=rule,
                        reset=reset)  # fmt: skip
        simple = _scaled(plain, [_tidy(border) for border in borders])
        found.append(simple)
        if top == 1:
            found.append(replace(simple, decay=kept, gain=1.0, threshold=first, rule=">="))
        if top == 1 and reset == "soft":  # alike but after drives of two thresholds
            found.append(replace(simple, reset="raised"))
    if not found:
        raise NotANeuronError(why)
    return found


def _scaled(found: StatefulFireSpec, borders: Sequence[float]) -> StatefulFireSpec:
    """With thresholds in drives, or in what remains of them where that is the plainer number."""
    assert isinstance(found.decay, float)  # what is found is of all neurons
    gain = _tidy(1 - found.decay)
    if gain > 0 and _digits(borders[0] * gain) < _digits(borders[0]):
        found, borders = replace(found, gain=gain), [_tidy(border * gain) for border in borders]
    if len(borders) == 1:
        return replace(found, threshold=borders[0])
    return replace(found, thresholds=tuple(borders))


def _levels(trial: _Trial) -> tuple[float, int, float]:
    """What one spike returns, how many there are at most, and a drive that surely fires."""
    drives = torch.cat([torch.logspace(-8, 12, 241, base=2.0), torch.tensor([2.0**16])])
    found = torch.cat(
        [trial.outputs(part.unsqueeze(0))[0] for part in torch.split(drives, trial.room)]
    )
    if not (fired := found[found > 0]).numel() or found.min() < 0:
        what = "it returns negative values" if found.min() < 0 else "it never fires"
        raise NotANeuronError(what, fires=False)
    unit = float(fired.min())
    counts = fired / unit
    if (counts - counts.round()).abs().max() > _NEAR or counts.max() > _LEVELS:
        what = f"it returns real values, as {float(fired.median()):.6g}"
        raise NotANeuronError(what, fires=False)
    return unit, round(float(counts.max())), float(drives[found > 0][0])


def _rules(
    trial: _Trial, unit: float, top: int, first: float
) -> Iterator[tuple[list[float], str, int]]:
    """The drives of its thresholds, how it compares or rounds, and D: all that may be.

    Levels of one membrane are a threshold apart; the first is half of that where they are rounded,
    and all of it where thresholds are counted. Any may be those of several memories, each of which
    fires once.
    """
    is_inclusive = _is_written(first)
    second = trial.border([], 1.5 * unit, first, 8 * first) if top > 1 else first
    step = second - first
    is_half, is_whole = (abs(first - step * part) <= _NEAR * step for part in (0.5, 1.0))
    if top > 1 and is_half:
        yield [_tidy(step)], ("half-up" if is_inclusive else "half-even"), top
    if top > 1 and is_whole and is_inclusive:
        yield [_tidy(step)], ">=", top
    if top <= _MEMORIES:
        yield _thresholds(trial, unit, [first, second][:top], top)
    elif not (is_half or (is_whole and is_inclusive)):
        raise NotANeuronError(
            f"its first level begins at {first:.6g}, others {step:.6g} apart; levels that begin "
            "half a step before whole ones are rounding, at whole ones thresholds"
        )


def _thresholds(
    trial: _Trial, unit: float, borders: list[float], top: int
) -> tuple[list[float], str, int]:
    """Those of as many memories, and how they compare."""
    while len(borders) < top:
        borders.append(trial.border([], (len(borders) + 0.5) * unit, borders[-1], 8 * borders[-1]))
    if all(map(_is_written, borders)):
        return borders, ">=", 1
    return [_below(border) for border in borders], ">", 1


def _is_written(border: float) -> bool:
    """Whether somebody writes this number rather than the one before it."""
    return _digits(border) <= _digits(_below(border))


def _below(number: float) -> float:
    return float(torch.nextafter(torch.tensor(number), torch.tensor(-math.inf)))


def _reset(first: float, step: float, decay: float, fired: float, second: float) -> str:
    """What a spike takes from the membrane, by the drive that fires after one."""
    expected = {
        "hard": first,
        "soft": first - decay * (fired - step),
        "delayed": first - decay * fired + step,
        "none": first - decay * fired,
    }
    reset = min(expected, key=lambda kind: abs(expected[kind] - second))
    if abs(expected[reset] - second) > _NEAR * step:
        words = {"none": "no"}
        known = ", ".join(f"{n:.6g} ({words.get(k, k)} reset)" for k, n in expected.items())
        raise NotANeuronError(
            f"after a drive of {fired:.6g}, which fires, one of {second:.6g} fires again, "
            f"and none of {known}"
        )
    return reset


def _tidy(number: float) -> float:
    """The simplest number that a measured one may be."""
    near = 4e-7 * max(abs(number), 1e-3)
    fraction = Fraction(number).limit_denominator(64)
    if abs(fraction - number) < near:
        return float(fraction)
    for digits in range(1, 5):  # with more, any number is near one
        if abs(round(number, digits) - number) < near:
            return round(number, digits)
    return number


def _digits(number: float) -> int:
    """How long a number of float32 is when it is written."""
    return len(str(torch.tensor(number).numpy()))
