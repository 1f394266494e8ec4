"""What a session traced, with the network that did it: it shows and draws itself."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from snncc.backends.base import Activity
from snncc.program import Program
from snncc.runtime.result import Rates, rates
from snncc.runtime.summary import Summary

if TYPE_CHECKING:
    from snncc.runtime.plots import Picture

__all__ = ["Trace"]


@dataclass(repr=False)
class Trace(Activity):
    """An activity, and the Program that ran.

    Attributes:
        program: What ran.
    """

    program: Program | None = None

    @staticmethod
    def of(activity: Activity, program: Program) -> Trace:
        """The same with its Program."""
        return Trace(
            **{f.name: getattr(activity, f.name) for f in fields(activity)}, program=program
        )

    def rates(self) -> Rates:
        """How its populations fired."""
        return rates(self, self._program)

    @property
    def _program(self) -> Program:
        assert self.program is not None
        return self.program

    def plot_raster(self, sample: int = 0) -> Picture:
        """A dot for each spike of a sample, over the ticks of the clock; of up to 60 neurons each.

        Raises:
            MissingDependencyError: Without matplotlib.
        """
        from snncc.runtime.plots import raster

        return raster(self._program, self.counts, sample)

    def plot_nsfr(self) -> Picture:
        """Share of each population's neurons that fire in each tick of their windows.

        Raises:
            MissingDependencyError: Without matplotlib.
        """
        from snncc.runtime.plots import nsfr_picture

        return nsfr_picture([(p.module or p.name, p.nsfr) for p in self.rates().populations])

    def _summary(self) -> Summary:
        found = self.rates()
        title = (
            f"Trace of '{self._program.name}': {found.samples:,} samples, {found.spikes:,} spikes, "
            f"{found.sops:,} SOPs"
        )
        head = ("population", "neurons", "spikes", "spikes/neuron", "silent")
        rows = [
            (p.module or p.name, f"{p.neurons:,}", f"{p.spikes:,}", f"{p.mean_count:.4f}",
             f"{p.silent:,}")
            for p in found.populations
        ]  # fmt: skip
        return Summary(title, head, rows)

    def __repr__(self) -> str:
        return self._summary().text()

    def _repr_html_(self) -> str:
        return self._summary().html()
