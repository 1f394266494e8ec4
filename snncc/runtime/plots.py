"""Pictures of what a network did; the only module that needs matplotlib.

They are figures of their own: no state of pyplot is touched, and a notebook shows them. Without
matplotlib importing the module raises MissingDependencyError.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from snncc.errors import MissingDependencyError
from snncc.program import Neuron, Program
from snncc.runtime.profile.counting import clock_ticks
from snncc.runtime.profile.energy import NETWORKS, Energy

try:
    import matplotlib as mpl
    from matplotlib.figure import Figure
except ImportError as e:
    raise MissingDependencyError("pictures need matplotlib: pip install 'snncc[plot]'") from e

__all__ = ["Picture", "energy_picture", "nsfr_picture", "overview", "raster", "save_picture"]

Array = npt.NDArray[Any]
#: Label and rate of each tick, [T][D], of populations; label and energy of layers.
Rates = Sequence[tuple[str, Sequence[Sequence[float]]]]
Layers = Sequence[tuple[str, Energy]]

#: Rows of a raster: of a larger population so many neurons are shown, evenly chosen.
_MOST_ROWS = 60
_ROW, _BARS, _MOST_HEIGHT = 0.22, 2.8, 60.0  # inches: of a row, of bars of energy, at most
#: Colours that people with any colour vision tell apart. Source: Okabe and Ito.
_COLOURS = ("#0072B2", "#999999", "#E69F00", "#009E73")
_LABELS = ("spiking", "dense", "quantised", "skipping zeros")
_SETTINGS = {"svg.hashsalt": "snncc", "svg.fonttype": "none", "font.size": 9.0}


class Picture(Figure):  # type: ignore[misc]  # matplotlib is untyped here
    """A figure that a notebook shows."""

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        save_picture(self, file, "png")
        return file.getvalue()


def save_picture(picture: Figure, file: BinaryIO, kind: str) -> None:
    """Write it; the same picture gives the same bytes.

    Args:
        picture: What is drawn.
        file: Is written to.
        kind: ``png``, ``svg`` or ``pdf``.
    """
    undated = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}
    with mpl.rc_context(_SETTINGS):
        picture.savefig(file, format=kind, dpi=150, metadata=undated[kind])


def _picture(rows: int, width: float, each: float = _ROW, more: float = 1.2) -> Picture:
    height = min(more + each * max(rows, 4), _MOST_HEIGHT)
    return Picture(figsize=(width, height), layout="constrained")


def _label(name: str) -> str:
    """A name as it is: between dollars matplotlib would see a formula."""
    return name.replace("$", r"\$")


# -- rasters ---------------------------------------------------------------------------------------


def raster(program: Program, counts: Mapping[str, Array], sample: int = 0) -> Picture:
    """Which neurons fired in which clock tick: a dot for each spike of a sample.

    Args:
        program: What ran.
        counts: Population -> spike counts (T, N, *shape).
        sample: Which of the N.
    """
    neurons = [n for n in program.neurons if n.name in counts]
    picture = _picture(len(neurons), 9.0, each=0.5)
    axes = picture.subplots()
    for row, neuron in enumerate(neurons):
        ticks, heights = _dots(program, neuron, counts[neuron.name][:, sample])
        colour = _COLOURS[0] if row % 2 == 0 else _COLOURS[3]
        axes.scatter(ticks, row + 0.1 + 0.8 * heights, s=4, color=colour, linewidths=0)
    for tick in range(0, clock_ticks(program) + 1, program.ticks):
        axes.axvline(tick - 0.5, color="#dddddd", linewidth=0.5, zorder=0)
    labels = [_label(n.module or n.name) for n in neurons]
    axes.set_yticks(np.arange(len(neurons)) + 0.5, labels)
    axes.set_ylim(len(neurons), 0)
    axes.set_xlim(-0.5, max(clock_ticks(program), 1) - 0.5)
    axes.set_xlabel("clock tick")
    axes.set_title(f"{_label(program.name)}: spikes of sample {sample}")
    return picture


def _dots(program: Program, neuron: Neuron, counts: Array) -> tuple[Array, Array]:
    """Clock ticks of the spikes, and their neurons' heights, 0 to 1; counts are (T, *shape)."""
    flat = counts.reshape(len(counts), -1)
    chosen = np.unique(np.linspace(0, flat.shape[1] - 1, _MOST_ROWS).astype(np.int64))
    fires = flat[:, chosen, np.newaxis] > np.arange(neuron.D)
    timesteps, rows, ticks = np.nonzero(fires)
    return (neuron.depth + timesteps) * program.ticks + ticks, rows / max(len(chosen) - 1, 1)


