"""Rounding that looks at data: integer weights whose potentials err least on what layers read.

Layers are taken one by one, each fed with the trained network's own activations. Errors of weights
are known; what they do to a potential depends on the mean and the products of the inputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from snncc.errors import Option, UsageError, Words
from snncc.ir.oracle import evaluate
from snncc.passes.integers.feedback import LARGEST, round_with_feedback
from snncc.passes.integers.shared_grids import QuantisedLayer, largest_weight
from snncc.passes.reading import Linear

__all__ = ["Fit", "fit", "wanted_fit"]

Array = npt.NDArray[Any]
Real = npt.NDArray[np.float64]

_SAMPLES = 256
#: Input windows per layer that moments are taken of.
_ROWS = 16384


@dataclass(frozen=True)
class Fit:
    """How the data is used.

    Attributes:
        feeds: Inputs of the graph under all their names.
        bias_correction: Each channel's mean error is taken off its bias.
        rounding: ``nearest``, or ``data``: each weight's error is made up for by the weights after
            it, as far as their inputs go together.
    """

    feeds: Mapping[str, Array] = field(repr=False)
    bias_correction: bool = True
    rounding: str = "nearest"


def wanted_fit(
    feeds: Mapping[str, Array] | None,
    bits: int | str,
    rounding: str,
    bias_correction: bool | None,
) -> Fit | None:
    """What the options ask for; None for rounding to nearest alone.

    Args:
        feeds: Calibration data, if there is any.
        bits: A number, or ``auto``.
        rounding: ``nearest`` or ``data``.
        bias_correction: None: with rounding ``data``.

    Raises:
        UsageError: Unknown words, or data is needed and there is none.
    """
    if rounding not in ("nearest", "data"):
        raise UsageError(Words(Option("rounding", rounding), ": nearest or data"))
    if isinstance(bits, str) and bits != "auto":
        raise UsageError(Words(Option("weight_bits", bits), ": 4 to 24, or auto"))
    wanting = {"weight_bits": "auto", "rounding": "data", "bias_correction": True}
    given = {"weight_bits": bits, "rounding": rounding, "bias_correction": bool(bias_correction)}
    asked = [Option(name, value) for name, value in wanting.items() if given[name] == value]
    if feeds is None and asked:
        raise UsageError(Words(asked[0], " needs ", Option("calibration")))
    correct = rounding == "data" if bias_correction is None else bias_correction
    wanted = feeds is not None and (correct or rounding == "data")
    return Fit(feeds or {}, correct, rounding) if wanted else None


def fit(
    model: ir.Model, planned: Mapping[ir.Value, QuantisedLayer], how: Fit
) -> dict[ir.Value, QuantisedLayer]:
    """The layers with other weights and biases on the same grids.

    Args:
        model: In stage ``integer``, after fold-scale.
        planned: By result value; layers that lose nothing stay as they are, as do those that read
            integers of potentials, which are not in the data.
        how: See Fit.
    """
    lossy = [
        layer for layer in planned.values() if layer.linear.payload is None and _loss(layer).any()
    ]
    names = list(dict.fromkeys(str(layer.linear.x.name) for layer in lossy))
    few = {name: x[:_SAMPLES] for name, x in how.feeds.items()}
    inputs = evaluate(model, few, names)
    fitted = dict(planned)
    for layer in lossy:
        fitted[layer.linear.out] = _fit(layer, inputs[str(layer.linear.x.name)], how)
    return fitted


def _fit(layer: QuantisedLayer, x: Array, how: Fit) -> QuantisedLayer:
    rows = _windows(layer.linear, x).astype(np.float64)
    one_step = isinstance(layer.shift, int)  # errors of other steps cannot be made up for
    if how.rounding == "data" and rows.shape[2] <= LARGEST and one_step:
        weight = _with_feedback(layer, rows, how.bias_correction)
        layer = replace(layer, weight=np.where(layer.rows(), layer.weight, weight))
    return replace(layer, bias=_corrected(layer, rows)) if how.bias_correction else layer


def _loss(layer: QuantisedLayer) -> Real:
    """Errors of the weights, in units of them; channels that are kept have none."""
    return np.where(layer.rows(), 0.0, layer.weight - layer.exact_weight())


def _corrected(layer: QuantisedLayer, rows: Real) -> npt.NDArray[np.int64]:
    """The bias without each channel's mean error."""
    errors = _by_group(_loss(layer) * 2.0 ** np.asarray(layer.shift), rows.shape[1])
    mean = np.einsum("gok,gk->go", errors, rows.mean(axis=0)).reshape(-1)
    exact = layer.exact_bias()
    whole = np.rint(exact - mean.reshape(-1, *(1,) * (layer.bias.ndim - 1)))
    near = np.abs(exact) < 2.0**40  # larger ones decide alone, and are clipped
    kept = np.broadcast_to(layer.kept, len(whole)).reshape(-1, *(1,) * (layer.bias.ndim - 1))
    return np.where(near & ~kept, whole, layer.bias).astype(np.int64)


def _by_group(rows: Real, groups: int) -> Real:
    """Weights as (groups, outputs, inputs)."""
    return rows.reshape(groups, len(rows) // groups, -1)


def _windows(linear: Linear, x: Array) -> Array:
    """What single outputs read: (rows, groups, inputs); at most ``_ROWS``, drawn by chance."""
    rng = np.random.default_rng(0)
    if linear.kind == "gemm":
        return x[:, None, :]
    top, left, bottom, right = linear.pads
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    (dh, dw), (sh, sw) = linear.dilations, linear.strides
    kh, kw = linear.weight.shape[2:]
    span = (dh * (kh - 1) + 1, dw * (kw - 1) + 1)
    views = np.lib.stride_tricks.sliding_window_view(padded, span, axis=(2, 3))
    views = views[:, :, ::sh, ::sw, ::dh, ::dw].transpose(0, 2, 3, 1, 4, 5)
    total = int(np.prod(views.shape[:3]))
    chosen = np.sort(rng.choice(total, min(_ROWS, total), replace=False))
    rows = views[np.unravel_index(chosen, views.shape[:3])]
    return np.asarray(rows.reshape(len(rows), linear.group, -1))


# -- rounding ------------------------------------------------------------------------------


def _with_feedback(layer: QuantisedLayer, rows: Real, centred: bool) -> npt.NDArray[np.int64]:
    """Weights rounded one input after the other, the rest making up for each error.

    With the bias corrected only the variance of a potential's error counts.
    """
    w, done = _by_group(layer.exact_weight(), rows.shape[1]), []
    for g, weights in enumerate(w):
        seen = rows[:, g] - centred * rows[:, g].mean(axis=0)
        products = seen.T @ seen / len(seen)
        done.append(round_with_feedback(weights, products, largest_weight(layer.bits)))
    return np.stack(done).reshape(layer.weight.shape).astype(np.int64)
