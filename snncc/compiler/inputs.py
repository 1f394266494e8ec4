"""How the network's input becomes integers: its contract, and where that comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from snncc.compiler.given import Given
from snncc.compiler.samples import Calibration, Samples, calibration_data
from snncc.errors import Option, UnsupportedModelError, UsageError, Words
from snncc.runtime.contract import InputContract

if TYPE_CHECKING:
    import onnx_ir as ir

    from snncc.passes.recognise.recognise_qdq import InputGrid

__all__ = ["OWN_GRID", "Inputs", "floats", "inputs_of_file", "inputs_of_module"]

Array = npt.NDArray[Any]

#: Origin of an input's range that the network itself says.
OWN_GRID = "the network's own quantiser"

_U8, _F32 = Option("input.mode", "u8"), Option("input.mode", "f32")
_MEAN, _STD, _RANGE = Option("input.mean"), Option("input.std"), Option("input.range")
_PIXELS = Words(_U8, " ", Option("input.mean", like="…"), " ", Option("input.std", like="…"))
_UNKNOWN_RANGE = Words(
    "the input's range is not known: give ", _PIXELS, " for raw pixels, or ",
    Option("calibration"), " or ", Option("input.range", like="LOW,HIGH"), " for real values",
)  # fmt: skip


@dataclass(frozen=True)
class Inputs:
    """What the network takes, and samples of it.

    Attributes:
        contract: How samples become integers.
        data: Calibration samples, if any.
        origins: Option -> where its value came from, as far as it was found here.
    """

    contract: InputContract
    data: Samples | None
    origins: Mapping[str, str]

    def of(self, model: ir.Model, patches: tuple[int, int] | None) -> Inputs:
        """The same under the name that the graph's input has, with a patch mask if it takes one.

        Raises:
            UsageError: There is no patch mask for such an input.
        """
        contract = replace(self.contract, name=str(model.graph.inputs[0].name))
        if patches is None:
            return replace(self, contract=contract)
        origins = {**self.origins, "mask": _origin_of_masks(self.data)}
        return replace(self, contract=_masked_contract(contract, patches), origins=origins)


def inputs_of_module(given: Given, calibration: Calibration | None) -> Inputs:
    """Those of a module, whose input is known before it is exported."""
    frames, shape = given.frames, given.shape
    data, origins = _data(given, calibration, frames.sample(shape))
    contract = _contract(given, shape, data, None)
    return Inputs(replace(contract, timesteps=frames.timesteps), data, origins)


def inputs_of_file(given: Given, model: ir.Model, calibration: Calibration | None) -> Inputs:
    """Those of a file, which says itself what it takes."""
    from snncc.passes.recognise.recognise_qdq import input_grid

    shape, grid = _input_shape(model), input_grid(model)
    data, origins = _data(given, calibration, shape)
    contract = _contract(given, shape, data, grid)
    if grid is not None and contract.dtype != "uint8":
        origins["input_range"] = OWN_GRID
    return Inputs(contract, data, origins)


def _data(
    given: Given, calibration: Calibration | None, shape: tuple[int, ...]
) -> tuple[Samples | None, dict[str, str]]:
    """Calibration samples, and what they were taken for that they were not as stored."""
    limit, masks = given.options.calibration_limit, given.patches is not None
    data = calibration_data(calibration, shape, limit, masks)
    notes = data.notes if data is not None else ()
    return data, {"calibration": ", ".join(notes)} if notes else {}


def _input_shape(model: ir.Model) -> tuple[int, ...]:
    """Shape of one sample, as the imported graph has it; a sequence's begins with T."""
    from snncc.ir.graphs import static_shape

    shape = static_shape(model.graph.inputs[0])
    if not shape:
        raise UnsupportedModelError("the input has no static shape after its batch axis")
    return shape


