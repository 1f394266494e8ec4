"""Checkpoints with something changed, most of them archives that still open.

Changed are bytes, members of the archive with their checksums made right, the program that a pickle
is, and what is saved: keys, shapes, dtypes, layouts, values, what the weights are wrapped in.
"""

from __future__ import annotations

import argparse
import io
import pickle
import pickletools
import random
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any

import cli_models
import data_fuzz
import numpy as np
import torch

__all__ = ["NETWORKS", "changed_checkpoint", "seeds"]

NETWORKS = ("tiny", "film", "sparse")
_CLASSES = {"tiny": cli_models.Tiny, "film": cli_models.Film, "sparse": cli_models.Sparse}
_NUMBERS = (-(2**63), -(2**31), -1, 0, 1, 2, 3, 7, 64, 255, 2**16, 2**31, 2**40, 2**62)
_DTYPES = (
    *(torch.float16, torch.bfloat16, torch.float64, torch.complex64, torch.int8, torch.uint8),
    *(torch.int64, torch.bool, torch.float8_e4m3fn, torch.uint16),
)
State = dict[str, Any]


@cache
def _state(network: str) -> State:
    torch.manual_seed(0)
    return dict(_CLASSES[network]().state_dict())


@cache
def seeds() -> dict[str, bytes]:
    """Files as training scripts write them, named ``network, form``."""
    found = {}
    for network in NETWORKS:
        state = _state(network)
        averages = {"model": {f"module.{k}": v for k, v in state.items()}, "model_ema": state}
        half = {key: value.half() for key, value in state.items()}
        rest = {"args": argparse.Namespace(lr=0.1, name="x"), "epoch": 3, "optimizer": {"s": [1]}}
        found |= {
            f"{network}, bare": _saved(state),
            f"{network}, wrapped": _saved({**averages, **rest}),
            f"{network}, half": _saved({"state_dict": half}),
            f"{network}, old": _saved(state, _use_new_zipfile_serialization=False),
        }
    return found


