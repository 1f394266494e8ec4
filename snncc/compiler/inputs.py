"""How the compiler sees its data: the input contract, calibration samples, feeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from snncc.errors import BadInputError, UnsupportedModelError, UsageError
from snncc.ir.names import PIXELS
from snncc.runtime.coding import Dataset, check_input, read_data
from snncc.runtime.contract import InputContract
from snncc.runtime.masks import MASK, check_mask, random_masks

if TYPE_CHECKING:
    import onnx_ir as ir

    from snncc.frontends.sequences import Frames

__all__ = [
    "OWN_GRID",
    "Samples",
    "calibration_data",
    "f32_contract",
    "feeds_of",
    "floats",
    "frames_of",
    "halves",
    "input_shape",
    "masked_contract",
    "noise",
    "origin_of_masks",
    "patches_of",
    "range_of",
    "u8_contract",
]

Array = npt.NDArray[Any]

#: Origin of an input's range that the network itself says.
OWN_GRID = "the network's own quantiser"

_DTYPES = (np.uint8, np.float32, np.float64)


def input_shape(model: ir.Model) -> tuple[int, ...]:
    """Shape of one sample, as the imported graph has it; a sequence's begins with T."""
    from snncc.ir.graphs import static_shape

    shape = static_shape(model.graph.inputs[0])
    if not shape:
        raise UnsupportedModelError("the input has no static shape behind its batch axis")
    return shape


def frames_of(timesteps: int | None, batch_first: bool | None, config: Mapping[str, Any]) -> Frames:
    """Whether a module reads sequences, and how: as given, else as its ``default_cfg`` says."""
    from snncc.frontends.sequences import Frames

    T = config.get("timesteps", 0) if timesteps is None else timesteps
    if type(T) is not int or T < 0 or timesteps == 0:
        raise UsageError(f"timesteps {T!r}: a positive integer is expected")
    if batch_first and not T:
        raise UsageError("batch_first belongs to sequences: give timesteps, too")
    first = config.get("batch_first", False) if batch_first is None else batch_first
    return Frames(T, bool(first))


@dataclass(frozen=True)
class Samples:
    """Samples, their patch masks if there are any, and what ``Dataset.notes`` says of them.

    ``where`` is what messages call them: a file.
    """

    x: Array
    mask: Array | None = None
    notes: tuple[str, ...] = ()
    where: str = "calibration"


def calibration_data(
    calibration: Dataset | Array | str | Path | None,
    shape: tuple[int, ...],
    limit: int | None,
    masks: bool = False,
) -> Samples | None:
    """Samples from wherever they are, checked against the network's input.

    Args:
        calibration: Data, or its path.
        shape: One sample.
        limit: At most so many.
        masks: Whether the network takes patch masks.
    """
    if calibration is None:
        return None
    if isinstance(calibration, (str, Path)):
        calibration = read_data(calibration, shape=shape, limit=limit, masks=masks)
    given: Dataset | Samples
    if isinstance(calibration, Dataset):
        given, where = calibration, f"{calibration.origin}: calibration"
    else:
        given, where = Samples(np.asarray(calibration)), "calibration"
    if len(given.x) == 0:
        raise BadInputError(f"{where}: no samples")
    mask = given.mask if masks else None
    if mask is not None and np.shape(mask)[:1] != (len(given.x),):
        found = f"mask of shape {list(np.shape(mask))} for {len(given.x)} samples"
        raise BadInputError(f"{where}: {found}; give one mask for each")
    if given.x.dtype not in _DTYPES:
        hint = "give raw pixels as uint8, or real values as float32"
        raise BadInputError(f"{where}: dtype {given.x.dtype}; {hint}")
    dtype = "uint8" if given.x.dtype == np.uint8 else "float32"
    x = check_input(given.x[:limit], shape, dtype, where)
    return Samples(x, None if mask is None else mask[:limit], given.notes, where)


