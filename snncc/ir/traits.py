"""Traits: what an operator says of itself, so that passes ask it and hold no lists of names.

A trait answers a question that several passes ask: whether a node fires, whether it hands counts
on, how many numbers it adds up. What one rule alone needs (the geometry of a convolution) is no
trait.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

__all__ = ["ORDER", "REAL", "Numbers", "Traits"]

#: The stages of a graph, each made from the one before.
ORDER = ("imported", "integer", "quantised", "spiking")


class Numbers(enum.Enum):
    """What the numbers of a value are."""

    #: Integers of the input, or what is counted from them.
    SOURCE = "source"
    #: Spikes of a burst, one number per neuron; in float stages divided by the norm.
    COUNTS = "counts"
    #: Spikes, one number per neuron and tick.
    TICKS = "ticks"
    #: What one slice of weights makes of counts or ticks.
    CURRENTS = "currents"
    #: Membrane potentials: what neurons fire by.
    POTENTIALS = "potentials"
    #: Signed digits of potentials that are handed on to a layer as they are.
    DIGITS = "digits"
    #: A patch mask: ones and zeros.
    MASK = "mask"
    #: Real numbers of which no network of integers knows anything.
    REAL = "real"


@dataclass(frozen=True)
class Traits:
    """What an operator does, as far as passes ask.

    An operator either makes numbers of another kind (``reads``, ``emits``), or hands on what it
    reads (``keeps``).

    Attributes:
        reads: What it makes its result of; of a layer in float stages that is counts, or the input.
        emits: What it makes; none: it makes nothing new, see ``keeps``.
        keeps: What it hands on as what it is. Potentials stay on the grid of the layers that made
            them, perhaps multiplied; counts stay counts, perhaps added up.
        becomes: The operator that takes its place in the next stage, where it has one: of a neuron
            of float stages the one that counts, of that the one that fires tick by tick.
        until: The last stage in which graphs may hold it; default: up to where it ``becomes``
            another one, or ``spiking``.
        weighs: It multiplies what it reads with weights of its own: a linear layer.
        multiplies: It multiplies several trains with each other, into potentials, as attention
            does, or into what is a train again.
        remembers: It keeps something from one timestep to the next; attribute ``T`` says how many.
        is_monotone: A larger drive never makes fewer spikes: a maximum before it may follow it.
        rounds: It makes whole numbers of real ones.
        border: Of what rounds: where, between two whole numbers, it goes from one to the next, in
            units of its input. None: it depends on more than the input.
        keeps_shape: The result of a sample has the shape of its first input.
        regroups: Same numbers in the same order, other axes.
        takes_maximum: Over windows.
        sums: The attribute that says how many numbers it adds up: sizes of a window, or timesteps.
        averages: It divides the sum by how many there are.
        is_affine: With a constant operand it multiplies and shifts each channel.
        joins: Its inputs are alike, and what it makes is as they are.
        masks: It makes zeros of masked patches; the mask is its second input.
        begins_time: It makes timesteps of a sample: first in a graph over T timesteps.
        ends_time: It makes one sample of T timesteps: last in such a graph.
    """

    reads: Numbers | None = None
    emits: Numbers | None = None
    keeps: tuple[Numbers, ...] = ()
    becomes: str = ""
    until: str = ""
    weighs: bool = False
    multiplies: bool = False
    remembers: bool = False
    is_monotone: bool = False
    rounds: bool = False
    border: float | None = None
    keeps_shape: bool = False
    regroups: bool = False
    takes_maximum: bool = False
    sums: str = ""
    averages: bool = False
    is_affine: bool = False
    joins: bool = False
    masks: bool = False
    begins_time: bool = False
    ends_time: bool = False

    @property
    def fires(self) -> bool:
        """Whether it is a neuron, of whatever stage."""
        return self.makes_counts and self.reads is Numbers.POTENTIALS

    @property
    def makes_counts(self) -> bool:
        """Whether spikes come out that did not go in: of a neuron, or of a product that is one."""
        return self.emits in (Numbers.COUNTS, Numbers.TICKS)

    @property
    def keeps_counts(self) -> bool:
        """Whether what it makes of counts, or of the input's integers, are counts again."""
        return Numbers.COUNTS in self.keeps

    @property
    def keeps_grid(self) -> bool:
        """Whether potentials that it reads stay on the grid of their layers."""
        return Numbers.POTENTIALS in self.keeps

    @property
    def pools(self) -> bool:
        """Whether it goes over windows of a map."""
        return self.takes_maximum or self.sums == "kernel_shape"

    @property
    def is_view(self) -> bool:
        """Whether counts that it reads stay what they are, number for number, within a timestep."""
        return self.keeps_counts and not self.pools and not self.joins


#: Of an operator of which nothing is known.
REAL = Traits(reads=Numbers.REAL, emits=Numbers.REAL)
