"""What a network did, batch after batch, without keeping every spike count."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from snncc.backends.base import Activity
from snncc.program import Program
from snncc.runtime.result import PopulationRates, Rates, rates

__all__ = ["Tally"]

Array = npt.NDArray[Any]


class Tally:
    """Adds up activities of one network; samples come one after the other.

    Args:
        program: What runs.

    Attributes:
        ticks: Simulated, 0 for an engine without a clock.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self._rates: list[Rates] = []
        self._fired: dict[str, Array] = {}
        self._kept: list[Activity] = []
        self.ticks = 0

    def add(self, activity: Activity) -> None:
        """Take in the next samples; their counts are not kept."""
        self._rates.append(rates(activity, self.program))
        self.ticks += activity.ticks
        for name, counts in activity.counts.items():
            fired = counts.any(axis=(0, 1))
            self._fired[name] = np.logical_or(fired, self._fired.get(name, False))
        self._kept.append(replace(activity, counts={}, tick_spikes={}))

    def rates(self) -> Rates:
        """Rates over all samples."""
        by_population = zip(*(part.populations for part in self._rates), strict=True)
        weights = [part.samples for part in self._rates]
        return Rates(sum(weights), tuple(self._merged(p, weights) for p in by_population))

    def _merged(self, parts: tuple[PopulationRates, ...], weights: list[int]) -> PopulationRates:
        def mean(values: list[Any]) -> Array:
            return np.average(np.asarray(values, dtype=np.float64), axis=0, weights=weights)

        fired = self._fired[parts[0].name]
        nsfr = mean([p.nsfr for p in parts])
        return replace(
            parts[0],
            nsfr=tuple(tuple(float(rate) for rate in step) for step in nsfr),
            mean_count=float(mean([p.mean_count for p in parts])),
            saturated=float(mean([p.saturated for p in parts])),
            silent=int(np.count_nonzero(~fired)),
            spikes=sum(p.spikes for p in parts),
            sops=sum(p.sops for p in parts),
        )

    def readouts(self) -> dict[str, Array]:
        """Readout -> integers, (T, N, *shape)."""
        return dict(self._joined.readouts)

    def spikes(self) -> dict[str, Array]:
        """Probed population -> spike trains, (T, D, N, *shape)."""
        return dict(self._joined.spikes)

    def potentials(self) -> dict[str, Array]:
        """Probed accumulator -> potentials, (T, N, *shape)."""
        return dict(self._joined.potentials)

    @property
    def _joined(self) -> Activity:
        if len(self._kept) > 1:
            self._kept = [Activity.join(self._kept)]
        return self._kept[0]
