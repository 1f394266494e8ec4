"""Suffixes of value names: what a pass makes of a value is named after it, and others read that.

A name means one quantity for ever (``snncc.ir.graphs``), so that a value in other units or on other
axes has another name: the old one and one of these suffixes. Stems within a layer (``/acc0``,
``/drive``), which nobody reads back, stand where they are made.
"""

from __future__ import annotations

__all__ = [
    "ABSOLUTE",
    "APART",
    "COUNT",
    "FED",
    "INTEGER",
    "MAP",
    "MARKS",
    "NEW",
    "PIXELS",
    "POTENTIAL",
    "REPLACED",
    "RESULT",
    "SCALED",
    "SOURCE",
    "SPIKES",
    "SUM",
    "TICKS",
    "TRAINED",
    "WIDE",
    "counted",
    "is_made_of_tokens",
    "is_potential",
    "stem",
]

#: The input's integers, uint8, and a patch mask as such.
PIXELS = ":u8"
#: The same as float32, and what hands them on.
SOURCE = ":q"
#: Counts of spikes where the value before had a norm, or ticks; also their sum as a result.
COUNT = ":count"
#: The sum where the value before was an average.
SUM = ":sum"
#: The membrane potential, int64, of a result of float32.
POTENTIAL = ":v"
#: The integers that stand for a float32 value, until that is gone and its name is free.
INTEGER = "~int"
#: A result where a population has its name.
RESULT = ":result"
#: A population's spikes, tick by tick [D, N, ...].
SPIKES = ":spikes"
#: A value of ticks, which are samples [D*N, ...].
TICKS = ":ticks"
#: Ticks apart from samples again.
APART = ":apart"
#: Ticks in a type that holds their sum.
WIDE = ":wide"
#: The map [N, C, H, W] that a value of tokens is a view of.
MAP = "/map"
#: A value times a number.
SCALED = "/scaled"
#: A value that is to take over the name before it.
NEW = "~new"
#: A value that has lost its name to another.
REPLACED = "~"
#: A value that a graph is given, where it computes it itself.
FED = "@fed"
#: Absolute values of a weight.
ABSOLUTE = "@abs"
#: What the name of a value of the trained network itself begins with: of a node of the program that
#: PyTorch exported, or of a value of the file as it was given.
TRAINED = "@"
#: What stands between a name and what is added to it.
MARKS = ":/~."


def stem(name: str) -> str:
    """The name before its last suffix with a colon."""
    return name.rpartition(":")[0]


def counted(ticks: str) -> str:
    """The name of the counts whose ticks these are."""
    return ticks.removesuffix(TICKS)


def is_potential(name: str | None) -> bool:
    """Whether a name is that of a membrane potential of integers."""
    return (name or "").endswith(POTENTIAL)


def is_made_of_tokens(name: str | None) -> bool:
    """Whether a name is that of a map made for tokens, which are better known."""
    return (name or "").endswith((MAP, SCALED))
