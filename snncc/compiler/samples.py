"""The samples of a compilation: calibration data or noise, and which of them serve what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from snncc.compiler.given import Given
from snncc.errors import BadInputError, Option, Words
from snncc.ir.names import PIXELS
from snncc.runtime.coding import Dataset, check_input, read_data
from snncc.runtime.contract import InputContract
from snncc.runtime.masks import MASK, check_mask, random_masks

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["CHECKED", "Calibration", "Feeds", "Samples", "calibration_data", "feeds_for", "halves"]

Array = npt.NDArray[Any]
#: Samples on which changes are measured, or the path of their file.
Calibration = Dataset | Array | str | Path

#: Samples on which passes are validated and layers compared one by one: so many at most.
CHECKED = 8

_DTYPES = (np.uint8, np.float32, np.float64)


@dataclass(frozen=True)
class Samples:
    """Samples, their patch masks if there are any, and what ``Dataset.notes`` says of them.

    ``where`` is what messages call them: a file.
    """

    x: Array
    mask: Array | None = None
    notes: tuple[str, ...] = ()
    where: str = "calibration"


@dataclass(frozen=True)
class Feeds:
    """Samples under every name that the input has in any stage, by what they serve.

    Attributes:
        whole: All of them.
        checked: The first few, on which passes are validated.
        spread: As many from all over the data, as the first of them may be alike: import is
            validated on these.
        fitted: To choose weights and bits with; None: there is no calibration data.
        judged: To measure with what these change; None likewise.
    """

    whole: Mapping[str, Array]
    checked: Mapping[str, Array]
    spread: Mapping[str, Array]
    fitted: Mapping[str, Array] | None
    judged: Mapping[str, Array] | None


def feeds_for(
    given: Given, contract: InputContract, data: Samples | None, model: ir.Model
) -> Feeds:
    """The calibration data, or noise where there is none, for a network of the model's size.

    Raises:
        BadInputError: The data does not fit the contract.
    """
    from snncc.ir.oracle import affordable

    wanted = max(CHECKED, given.options.verify_samples or 0)
    whole = _feeds_of(contract, data if data is not None else _noise(contract, wanted))
    count = affordable(model, CHECKED)
    checked = {name: x[:count] for name, x in whole.items()}
    spread = _spread(whole, len(next(iter(checked.values()))))
    if data is None:
        return Feeds(whole, checked, spread, None, None)
    return Feeds(whole, checked, spread, *_chosen_and_judged(given, whole))


def _chosen_and_judged(
    given: Given, feeds: Mapping[str, Array]
) -> tuple[Mapping[str, Array], Mapping[str, Array]]:
    """Data to choose weights and bits with, and other data to measure what they change."""
    options = given.options
    chooses = given.bits == "auto" or options.rounding == "data"
    return halves(feeds) if chooses or options.bias_correction else (feeds, feeds)


def halves(feeds: Mapping[str, Array]) -> tuple[dict[str, Array], dict[str, Array]]:
    """Samples to choose with and others to judge by; a single one does both."""
    half = len(next(iter(feeds.values()))) // 2
    return (
        {name: x[: half or None] for name, x in feeds.items()},
        {name: x[half:] for name, x in feeds.items()},
    )


def _spread(feeds: Mapping[str, Array], count: int) -> dict[str, Array]:
    """So many samples from all over the data: the first of them may be alike."""
    size = len(next(iter(feeds.values())))
    chosen = [i * size // count for i in range(count)]
    return {name: x[chosen] for name, x in feeds.items()}


def calibration_data(
    calibration: Calibration | None,
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


def _noise(contract: InputContract, samples: int) -> Samples:
    """Samples for checks that hold on any data; nothing is *measured* on them."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (samples, *contract.sample), dtype=np.uint8)
    if contract.dtype == "uint8":
        return Samples(pixels)
    low, step = contract.low[0], np.ravel(contract.scale)[0]
    return Samples(np.asarray(pixels * np.float32(step) + np.float32(low), dtype=np.float32))


def _feeds_of(contract: InputContract, data: Samples) -> dict[str, Array]:
    """The input under both its names: as the trained network takes it, and as integers.

    With patches also the masks, which are random ones where the data has none.
    """
    x = data.x
    if contract.dtype == "uint8" and x.dtype != np.uint8:
        told = f"{data.where}: float samples for a uint8 input; give raw pixels, or "
        raise BadInputError(Words(told, Option("input.mode", "f32")))
    if contract.dtype != "uint8" and x.dtype == np.uint8:
        told = f"{data.where}: uint8 samples for a float input; use "
        raise BadInputError(Words(told, Option("input.mode", "u8")))
    real = contract.normalised(x) if contract.dtype == "uint8" else x
    if not contract.patches:
        return {
            contract.name: real,
            f"{contract.name}{PIXELS}": contract.encode(x, where=data.where),
        }
    given = data.mask if data.mask is not None else random_masks(len(x), contract.patches)
    mask = check_mask(given, len(x), contract.patches, f"{data.where}: {MASK}")
    integers = contract.encode(x, mask=mask)
    return {
        contract.name: real,
        f"{contract.name}{PIXELS}": integers,
        MASK: mask.astype(np.float32),
    }
