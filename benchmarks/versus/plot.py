"""The results as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from snncc.errors import MissingDependencyError
from versus.peers import PEERS
from versus.trial import OURS

__all__ = ["draw"]

_LABELS = {
    OURS: "snncc",
    "ort_fp32": "ONNX Runtime fp32",
    "ort_int8": "ONNX Runtime int8",
    "ort_int8_offset": "ONNX Runtime int8, zero point -1",
    "torch_fp32": "PyTorch eager fp32",
    "spikingjelly": "SpikingJelly",
    "spikingjelly_at_once": "SpikingJelly, fires at once",
}
_COLOURS = {
    OURS: "#c23b22",
    "ort_fp32": "#30638e",
    "ort_int8": "#6ba3d0",
    "ort_int8_offset": "#a9cce3",
    "torch_fp32": "#8d6a9f",
    "spikingjelly": "#5b8c5a",
    "spikingjelly_at_once": "#a3c19b",
}
_GROWTH = {
    "growth_d": ("d, fraction of activations that is not zero", "density"),
    "growth_D": ("D, ticks of a burst", ""),
    "growth_width": ("width, factor on the channels", ""),
}


def draw(found: Mapping[str, Any], path: Path) -> None:
    """Writes a PNG: times of all cases, and how they grow.

    Args:
        found: The document of ``report.document``.
        path: Of the file.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as e:
        raise MissingDependencyError("no PNG without matplotlib: pip install 'snncc[plot]'") from e
    grown = [s for s in _GROWTH if s in found]
    figure = Figure(figsize=(11, 4 + 3.6 * bool(grown)), layout="constrained")
    parts = figure.subfigures(2, 1, height_ratios=[1.1, 1]) if grown else [figure.subfigures()]
    _bars(parts[0].subplots(), [c for c in found["cases"] if c["section"] not in _GROWTH])
    if grown:
        axes = parts[1].subplots(1, len(grown), squeeze=False)[0]
        for ax, section in zip(axes, grown, strict=True):
            _lines(ax, section, [c for c in found["cases"] if c["section"] == section])
    chosen = found["settings"]
    figure.suptitle(
        f"{found['machine']['cpu']}, threads {chosen['threads']}, batch {chosen['batch']}, "
        f"engine {chosen['engine']}"
    )
    figure.savefig(path, dpi=130)


def _bars(ax: Any, cases: Sequence[Mapping[str, Any]]) -> None:
    names = [n for n in (OURS, *PEERS) if any(n in c["ms"] for c in cases)]
    width = 0.84 / max(len(names), 1)
    for i, name in enumerate(names):
        bars = [(at, c["ms"][name]["median"]) for at, c in enumerate(cases) if name in c["ms"]]
        places = [at + width * (i - (len(names) - 1) / 2) for at, _ in bars]
        heights = [ms for _, ms in bars]
        ax.bar(places, heights, width, label=_LABELS[name], color=_COLOURS[name])
    ax.set_xticks(range(len(cases)), [f"{c['section']}\n{c['key']}" for c in cases], fontsize=8)
    ax.set_yscale("log")
    ax.set_ylabel("ms per sample, median")
    ax.legend(fontsize=8, ncols=len(names), loc="lower center", bbox_to_anchor=(0.5, 1))
    ax.grid(axis="y", alpha=0.3)


def _lines(ax: Any, section: str, cases: Sequence[Mapping[str, Any]]) -> None:
    label, measured = _GROWTH[section]
    for name in (OURS, *PEERS):
        points = [
            (c["work"][measured] if measured else float(c["key"]), c["ms"][name]["median"])
            for c in cases
            if name in c["ms"]
        ]
        if points:
            ax.plot(*zip(*points, strict=True), "o-", ms=4, color=_COLOURS[name])
    ax.set_yscale("log")
    ax.set_xlabel(label)
    ax.set_ylabel("ms per sample")
    ax.grid(alpha=0.3)
