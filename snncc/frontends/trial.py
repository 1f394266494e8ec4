"""Neurons are tried before their descriptions are believed.

What samples of a data set reach is a part of what a neuron does. So each one is run on drives that
cover all its levels: every border with both its neighbours in float32, below 0 and beyond D, and a
thousand times that, where membranes may be limited; with a
memory, on many sequences of such drives. The description is evaluated in float32 and in float64.
Where these agree, and either all is exact or no border is near, the module must fire just that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from snncc.errors import Fault, Option, UnsupportedModelError, Words
from snncc.frontends.described import MARGIN, fired
from snncc.frontends.descriptions import IntegerFireSpec, StatefulFireSpec, StepSpec
from snncc.frontends.leaves import Call, Leaf, forget, qualified
from snncc.frontends.untouched import untouched
from snncc.nn.grid import GridStateful

__all__ = ["require_described"]

#: Timesteps of neurons that are called once for each.
_STEPS = 8
#: Sequences of drives for neurons with memory, at least, and drives in all of them.
_SEQUENCES, _DRIVES = 1024, 10_000
#: Every channel meets drives as often as this for each of them, by chance ...
_TIMES = 4
#: ... unless that are more numbers in all.
_NUMBERS = 2**18
#: Calls of a neuron that accepts no larger batch, or as many as meet all drives once.
_CALLS = 64


def require_described(leaves: Sequence[Leaf], calls: Sequence[Call]) -> None:
    """Every leaf fires what its description says, on drives that cover all its levels.

    A neuron on the compiler's grid is not tried: it reads whole numbers of that grid, and between
    them it is no neuron of the description. Import compares it.

    Args:
        leaves: Of one network. They are as before afterwards.
        calls: Theirs in a run of it, which tell the shapes that they accept. What is never called
            is no part of the network.

    Raises:
        UnsupportedModelError: Some fire otherwise; all are listed, each with a drive.
    """
    faults = []
    for leaf in leaves:
        if type(leaf.module) is GridStateful:
            continue
        if own := [call for call in calls if call.leaf is leaf]:
            with untouched(leaf.module):
                faults += _tried(leaf, own)
    if faults:
        raise UnsupportedModelError("neurons do not fire as they were described", faults)


def _tried(leaf: Leaf, calls: Sequence[Call]) -> list[Fault]:
    call, neuron = calls[0], _neuron(leaf)
    steps = min(len(calls), _STEPS)
    if isinstance(leaf.spec, StatefulFireSpec):
        shape = list(call.drive.shape)
        if leaf.spec.axes in ("T,N", "N,T") and call.drive.ndim < 2:
            return [_fault(leaf, f"reads {shape}, where a StatefulFireSpec stands for [T, N, ...]")]
        if "*" in leaf.spec.axes and shape[0] % leaf.spec.T:
            return [_fault(leaf, f"reads {shape}, of which the first axis is no multiple of T")]
        call = replace(call, drive=leaf.spec.over_time(call.drive))
        steps = len(call.drive)
    T = 1 if isinstance(leaf.spec, IntegerFireSpec) else steps
    drives = _sequences(neuron, T).to(call.drive.dtype)
    hands_on = any(call.others for call in calls)
    return _Trial(leaf, call, hands_on, drives).faults(neuron)


def _neuron(leaf: Leaf) -> StatefulFireSpec:
    """What a leaf does in a timestep; without a memory it is all that it does."""
    spec = leaf.spec
    if isinstance(spec, StepSpec):
        return spec.neuron
    if isinstance(spec, StatefulFireSpec):
        return spec
    return StatefulFireSpec(spec.D, 0.0, 1.0, norm=spec.norm, rule=spec.rounding)


# -- drives ----------------------------------------------------------------------------------


def _ramp(neuron: StatefulFireSpec) -> torch.Tensor:
    """Drives that lead empty memories to all their levels, float32 [P]."""
    return torch.cat([_ramp_of(part) for part in neuron.parts])


def _ramp_of(neuron: StatefulFireSpec) -> torch.Tensor:
    D, in_drives = neuron.D, neuron.threshold / neuron.gain
    borders = torch.arange(D + 1) + 0.5 if neuron.rule.startswith("half") else 1 + torch.arange(D)
    at = (borders.double() * in_drives).float()
    sides = [torch.nextafter(at, torch.full_like(at, end)) for end in (-math.inf, math.inf)]
    between = torch.arange(-4, 4 * D + 5) / 4
    near = [-4.0 * D, -D - 1.0, 2.0 * D + 2, 4.0 * D]
    far = torch.tensor([*near, *(sign * 10.0**n * D for n in (1, 2, 3) for sign in (-1, 1))])
    plain = (torch.cat([between, far]).double() * in_drives).float()
    return torch.cat([plain, at, *sides])


def _sequences(neuron: StatefulFireSpec, T: int) -> torch.Tensor:
    """Drives of T timesteps, float32 [T, Q]: the ramp at first, then anything, ties as well."""
    ramp, chance = _ramp(neuron), torch.Generator().manual_seed(0)
    if T == 1:
        return ramp.unsqueeze(0)
    times = math.ceil(max(_SEQUENCES, _DRIVES / T) / len(ramp))
    shape = (T - 1, times * len(ramp))
    ties = ramp[torch.randint(len(ramp), shape, generator=chance)]
    u = torch.rand(shape, generator=chance) * (neuron.D + 2) - 1
    reach = max(part.threshold / part.gain for part in neuron.parts)
    is_tie = torch.rand(shape, generator=chance) < 0.5
    later = torch.where(is_tie, ties, u * reach)
    return torch.cat([ramp.repeat(times).unsqueeze(0), later])


# -- what the module fires ---------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Trial:
    """A leaf, a call of its that works, and what it is tried on.

    Attributes:
        leaf: The leaf.
        call: Tells the shape that it accepts, and the membrane that it begins with.
        hands_on: The network hands its membrane from call to call.
        drives: Sequences, [T, Q].
    """

    leaf: Leaf
    call: Call
    hands_on: bool
    drives: torch.Tensor

    def faults(self, neuron: StatefulFireSpec) -> list[Fault]:
        """What is wrong, at most one fault."""
        which, parts = self._placed()
        try:
            found = self._found(which)
        except Exception:  # some accept no larger batch: the shape of the network's own call, then
            which = torch.cat(list(parts))
            try:
                found = torch.cat([self._found(part) for part in parts], 1)
            except Exception as e:
                return [_fault(self.leaf, f"cannot be tried: {self._raised(e)}")]
        if found.shape != (len(self.drives), *which.shape):
            return [_fault(self.leaf, f"returns {list(found.shape)} for a drive of another shape")]
        found, (counts, sure) = found.double() * neuron.norm, self._expected(neuron, which)
        if (place := _wrong(found, counts, sure, neuron.top)) is None:
            return []
        what = self._otherwise(which, found, counts, place)
        return [_fault(self.leaf, what, self._todo(neuron, which, found))]

    def _expected(
        self, neuron: StatefulFireSpec, which: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What elements fire by the description, [T, ...], and where that is certain."""
        if neuron.has_own_decays:  # then it matters which neuron gets a sequence
            return fired(neuron, self.drives.float()[:, which])
        counts, sure = fired(neuron, self.drives.float())
        return counts[:, which], sure[:, which]

    def _placed(self) -> tuple[torch.Tensor, Sequence[torch.Tensor]]:
        """Which sequence each element gets, in a batch that is a multiple of the network's.

        Parameters may have a value per channel, whatever axis that is: along each axis but the
        batch every position meets all drives, by chance.
        """
        size = self.call.drive.shape[int(self._is_whole) :]
        total, (T, Q) = size.numel(), self.drives.shape
        ramp = len(set(self.drives[0].tolist()))
        meets = min((total // n for n in size[1:]), default=total)
        wanted = max(math.ceil(_TIMES * ramp / meets), math.ceil(Q / total))
        copies = max(1, min(wanted, _NUMBERS // (T * total)))
        shape, chance = (copies * size[0], *size[1:]), torch.Generator().manual_seed(1)
        which = torch.randint(Q, (copies * total,), generator=chance)
        every = torch.arange(min(Q, copies * total))
        which[: len(every)] = every
        parts = torch.split(which.view(shape), size[0])
        return which.view(shape), parts[: max(_CALLS, math.ceil(Q / total))]

    @property
    def _is_whole(self) -> bool:
        return isinstance(self.leaf.spec, StatefulFireSpec)

    def _found(self, which: torch.Tensor) -> torch.Tensor:
        """What the module returns, [T, ...]."""
        forget([self.leaf])
        forward: Callable[..., Any] = self.leaf.module.forward
        x = self.drives[:, which]
        if isinstance(self.leaf.spec, StatefulFireSpec):
            out = forward(self.leaf.spec.from_thresholds(self.leaf.spec.for_module(x)))
            return self.leaf.spec.over_time(out[0] if self.leaf.spec.hands_on else out)
        given = [_begun(value, self.call.drive, x[0]) for value in self.call.others.values()]
        spikes = []
        neuron = _neuron(self.leaf)
        for drive in x:
            out = forward(neuron.from_thresholds(drive.clone()), *given)
            if isinstance(self.leaf.spec, StepSpec) and not self.leaf.spec.alone:
                out, *states = out
                given = states if self.hands_on else []
            spikes.append(out.clone())  # some write into one tensor again and again
        return torch.stack(spikes)

    def _otherwise(
        self, which: torch.Tensor, found: torch.Tensor, counts: torch.Tensor, place: tuple[int, int]
    ) -> str:
        t, element = place
        drives = self.drives[: t + 1, which.flatten()[element]]
        spikes, counts = (v.flatten(1)[: t + 1, element] for v in (found, counts))
        if t == 0:
            when = " in timestep 0" if len(self.drives) > 1 else ""
            text = f"a drive of {_csv(drives)}{when} fires"
        else:
            text = f"drives of {_csv(drives)} in timesteps 0 to {t} fire"
        return f"{text} {_csv(spikes)} in PyTorch and {_csv(counts)} by the description"

    def _todo(self, neuron: StatefulFireSpec, which: torch.Tensor, found: torch.Tensor) -> str:
        if self._is_whole and len(self.drives) > 1 and not neuron.has_own_decays:
            single = fired(neuron, self.drives.float().reshape(1, -1))
            counts, sure = (v.view(self.drives.shape)[:, which] for v in single)
            if _wrong(found, counts, sure, neuron.top) is None:
                return (
                    "its first axis is no time, it is called once per timestep: "
                    "StepSpec(StatefulFireSpec(...), alone=True, state='...')"
                )
        return ""

    def _raised(self, e: Exception) -> str:
        said = (str(e).splitlines() or [""])[0]
        span = f"{_csv(self.drives.min().view(1))} to {_csv(self.drives.max().view(1))}"
        shape = list(self.call.drive.shape)
        return f"drives from {span} in its own shape {shape} raise {type(e).__name__}: {said}"


def _wrong(
    found: torch.Tensor, counts: torch.Tensor, sure: torch.Tensor, top: int
) -> tuple[int, int] | None:
    """First timestep, and element, in which it fires what is most unlike the description."""
    for t, spikes in enumerate(found):
        apart = (spikes - counts[t]).abs().nan_to_num(math.inf)
        apart[~sure[t]] = 0
        if apart.numel() and apart.max() > MARGIN * top:
            return t, int(apart.argmax())
    return None


def _begun(membrane: Any, own: torch.Tensor, drive: torch.Tensor) -> Any:
    """The membrane that the first call is given, without what it holds, for another batch."""
    if isinstance(membrane, torch.Tensor):
        return torch.zeros_like(drive if membrane.shape == own.shape else membrane)
    return type(membrane)(0) if isinstance(membrane, (int, float)) else membrane


def _csv(numbers: torch.Tensor) -> str:
    return ", ".join(f"{float(n):.9g}" for n in numbers)


def _fault(leaf: Leaf, what: str, todo: str = "") -> Fault:
    kind, known = type(leaf.module).__name__, leaf.described.rpartition(".")[2]
    if leaf.described != qualified(type(leaf.module)):
        said = f"its base class {known} is described as {leaf.spec}"
        todo = todo or f"a description of its own: register_leaf({kind}, ...)"
    else:
        said = f"described as {leaf.spec}"
        todo = todo or f"a description that fits: register_leaf({kind}, ...)"
        if isinstance(leaf.spec, StatefulFireSpec):
            todo = Words(todo, ", or ", Option("leaves", "auto"))
    return Fault(f"{said}; {what}", kind=kind, module=leaf.path, todo=todo)
