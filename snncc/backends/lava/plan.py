"""Which Lava processes a network is made of, what they read, and what each sends when."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np

from snncc.program import Array, Program, Shape

__all__ = ["GRADED_BITS", "START", "Emission", "Entry", "Plan"]

#: Of potentials, and of what Conv and Dense deliver, as graded spikes.
GRADED_BITS = 24
#: Lava counts time steps from 1.
START = 1

Entry = dict[str, Any]


@dataclass(frozen=True)
class Emission:
    """What a process sends of frame 0.

    Attributes:
        process: Its name.
        shape: In Lava's order.
        first: Tick of the first message.
        burst: Ticks of all messages.
        bits: Of a message; 0: binary.
    """

    process: str
    shape: Shape
    first: int
    burst: int
    bits: int

    @property
    def last(self) -> int:
        """Tick of the last message."""
        return self.first + self.burst - 1


@dataclass
class Plan:
    """Processes, each after those that it reads, and the tensors they name.

    Attributes:
        program: What they compute.
        entries: What graph.json says of each process.
        notes: What people are told of a process in few words, by its name.
        tensors: Arrays by name, in Lava's order.
        emissions: Node name -> what its process sends.
    """

    program: Program
    entries: list[Entry] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)
    tensors: dict[str, Array] = field(default_factory=dict)
    emissions: dict[str, Emission] = field(default_factory=dict)
    _relays: dict[tuple[str, int], Emission] = field(default_factory=dict)

    @property
    def latency(self) -> int:
        """Ticks until all of the first timestep is written down."""
        ends = [e["first"] + e["burst"] - 1 for e in self.entries if "writes" in e]
        return int(max(ends)) - START + 1

    def add(
        self, process: str, emission: Emission, *inputs: Emission, note: str = "", **fields: Any
    ) -> Emission:
        """A process; what it sends, under a name made unique.

        Args:
            process: Name of its class in ``processes``, or ``Conv`` or ``Dense``: Lava's own.
            emission: What it sends.
            *inputs: What it reads, in the order of its ports.
            note: For people.
            **fields: Of its entry: everything that its constructor takes.
        """
        name = _unique(emission.process, {entry["name"] for entry in self.entries})
        entry = {"name": name, "process": process, "shape": list(emission.shape)}
        if inputs:
            entry["inputs"] = [e.process for e in inputs]
        self.entries.append(entry | fields)
        self.notes[name] = note
        return Emission(name, emission.shape, emission.first, emission.burst, emission.bits)

    def tensor(self, name: str, values: Array) -> str:
        """Keeps weights of 8 bits, or numbers of 24; the name, made unique."""
        narrow = np.int8 if values.dtype == np.int8 else np.int32
        unique = _unique(name, self.tensors)
        self.tensors[unique] = np.ascontiguousarray(values, dtype=narrow)
        return unique

    def relayed(self, source: Emission, delay: int) -> Emission:
        """The emission so many ticks later."""
        if delay == 0:
            return source
        key = source.process, delay
        if key not in self._relays:
            self._relays[key] = self.relay(source, delay)
        return self._relays[key]

    def relay(self, source: Emission, delay: int) -> Emission:
        """A new relay."""
        name, first = f"{source.process} + {delay}", source.first + delay
        late = Emission(name, source.shape, first, source.burst, source.bits)
        times = {"delay": delay, "first": source.first, "burst": source.burst}
        return self.add("Relay", late, source, note=f"{delay} ticks later", **times)

    def once(self, source: Emission, others: Collection[Emission]) -> Emission:
        """The emission for a port to which others go, too: Lava connects two ports but once."""
        return self.relay(source, 0) if source in others else source

    def opens(self, complete: int) -> int:
        """The first tick of a frame's ticks that end with a tick."""
        return complete - self.program.ticks + 1


def _unique(name: str, taken: Collection[str]) -> str:
    others = (f"{name} #{i}" for i in count(2))
    return name if name not in taken else next(other for other in others if other not in taken)
