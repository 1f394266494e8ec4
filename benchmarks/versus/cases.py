"""What is measured: sections of cases, each a network and the peers it is compared with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from versus.builder import Network
from versus.networks import EXAMPLES, example, stage_a, stage_b, w1
from versus.peers import INT8, PEERS

__all__ = ["SECTIONS", "Case", "quick"]

ORT = ("ort_fp32", *INT8)
ALL = tuple(PEERS)


@dataclass(frozen=True)
class Case:
    """One network to time.

    Attributes:
        section: A key of ``SECTIONS``.
        key: Unique in its section.
        build: Makes the network.
        peers: Names in ``PEERS``.
    """

    section: str
    key: str
    build: Callable[[], Network]
    peers: tuple[str, ...] = ALL


def _w1(densities: tuple[float, ...], peers: tuple[str, ...]) -> Iterator[Case]:
    for d in densities:
        yield Case("w1", f"{d:.2f}", partial(w1, d), peers)


def _w1_16bit() -> Iterator[Case]:
    for d in (0.46, 0.34):
        yield Case("w1_16bit", f"{d:.2f}", partial(w1, d, bits=16), ("ort_fp32", "torch_fp32"))


def _w2() -> Iterator[Case]:
    yield Case("w2", "A", partial(stage_a, 0.27))
    yield Case("w2", "B", partial(stage_b, 0.27))


def _examples() -> Iterator[Case]:
    for name in EXAMPLES:
        yield Case("examples", name, partial(example, name))


def _growth_in_ticks() -> Iterator[Case]:
    for D in (1, 2, 4, 8):
        yield Case("growth_D", f"{D}", partial(w1, 0.34, D=D))


def _growth_in_density() -> Iterator[Case]:
    for d in (0.05, 0.1, 0.15, 0.25, 0.34, 0.46, 0.6, 0.8):
        yield Case("growth_d", f"{d:.2f}", partial(w1, d), ORT)


def _growth_in_width() -> Iterator[Case]:
    for width in (1, 2, 3):
        yield Case(
            "growth_width", f"{width}", partial(w1, 0.34, width=width), (*ORT, "spikingjelly")
        )


#: Section -> its cases.
SECTIONS: dict[str, Callable[[], Iterator[Case]]] = {
    "w1": partial(_w1, (0.46, 0.34, 0.15), ALL),
    "w1_16bit": _w1_16bit,
    "w2": _w2,
    "examples": _examples,
    "growth_D": _growth_in_ticks,
    "growth_d": _growth_in_density,
    "growth_width": _growth_in_width,
}


def quick() -> Iterator[Case]:
    """The few that are asked for most."""
    return _w1((0.46, 0.34, 0.15), ORT)
