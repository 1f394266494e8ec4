"""Populations of neurons, and what their membranes carry over from timestep to timestep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import ClassVar

import numpy as np

from snncc.program.membrane import Factor, Reach, membrane_reach
from snncc.program.nodes.base import (
    ALL,
    NODE_READERS,
    PEOPLE,
    TOTAL_LIMIT,
    Array,
    Network,
    Node,
    Nodes,
    Readers,
    Shape,
    Spikes,
    require,
)
from snncc.program.nodes.firing import Firing

__all__ = ["CARRIES", "MAX_TICKS", "Carry", "Neuron"]

MAX_TICKS = 255
_MAX_DECAY_SHIFT = 24

Range = tuple[int, int]


@dataclass(frozen=True)
class Carry:
    """What stays of a membrane over timesteps, and what spikes do to it.

    Attributes:
        reset: What spikes do, in a word for people.
        remembers: Whether anything stays.
        takes: Whether what stays is less by the threshold for each spike.
        is_late: They take it in the next timestep, after the decay.
        raises: While what stays would fire by itself, one threshold more must be reached.
    """

    reset: str
    remembers: bool = True
    takes: bool = False
    is_late: bool = False
    raises: bool = False


#: ``Neuron.carry`` -> its rule. A new one is an entry here, and one in each engine's table.
CARRIES: Mapping[str, Carry] = {
    "none": Carry("soft", remembers=False),
    "soft": Carry("soft", takes=True),
    "hard": Carry("hard"),
    "delayed": Carry("delayed", takes=True, is_late=True),
    "raised": Carry("soft", takes=True, raises=True),
}
_MEMORY = tuple(name for name, rule in CARRIES.items() if rule.remembers)


@dataclass(frozen=True)
class Neuron(Firing):
    """A population of IF neurons with soft reset, each with D integer levels.

    Attributes:
        name: Unique in the Program.
        shape: (C, H, W) or (F,).
        source: The accumulator it reads when that is complete.
        levels: int64 (C, D) or (1, D), never decreasing along D: spike k iff v >= level k.
        depth: Firing window: it fires in ticks [depth * ticks, (depth + 1) * ticks).
        carry: What stays over timesteps: ``none`` for SFA neurons; else the membrane
            h = floor(V * decay) + potential * 2**fraction, which the levels are compared with,
            starts from V = 0, and of its h there stays ``soft``: h less ``threshold`` per spike;
            ``hard``: h, or 0 after a spike; ``delayed``: h, and the next h is lowered by
            ``threshold`` per spike; ``raised``: as ``soft``, but where that reaches level 1 the
            levels are a ``threshold`` higher in the next timestep.
        decay: (numerator, shift): numerator / 2**shift; a tuple of C numerators: one of each
            channel.
        fraction: Bits of the membrane after the potential's unit; shift * (T - 1) is exact, of
            the larger shift.
        threshold: int64 (C,) or (1,), in units of the membrane; with ``carry`` only. 0: spikes
            take nothing.
        current: The same, (0, 0) without one: the potential goes into a current,
            i = floor(i * current) + potential * 2**fraction, and that into the membrane.
        norm: Value of one spike is 1 / norm (already folded; for people).
        rounding: ``half-even``, ``half-up``, ``>=`` or ``>`` (already in the levels; for people).
        module: Torch module path.
    """

    name: str
    shape: Shape
    source: str
    levels: Array
    depth: int
    carry: str = "none"
    norm: float = 1.0
    rounding: str = "half-even"
    module: str = ""
    decay: Factor = (0, 0)
    fraction: int = 0
    threshold: Array | None = None
    current: Factor = (0, 0)

    readers: ClassVar[Readers] = {
        **NODE_READERS,
        "source": ALL,
        "levels": ALL,
        "depth": ALL,
        "carry": ALL,
        "norm": PEOPLE,
        "rounding": PEOPLE,
        "decay": _MEMORY,
        "fraction": _MEMORY,
        "threshold": _MEMORY,
        "current": _MEMORY,
    }
    variants: ClassVar[tuple[str, tuple[str, ...]]] = ("carry", tuple(CARRIES))

    @property
    def variant(self) -> str:
        """What it carries: see Item."""
        return self.carry

    @property
    def D(self) -> int:
        """Ticks of this population's burst."""
        return int(self.levels.shape[1])

    @property
    def remembers(self) -> bool:
        """Whether anything of its membrane stays over timesteps."""
        return CARRIES[self.carry].remembers

    # -- bounds of its membrane ----------------------------------------------------------------

    def membrane_bounds(self, timesteps: int, potential: Range) -> Range:
        """See Firing; without a memory it is the potential."""
        if self.threshold is None:
            return potential
        reach = self.membrane_reach(timesteps, potential).compared
        more = int(self.threshold.max()) if CARRIES[self.carry].raises else 0
        return -reach - more, reach

    def membrane_reach(self, timesteps: int, potential: Range) -> Reach:
        """How far a membrane with memory reaches; arguments as ``membrane_bounds``."""
        assert self.threshold is not None
        rule = CARRIES[self.carry]
        drive = max(map(abs, potential)) << self.fraction
        loss = self.D * int(self.threshold.max()) if rule.takes else 0
        return membrane_reach(timesteps, self.decay, drive, loss, rule.is_late, self.current)

    # -- faults --------------------------------------------------------------------------------

    def check(self, program: Network, nodes: Nodes) -> None:
        """See Node."""
        source = nodes[self.source]
        require(source.is_potential, f"reads '{self.source}', which is no accumulator")
        require(prod(source.shape) == prod(self.shape), f"reads {source.shape} as {self.shape}")
        self._check_levels(program)
        if self.remembers:
            self._check_memory(program, source)
        self.check_depth(program, nodes)

    def _check_levels(self, program: Network) -> None:
        levels = self.levels
        require(isinstance(levels, np.ndarray) and levels.dtype == np.int64, "levels are not int64")
        fits = levels.ndim == 2 and levels.shape[0] in (1, self.shape[0])
        require(fits, f"levels have shape {levels.shape}")
        most = min(MAX_TICKS, program.ticks)
        require(0 < self.D <= most, f"{self.D} levels, {program.ticks} ticks")
        require(bool((np.diff(levels, axis=1) >= 0).all()), "levels decrease")
        require(bool((np.abs(levels.astype(np.float64)) < 2.0**62).all()), "levels out of range")

    def _check_memory(self, program: Network, source: Node) -> None:
        self._check_decay("decay", self.decay)
        self._check_decay("current", self.current)
        require(0 <= self.fraction < TOTAL_LIMIT.bit_length(), f"fraction {self.fraction}")
        taken = self.threshold
        require(taken is not None and taken.dtype == np.int64, "threshold is not int64")
        assert taken is not None
        require(taken.shape in ((1,), (self.shape[0],)), f"threshold has shape {taken.shape}")
        require(int(taken.min()) >= 0 and int(taken.max()) < TOTAL_LIMIT, "threshold out of range")
        widest = self.membrane_reach(program.timesteps, (-source.reach, source.reach)).widest
        require(widest < TOTAL_LIMIT, "membrane may overflow int64")

    def _check_decay(self, what: str, decay: Factor) -> None:
        numerator, shift = decay
        each = (numerator,) if isinstance(numerator, int) else numerator
        is_one = 0 <= shift <= _MAX_DECAY_SHIFT and all(0 <= n <= 1 << shift for n in each)
        require(is_one, f"{what} {decay} out of range")
        is_each = isinstance(numerator, int) or len(each) == self.shape[0]
        require(is_each, f"{what} has {len(each)} numerators, for {self.shape[0]} channels")

    # -- what it emits -------------------------------------------------------------------------

    @property
    def reach(self) -> int:
        """See Node."""
        return self.D

    @property
    def is_kept(self) -> bool:
        """See Node."""
        return True

    def spikes(
        self, counts: Mapping[str, Array], before: Mapping[str, Spikes], nodes: Nodes
    ) -> Spikes | None:
        """See Node."""
        own = counts[self.name]
        return Spikes.of(self.name, own.reshape(-1, *own.shape[2:]))

    def taken(self, program: Network) -> None:
        """Counted with the accumulator that it reads: see Node."""
        return
