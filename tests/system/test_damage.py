"""A file that is cut off, wherever, is said to be, with what to do; never what the decoder said."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_model
import torch
from exported_files import import_exported
from float_networks import Net

from snncc.errors import BadInputError
from snncc.frontends.checkpoint import read_weights
from snncc.frontends.onnx_file import import_onnx
from snncc.runtime.artifact import load
from snncc.runtime.coding import read_data
from snncc.system.damage import damaged

_MAGIC = 6  # a shorter npy file could be anything


@dataclass(frozen=True)
class Kind:
    """A kind of file: how one is written and read, and how much of it is needed to know it."""

    write: Callable[[Path], Any]
    read: Callable[[Path], Any]
    known_from: int = 0


def state() -> dict[str, torch.Tensor]:
    return {f"{name}.weight": torch.arange(600.0) for name in ("conv", "head")}


def older(path: Path) -> None:
    torch.save(state(), path, _use_new_zipfile_serialization=False)


def program(path: Path) -> None:
    torch.export.save(torch.export.export(torch.nn.Linear(30, 20), (torch.zeros(2, 30),)), path)


def onnx(path: Path) -> None:
    net = Net((1, 8, 8), seed=3).conv(2).fire(4).flatten().linear(4)
    path.write_bytes(net.proto().SerializeToString())


def arrays(save: Callable[..., None]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        buffer = io.BytesIO()
        x = np.random.default_rng(0).integers(0, 256, (9, 8, 8), dtype=np.uint8)
        save(buffer, x=x, y=np.arange(9)) if save is not np.save else save(buffer, x)
        path.write_bytes(buffer.getvalue())

    return write


KINDS = {
    "net.pth": Kind(lambda path: torch.save(state(), path), read_weights),
    "older.pth": Kind(older, read_weights),
    "trusted.pth": Kind(older, lambda path: read_weights(path, trust_pickle=True)),
    "net.pt2": Kind(program, partial(import_exported, trust_pickle=True)),
    "net.onnx": Kind(onnx, import_onnx),
    "net.snn": Kind(lambda path: small_model.compiled().save(path), load),
    "x.npz": Kind(arrays(np.savez), read_data),
    "packed.npz": Kind(arrays(np.savez_compressed), read_data),
    "x.npy": Kind(arrays(np.save), read_data, _MAGIC),
}


def lengths(size: int) -> list[int]:
    """Every one near both ends, and some of those between."""
    near = 70
    ends = {*range(near), *range(size - near, size), *range(0, size, size // 60)}
    return sorted(length for length in ends if 0 <= length < size)


@pytest.mark.parametrize("name", KINDS)
def test_a_file_that_is_cut_off_is_said_to_be(name, tmp_path):
    kind, path = KINDS[name], tmp_path / name
    kind.write(path)
    kind.read(path)
    data = path.read_bytes()
    for length in lengths(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(BadInputError) as caught:
            kind.read(path)
        message = caught.value.message
        assert message.startswith(f"{path}: ")
        if length == 0 or length >= kind.known_from:
            assert "cut off or damaged" in message, length
            assert message.endswith("; copy or download it again")
        assert "Invalid argument" not in message


def test_what_cannot_be_told_from_damage_is_named_too():
    error = damaged("x.pth", "EOFError", "not written by torch.save")
    assert error.message == (
        "x.pth: cut off or damaged, or not written by torch.save (EOFError); "
        "copy or download it again"
    )