# -- of a profile ----------------------------------------------------------------------------------


def nsfr_picture(rates: Rates) -> Picture:
    """Share of each population's neurons that fire in a tick of their windows, as a heat map."""
    picture = _picture(len(rates), 7.0)
    _draw_nsfr(picture, rates)
    return picture


def energy_picture(energies: Mapping[str, Energy], layers: Layers) -> Picture:
    """Energy under each model beside networks that do not spike, and the layers' rates.

    Args:
        energies: Name of a model -> of the whole network.
        layers: Under the last of the models.
    """
    picture = _picture(len(layers), 9.0, more=_BARS + 1.4)
    _draw_energy(picture, energies, layers)
    return picture


def overview(rates: Rates, energies: Mapping[str, Energy], layers: Layers) -> Picture:
    """Both, side by side."""
    picture = _picture(max(len(rates), len(layers)), 16.0, more=_BARS + 1.4)
    left, right = picture.subfigures(1, 2, width_ratios=(7, 9))
    _draw_nsfr(left, rates)
    _draw_energy(right, energies, layers)
    return picture


def _draw_nsfr(figure: Any, populations: Rates) -> None:
    axes = figure.subplots()
    steps = max((len(nsfr) for _, nsfr in populations), default=1)
    ticks = max((len(row) for _, nsfr in populations for row in nsfr), default=1)
    rates = np.full((len(populations), steps * ticks), np.nan)
    for row, (_, nsfr) in enumerate(populations):
        for t, by_tick in enumerate(nsfr):
            rates[row, t * ticks : t * ticks + len(by_tick)] = by_tick
    shown = axes.imshow(rates, aspect="auto", cmap="viridis", vmin=0, interpolation="nearest")
    axes.set_yticks(range(len(populations)), [_label(name) for name, _ in populations])
    axes.set_xticks(range(steps * ticks), _tick_names(steps, ticks))
    axes.set_xlabel("tick of the firing window" if steps == 1 else "timestep")
    axes.set_title("share of neurons that fire (NSFR)")
    figure.colorbar(shown, ax=axes)


def _tick_names(steps: int, ticks: int) -> list[str]:
    """Ticks where there is one timestep, timesteps where there is one tick, else both: ``1.3``."""
    if steps == 1 or ticks == 1:
        return [str(i) for i in range(steps * ticks)]
    return [f"{t}.{d}" for t in range(steps) for d in range(ticks)]


def _draw_energy(figure: Any, energies: Mapping[str, Energy], layers: Layers) -> None:
    rest = _ROW * max(len(layers), 4) + 1.4
    totals, rates = figure.subfigures(2, 1, height_ratios=(_BARS, rest))
    columns = totals.subplots(1, max(len(energies), 1), squeeze=False)[0]
    for axes, (name, energy) in zip(columns, energies.items(), strict=False):
        values = [float(getattr(energy, network) or 0.0) / 1e6 for network in NETWORKS]
        bars = axes.bar(range(len(values)), values, color=_COLOURS)
        axes.bar_label(bars, [f"{value:.3g}" for value in values], fontsize=7)
        axes.set_xticks(range(len(values)), _LABELS, rotation=40, ha="right", fontsize=7)
        axes.set_title(_label(name), fontsize=8)
        axes.margins(y=0.15)
    columns[0].set_ylabel("µJ per sample")
    _draw_layers(rates.subplots(), [(k, e) for k, e in layers if e.rate is not None])


def _draw_layers(axes: Any, layers: Layers) -> None:
    """Where the layers stand: left of its mark a layer takes less than the quantised ANN."""
    rows, found = range(len(layers)), [energy for _, energy in layers]
    axes.barh(rows, [e.rate for e in found], color="#9ecae1", label="rate of spikes")
    marks = (("break_even", "|", "#b35900"), ("break_even_skipping", "d", _COLOURS[3]))
    for (name, mark, colour), other in zip(marks, _LABELS[2:], strict=True):
        values = [getattr(e, name) for e in found]
        label = f"break-even, {other}"
        axes.scatter(values, rows, marker=mark, color=colour, s=60, zorder=3, label=label)
    axes.set_yticks(rows, [_label(name) for name, _ in layers], fontsize=7)
    axes.invert_yaxis()
    axes.set_xlabel("spikes per synapse and tick, under the last of the models")
    axes.legend(fontsize=7, loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False)