def _contract(
    given: Given, shape: tuple[int, ...], data: Samples | None, grid: InputGrid | None
) -> InputContract:
    """How the input becomes integers; its name and timesteps are the graph's.

    Args:
        given: Options and ``default_cfg``.
        shape: Of a sample; of a sequence that of one timestep.
        data: Calibration samples, if any.
        grid: On which the network quantises its input itself, if it does.
    """
    chosen = given.options.input
    mean = chosen.mean if chosen.mean is not None else given.config.get("mean")
    std = chosen.std if chosen.std is not None else given.config.get("std")
    known = mean is not None or std is not None
    mode = chosen.mode or ("u8" if known else "f32")
    if mode not in ("u8", "f32"):
        raise UsageError(Words(Option("input.mode", mode), ": u8 or f32"))
    if mode == "u8" and chosen.range is not None:
        raise UsageError(Words(_RANGE, " belongs to ", _F32))
    if mode == "u8":
        return _u8_contract("", shape, floats(mean, 0.0), floats(std, 1.0))
    if chosen.mean is not None or chosen.std is not None:
        raise UsageError(Words(_MEAN, " and ", _STD, " belong to ", _U8))
    if grid is None:
        return _f32_contract("", shape, chosen.range or _range_of(data))
    if chosen.range is not None:
        told = "the network quantises its input itself; leave "
        raise UsageError(Words(told, _RANGE, " out"))
    return _own_contract(shape, grid)


def _own_contract(shape: tuple[int, ...], grid: InputGrid) -> InputContract:
    """On the network's own grid."""
    scale = grid.scale if len(grid.scale) > 1 else grid.scale[0]
    return InputContract(
        "", shape, "float32", scale=scale, zero_point=grid.zero_point, top=grid.top
    )


def _u8_contract(
    name: str, shape: tuple[int, ...], mean: tuple[float, ...], std: tuple[float, ...]
) -> InputContract:
    """Raw pixels: exact, the normalisation is folded into the first layer."""
    if any(len(v) not in (1, shape[0]) for v in (mean, std)):
        told = f": one number, or one for each of {shape[0]}"
        raise UsageError(Words(Option("input.mean", mean), " ", Option("input.std", std), told))
    if min(std) <= 0:
        raise UsageError(Words(Option("input.std", std), ": must be positive"))
    means, stds = (np.broadcast_to(v, shape[0]).tolist() for v in (mean, std))
    scale = tuple(1 / (255 * s) for s in stds)
    offset = tuple(-m / s for m, s in zip(means, stds, strict=True))
    return InputContract(name, shape, "uint8", tuple(means), tuple(stds), scale, offset)


def _f32_contract(
    name: str, shape: tuple[int, ...], limits: tuple[float, float] | None
) -> InputContract:
    """Real values on 256 steps from low to high."""
    if limits is None:
        raise UsageError(_UNKNOWN_RANGE)
    low, high = limits
    if not np.isfinite([low, high]).all() or not low < high:
        raise UsageError(Words(Option("input.range", (low, high)), ": low must be below high"))
    return InputContract(name, shape, "float32", scale=(high - low) / 255, offset=low)


def _masked_contract(contract: InputContract, patches: tuple[int, int]) -> InputContract:
    """The contract with a patch mask as second input."""
    if contract.dtype != "uint8":
        told = Words(" is for raw pixels: give ", _MEAN, " and ", _STD, ", or ", _U8)
        raise UsageError(Words(Option("patch_mask"), told))
    return replace(contract, patches=patches)


def _range_of(data: Samples | None) -> tuple[float, float] | None:
    """Smallest and largest value of real samples."""
    if data is None or data.x.dtype == np.uint8:
        return None
    return float(data.x.min()), float(data.x.max())


def floats(values: Sequence[float] | float | None, default: float) -> tuple[float, ...]:
    """One or more numbers as a tuple."""
    if values is None:
        return (default,)
    try:
        return tuple(float(v) for v in np.atleast_1d(np.asarray(values, dtype=np.float64)))
    except (TypeError, ValueError) as e:
        raise UsageError(f"mean or std {values!r}: numbers are expected") from e


def _origin_of_masks(data: Samples | None) -> str:
    """Whose masks a network with patches is checked with, for people."""
    if data is not None and data.mask is not None:
        return "the calibration data"
    return "random, half of the patches" + ("" if data is None else ": the data has none")