def _saved(content: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


# -- members of the archive ----------------------------------------------------------------


def members(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(found: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in found.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def changed_members(data: bytes, rng: random.Random) -> bytes:
    found = members(data)
    name = rng.choice([*found, *(n for n in found if "data" in n)])
    how = rng.choice([*["pickle"] * 6, "bytes", "drop", "name", "empty", "packed"])
    if how == "bytes":
        found[name] = data_fuzz.changed(found[name], rng) if found[name] else b"x"
    elif how == "pickle":
        name = next(n for n in found if n.endswith("data.pkl"))
        for _ in range(rng.choice([1, 4, 8, 16])):
            found[name] = changed_pickle(found[name], rng)
    elif how == "name":
        new = rng.choice(["x", "../x", "/x", "a/data.pkl", name.upper(), "constants.pkl", "a\0b"])
        found[new] = found.pop(name)
    elif how == "empty":
        found[name] = b""
    elif how == "drop":
        del found[name]
    method = zipfile.ZIP_DEFLATED if how == "packed" else zipfile.ZIP_STORED
    return packed(found, method)


def changed_pickle(data: bytes, rng: random.Random) -> bytes:
    """One step of the program is another one, has another argument, is gone or there twice."""
    try:
        places = [place or 0 for _, _, place in pickletools.genops(data)]
    except Exception:  # a change before has made it none
        return data_fuzz.changed(data, rng) if data else data
    number = rng.randrange(len(places))
    start, end = places[number], [*places, len(data)][number + 1]
    step = data[start:end]
    how = rng.choice(["number", "number", "drop", "twice", "other", "code", "bytes"])
    if how == "number":
        return _other_number(data, rng)
    if how == "code":
        step = rng.choice(pickletools.opcodes).code.encode("latin-1") + step[1:]
    elif how == "other":
        at = rng.randrange(len(places))
        step = data[places[at] : [*places, len(data)][at + 1]]
    elif how == "bytes":
        step = step[:1] + bytes(rng.randrange(256) for _ in step[1:])
    return data[:start] + {"drop": b"", "twice": step * 2}.get(how, step) + data[end:]


def _other_number(data: bytes, rng: random.Random) -> bytes:
    """A size, a stride, an offset, a key of a storage: any number of the program."""
    steps = [*pickletools.genops(data)]
    numbers = [i for i, (code, _, _) in enumerate(steps) if code.name.startswith("BININT")]
    if not numbers:
        return data
    number = rng.choice(numbers)
    start, end = steps[number][2] or 0, steps[number + 1][2] or 0
    new = pickle.dumps(rng.choice(_NUMBERS), protocol=2)[2:-1]
    return data[:start] + new + data[end:]


# -- what is saved -------------------------------------------------------------------------


def _tensor(value: torch.Tensor, rng: random.Random) -> Any:
    """The tensor as something else; one that repeats a number too often to be looked at stays."""
    if value.numel() > 2**20:
        return value
    choices: tuple[Callable[[], Any], ...] = (
        lambda: value.to(rng.choice(_DTYPES)),
        lambda: value.to(rng.choice(_DTYPES)),
        lambda: value.reshape(-1),
        lambda: value.unsqueeze(0),
        lambda: value[:0],
        lambda: value.flatten()[0],
        lambda: torch.cat([value, value]),
        lambda: value.movedim(0, -1),
        lambda: torch.zeros(()).expand(rng.choice([value.shape, (2**20, 2**20)])),
        lambda: value.to_sparse(),
        lambda: value.to("meta"),
        lambda: torch._empty_affine_quantized(
            value.shape, scale=0.1, zero_point=0, dtype=torch.qint8
        ),
        lambda: torch.nn.Parameter(value),
        lambda: torch.full_like(value, rng.choice([0.0, float("nan"), 1e38, -1.0])),
        lambda: value.flatten()[::2],
        lambda: torch.nested.nested_tensor([value.flatten(), value.flatten()[:1]]),
        lambda: torch.zeros(0).as_strided((0, 2**40), (1, 1)),
        lambda: torch.nn.UninitializedParameter(),
    )
    return rng.choice(choices)()


_NO_TENSORS: tuple[Any, ...] = (
    *(None, 0, 1.5, "text", b"bytes", [1, 2], (), {}, np.zeros(2), np.float64(1), {1}, 10**30),
    *(torch.float32, torch.Size([1]), torch.device("cpu"), OrderedDict(), slice(1)),
)
_KEYS = ("", ".", "x" * 10_000, "module.", "conv", "\x1b[31m", "\ud800", 7, None, ("a",), b"k")


def changed_state(state: State, rng: random.Random) -> State:
    """One entry of a state dict is changed, gone, or elsewhere."""
    state = dict(state)
    key = rng.choice(list(state))
    how = rng.choice(["tensor", "tensor", "tensor", "value", "drop", "key", "prefix", "swap"])
    if how == "tensor" and isinstance(state[key], torch.Tensor):
        state[key] = _tensor(state[key], rng)
    elif how == "value":
        state[key] = rng.choice(_NO_TENSORS)
    elif how == "key":
        state[rng.choice(_KEYS)] = state.pop(key)  # type: ignore[index]
    elif how == "prefix":
        prefix = rng.choice(["module.", "model.model.", "_orig_mod.", "x."])
        state = {f"{prefix}{name}": value for name, value in state.items()}
    elif how == "swap":
        other = rng.choice(list(state))
        state[key], state[other] = state[other], state[key]
    else:
        del state[key]
    return state


def wrapped(state: State, rng: random.Random) -> Any:
    """The state dict in something that may hold one, or cannot."""
    deep: Any = state
    for _ in range(rng.choice([1, 2, 5, 200])):
        deep = {rng.choice(["model", "state_dict", "ema", "net"]): deep}
    choices = (state, {"model": state}, {"ema": state}, {"model": [state]}, [state], deep, {})
    return rng.choice([*choices, {"model": {}, "state_dict": state}, {"model_ema": state}])


def changed_content(network: str, rng: random.Random) -> bytes:
    state = _state(network)
    for _ in range(rng.choice([1, 3, 4, 6])):
        with suppress(Exception):  # not every tensor can become everything
            state = changed_state(state, rng) if state else state
    content = wrapped(state, rng) if rng.random() < 0.3 else state
    is_new = rng.random() < 0.8
    try:
        return _saved(content, _use_new_zipfile_serialization=is_new)
    except Exception:  # what cannot be saved is changed as bytes
        return changed_members(_saved(_state(network)), rng)


def changed_checkpoint(network: str, form: str, rng: random.Random) -> bytes:
    """The file of this network and form, with something changed."""
    data, chance = seeds()[f"{network}, {form}"], rng.random()
    if chance < 0.2:
        return data_fuzz.changed(data, rng)
    if chance < 0.6 and form != "old":
        return changed_members(data, rng)
    if chance < 0.6:
        return changed_old(data, rng)
    return changed_content(network, rng)


def changed_old(data: bytes, rng: random.Random) -> bytes:
    """Of the older format: pickles one after the other, and storages after their sizes."""
    ends, at = [], 0
    with suppress(Exception):
        while data[at : at + 1] == b"\x80":
            at += _length(data[at:])
            ends.append(at)
    if not ends or rng.random() < 0.2:
        place = rng.randrange(len(data) - 8)
        return data[:place] + struct.pack("<q", rng.choice(_NUMBERS)) + data[place + 8 :]
    number = rng.randrange(len(ends))
    start, end = [0, *ends][number], ends[number]
    return data[:start] + changed_pickle(data[start:end], rng) + data[end:]


def _length(data: bytes) -> int:
    """Of the first pickle there."""
    return max(place or 0 for _, _, place in pickletools.genops(data)) + 1
