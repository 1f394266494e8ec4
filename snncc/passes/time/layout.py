"""How the values of a network over timesteps are laid out."""

from __future__ import annotations

from enum import Enum

__all__ = ["Layout"]


class Layout(Enum):
    """Where the timesteps of a value are; N are its samples, and «...» are its own axes."""

    #: [N, ...], the same in every timestep.
    STILL = "still"
    #: [1, N, ...], the same in every timestep.
    ONE = "one"
    #: [T, N, ...].
    APART = "apart"
    #: [T*N, ...].
    FLAT = "flat"
    #: [N, T, ...].
    LINED = "lined"
    #: [N*T, ...].
    ROWS = "rows"
    #: [N, ...], one timestep.
    STEP = "step"
    #: One timestep, with its axis.
    CUT = "cut"
    #: [N, ...], some timesteps summed.
    PART = "part"
    #: [N, ...], to be averaged over time.
    MEAN = "mean"
    #: No value of the network: arithmetic on shapes.
    SHAPE = "shape"

    @property
    def time_axis(self) -> int | None:
        """The axis of all timesteps, where they have one of their own."""
        return {Layout.APART: 0, Layout.LINED: 1}.get(self)
