from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_model import compiled

from snncc.errors import BadInputError
from snncc.runtime.coding import read_data
from snncc.runtime.contract import InputContract
from snncc.runtime.masks import check_mask, random_masks, with_planes
from snncc.runtime.session import Session

PATCHES = st.tuples(st.integers(1, 4), st.integers(1, 4))
CONTRACT = InputContract("x", (2, 4, 6), patches=(2, 3))


def some(n: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (n, 2, 4, 6), np.uint8), rng.integers(0, 2, (n, 1, 2, 3), np.uint8)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64", "float32", "float64"])
@pytest.mark.parametrize("channel", [True, False])
def test_a_mask_is_zeros_and_ones_of_any_number_type_with_or_without_channel(
    dtype: str, channel: bool
) -> None:
    _, mask = some()
    given_mask = mask.astype(dtype) if channel else mask[:, 0].astype(dtype)
    found = check_mask(given_mask, 3, (2, 3))
    assert (found.dtype, found.shape) == (np.uint8, (3, 1, 2, 3))
    np.testing.assert_array_equal(found, mask)


def test_without_a_mask_every_patch_is_active() -> None:
    assert check_mask(None, 2, (2, 3)).tolist() == np.ones((2, 1, 2, 3)).tolist()


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.ones((3, 2, 2, 3)), r"shape \[3, 2, 2, 3\], the network takes \[3, 1, 2, 3\]"),
        (np.ones((3, 1, 3, 2)), r"shape \[3, 1, 3, 2\].*one mask of 2x3 patches for each sample"),
        (np.ones((2, 1, 2, 3)), r"shape \[2, 1, 2, 3\]"),
        (np.ones(()), r"shape \[\]"),
        (np.full((3, 2, 3), 2), r"2 at index \[0, 0, 0\], 18 such values; 1 is an active patch"),
        (np.full((3, 2, 3), np.nan), "nan at index"),
        (np.full((3, 2, 3), -1, np.int8), "-1 at index"),
        (np.full((3, 2, 3), "1"), "<U1, not a numpy array of zeros and ones"),
        ([[1]], "list, not a numpy array"),
    ],
)
def test_what_is_no_mask_of_the_samples_is_refused(mask: np.ndarray, message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        check_mask(mask, 3, (2, 3))


def test_masked_pixels_are_zero_and_planes_say_where() -> None:
    x, mask = some()
    found = with_planes(x, mask)
    masked = mask.repeat(2, 2).repeat(2, 3)[:, [0, 0]] == 0
    assert (found.dtype, found.shape) == (np.uint8, (3, 4, 4, 6))
    np.testing.assert_array_equal(found[:, :2], np.where(masked, 0, x))
    np.testing.assert_array_equal(found[:, 2:], np.where(masked, 255, 0))


@given(st.integers(1, 5), PATCHES)
def test_random_masks_leave_half_of_the_patches_rounded_up(
    n: int, patches: tuple[int, int]
) -> None:
    masks = random_masks(n, patches)
    count = patches[0] * patches[1]
    assert masks.sum((1, 2, 3)).tolist() == [(count + 1) // 2] * n
    np.testing.assert_array_equal(masks, random_masks(n, patches))


# -- the contract ---------------------------------------------------------------------------


def test_the_contract_takes_samples_and_masks() -> None:
    x, mask = some()
    assert CONTRACT.source_shape == (4, 4, 6)
    np.testing.assert_array_equal(CONTRACT.encode(x, mask=mask), with_planes(x, mask))
    whole = with_planes(x, np.ones_like(mask))
    np.testing.assert_array_equal(CONTRACT.encode(x), whole)


def test_patches_are_for_one_image_a_sample() -> None:
    with pytest.raises(BadInputError, match="patches"):
        InputContract.from_json({**CONTRACT.to_json(), "timesteps": 2})


def test_the_contract_says_so_in_plain_data_and_only_with_a_mask() -> None:
    data = CONTRACT.to_json()
    assert data["patches"] == [2, 3]
    assert InputContract.from_json(data) == CONTRACT
    assert "patches" not in InputContract("x", (2, 4, 6)).to_json()


@pytest.mark.parametrize("patches", [[3, 3], [2], [2, 3, 1], [0, 3], [2.0, 3], "23", [True, 1], 2])
def test_patches_that_do_not_cover_the_image_are_refused(patches: object) -> None:
    with pytest.raises(BadInputError, match="patches"):
        InputContract.from_json({**CONTRACT.to_json(), "patches": patches})


def test_patches_are_for_images_of_raw_pixels() -> None:
    for change in ({"dtype": "float32"}, {"shape": [48]}):
        with pytest.raises(BadInputError, match="patches"):
            InputContract.from_json({**CONTRACT.to_json(), **change})


def test_a_network_for_whole_images_takes_no_mask() -> None:
    with pytest.raises(BadInputError, match="compiled for whole images"):
        InputContract("x", (2, 4, 6)).encode(*some()[:1], mask=some()[1])
    assert [entry.name for entry in Session(compiled()).get_inputs()] == ["x"]


# -- files ----------------------------------------------------------------------------------


def test_masks_are_read_beside_the_samples_where_they_are_wanted(tmp_path: Path) -> None:
    x, mask = some()
    path = tmp_path / "data.npz"
    np.savez(path, x=x, mask=mask.astype(bool))
    read = read_data(path, masks=True)
    np.testing.assert_array_equal(read.mask, mask)
    assert read_data(path).mask is None
    few = read_data(path, masks=True, limit=2)
    assert (len(few), len(few.mask)) == (2, 2)
    np.testing.assert_array_equal(few.take(1).mask, mask[:1])


def test_a_file_without_masks_has_none(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", some()[0])
    np.savez(tmp_path / "x.npz", images=some()[0])
    assert read_data(tmp_path / "x.npy", masks=True).mask is None
    assert read_data(tmp_path / "x.npz", masks=True).mask is None


def test_a_mask_is_never_taken_for_the_samples(tmp_path: Path) -> None:
    x, mask = some()
    np.savez(tmp_path / "pair.npz", pictures=x, mask=mask)
    np.testing.assert_array_equal(read_data(tmp_path / "pair.npz").x, x)


@pytest.mark.parametrize("mask", [np.ones((2, 1, 2, 3)), np.ones(())])
def test_a_mask_for_each_sample_is_wanted_before_samples_are_left_out(
    tmp_path: Path, mask: np.ndarray
) -> None:
    np.savez(tmp_path / "data.npz", x=some()[0], mask=mask)
    with pytest.raises(BadInputError, match=r"data\.npz: mask .* for 3 samples; give one mask for"):
        read_data(tmp_path / "data.npz", masks=True, limit=2)
