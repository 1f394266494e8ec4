"""What neurons do on samples: histograms of spike counts, and maps of single samples.

A neuron fires all spikes of a timestep from its first tick on, so that a count c says the whole
train of D ticks: 1 in ticks 0 ... c-1. The page draws trains from counts.
"""

from __future__ import annotations

import zlib
from base64 import b64decode, b64encode
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from snncc.program import Neuron
    from snncc.runtime.artifact import CompiledModel
    from snncc.runtime.reference import Reference

__all__ = ["MOST_MAPS", "recorded", "shown_maps", "stored_maps"]

Array = npt.NDArray[Any]

#: Characters of maps that a page may hold. Samples that would go beyond are left out, whole.
MOST_MAPS = 24 * 2**20


def recorded(model: CompiledModel) -> dict[str, Any] | None:
    """Activity on the samples that the file keeps with their counts; None: it keeps none.

    Its ``populations`` are as those of a profile.
    """
    kept = model.reference
    if kept is None or not kept.counts:
        return None
    rows = [_population(n, kept.counts[n.name]) for n in model.program.neurons]
    return {"samples": len(kept.x), "populations": rows}


def _population(neuron: Neuron, counts: Array) -> dict[str, Any]:
    """Of counts uint8 (T, N, *shape)."""
    by_time = [np.bincount(step.ravel(), minlength=neuron.D + 1) for step in counts]
    size, total = prod(counts.shape[1:]), np.sum(by_time, axis=0)
    numbers = np.arange(len(total))
    return {
        "name": neuron.name,
        "module": neuron.module,
        "neurons": prod(neuron.shape),
        "D": neuron.D,
        "window": neuron.depth,
        "nsfr": [(h[:0:-1].cumsum()[::-1] / size).tolist() for h in by_time],
        "mean_count": float(total @ numbers / counts.size),
        "nonzero": float(1 - total[0] / counts.size),
        "saturated": float(total[neuron.D] / counts.size),
        "histogram": total.tolist(),
        "silent": int((counts.max(axis=(0, 1)) == 0).sum()),
        "spikes": float(total @ numbers / counts.shape[1]),
    }


# -- maps ----------------------------------------------------------------------------------


def stored_maps(model: CompiledModel) -> dict[str, Any] | None:
    """Maps of the samples that the file keeps with their counts; None: it keeps none."""
    kept = model.reference
    if kept is None or not kept.counts:
        return None
    shape, numbers = model.program.source.shape, range(len(kept.x))
    # Of sequences x has T already; what is shown in every timestep is one.
    x = kept.x.reshape(len(kept.x), -1, *shape)
    return _limited("reference", len(x), (_of_reference(kept, x[i], i) for i in numbers))


def _of_reference(kept: Reference, x: Array, index: int) -> dict[str, Any]:
    counts = {name: _map(array[:, index]) for name, array in kept.counts.items()}
    return {"index": index, "input": _map(x), "counts": counts}


def shown_maps(maps: dict[str, Any], origin: str) -> dict[str, Any]:
    """Maps of a profile, as the page holds them."""
    given = maps["samples"]
    return _limited(origin, len(given), map(_of_profile, given))


def _of_profile(sample: dict[str, Any]) -> dict[str, Any]:
    counts = {name: _map(_array(held)) for name, held in sample["counts"].items()}
    return {"index": sample["index"], "input": _map(_array(sample["input"])), "counts": counts}


def _array(held: dict[str, Any]) -> Array:
    """The map of a profile, uint8."""
    return np.asarray(np.frombuffer(b64decode(held["data"]), np.uint8).reshape(held["shape"]))


def _map(array: Array) -> dict[str, Any]:
    """Shape and bytes, deflated: most are 0."""
    packer = zlib.compressobj(6, wbits=-zlib.MAX_WBITS)
    data = packer.compress(np.ascontiguousarray(array, dtype=np.uint8).tobytes()) + packer.flush()
    return {"shape": list(array.shape), "data": b64encode(data).decode()}


def _limited(origin: str, available: int, samples: Any) -> dict[str, Any]:
    """Samples from the first on, as long as there is room."""
    found: list[dict[str, Any]] = []
    left = MOST_MAPS
    for sample in samples:
        left -= sum(len(held["data"]) for held in sample["counts"].values())
        if left < 0:
            break
        found.append(sample)
    return {"origin": origin, "available": available, "samples": found}