def noise(contract: InputContract, samples: int) -> Samples:
    """Samples for checks that hold on any data; nothing is *measured* on them."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (samples, *contract.sample), dtype=np.uint8)
    if contract.dtype == "uint8":
        return Samples(pixels)
    low, step = contract.low[0], np.ravel(contract.scale)[0]
    return Samples(np.asarray(pixels * np.float32(step) + np.float32(low), dtype=np.float32))


def feeds_of(contract: InputContract, data: Samples) -> dict[str, Array]:
    """The input under both its names: as the trained network takes it, and as integers.

    With patches also the masks, which are random ones where the data has none.
    """
    x = data.x
    if contract.dtype == "uint8" and x.dtype != np.uint8:
        hint = "give raw pixels, or --input f32"
        raise BadInputError(f"{data.where}: float samples for a uint8 input; {hint}")
    if contract.dtype != "uint8" and x.dtype == np.uint8:
        raise BadInputError(f"{data.where}: uint8 samples for a float input; use --input u8")
    real = contract.normalised(x) if contract.dtype == "uint8" else x
    pixels = f"{contract.name}{PIXELS}"
    if not contract.patches:
        return {contract.name: real, pixels: contract.encode(x, where=data.where)}
    given = data.mask if data.mask is not None else random_masks(len(x), contract.patches)
    mask = check_mask(given, len(x), contract.patches, f"{data.where}: {MASK}")
    integers = contract.encode(x, mask=mask)
    return {contract.name: real, pixels: integers, MASK: mask.astype(np.float32)}


def u8_contract(
    name: str, shape: tuple[int, ...], mean: tuple[float, ...], std: tuple[float, ...]
) -> InputContract:
    """Raw pixels: exact, the normalisation is folded into the first layer."""
    if any(len(v) not in (1, shape[0]) for v in (mean, std)):
        raise UsageError(f"--mean {mean} --std {std}: one number, or one for each of {shape[0]}")
    if min(std) <= 0:
        raise UsageError(f"--std {std}: must be positive")
    means, stds = (np.broadcast_to(v, shape[0]).tolist() for v in (mean, std))
    scale = tuple(1 / (255 * s) for s in stds)
    offset = tuple(-m / s for m, s in zip(means, stds, strict=True))
    return InputContract(name, shape, "uint8", tuple(means), tuple(stds), scale, offset)


def f32_contract(
    name: str, shape: tuple[int, ...], limits: tuple[float, float] | None
) -> InputContract:
    """Real values on 256 steps from low to high."""
    if limits is None:
        raise UsageError(
            "the input's range is not known: give --input u8 --mean … --std … for raw pixels, or "
            "--calibration or --input-range LOW,HIGH for real values"
        )
    low, high = limits
    if not np.isfinite([low, high]).all() or not low < high:
        raise UsageError(f"--input-range {low},{high}: low must be below high")
    return InputContract(name, shape, "float32", scale=(high - low) / 255, offset=low)


def masked_contract(contract: InputContract, patches: tuple[int, int]) -> InputContract:
    """The contract with a patch mask as second input."""
    if contract.dtype != "uint8":
        raise UsageError("--patch-mask is for raw pixels: give --mean and --std, or --input u8")
    return replace(contract, patches=patches)


def halves(feeds: Mapping[str, Array]) -> tuple[dict[str, Array], dict[str, Array]]:
    """Samples to choose with and others to judge by; a single one does both."""
    half = len(next(iter(feeds.values()))) // 2
    return (
        {name: x[: half or None] for name, x in feeds.items()},
        {name: x[half:] for name, x in feeds.items()},
    )


def range_of(data: Array | None) -> tuple[float, float] | None:
    """Smallest and largest value of real samples."""
    if data is None or data.dtype == np.uint8:
        return None
    return float(data.min()), float(data.max())


def floats(values: Sequence[float] | float | None, default: float) -> tuple[float, ...]:
    """One or more numbers as a tuple."""
    if values is None:
        return (default,)
    try:
        return tuple(float(v) for v in np.atleast_1d(np.asarray(values, dtype=np.float64)))
    except (TypeError, ValueError) as e:
        raise UsageError(f"mean or std {values!r}: numbers are expected") from e


def patches_of(given: Sequence[int] | None) -> tuple[int, int] | None:
    """The number of patches, of two positive integers."""
    if given is None:
        return None
    sizes = tuple(given) if isinstance(given, Sequence) else ()
    if len(sizes) != 2 or not all(type(n) is int and n > 0 for n in sizes):
        raise UsageError(f"--patch-mask {given!r}: H,W is expected, the number of patches")
    return sizes[0], sizes[1]


def origin_of_masks(data: Samples | None) -> str:
    """Whose masks a network with patches is checked with, for people."""
    if data is not None and data.mask is not None:
        return "the calibration data"
    return "random, half of the patches" + ("" if data is None else ": the data has none")
