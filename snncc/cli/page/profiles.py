"""The profile that a page shows: read, checked, and told to be of the network that is shown."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Mapping
from math import prod
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any

from snncc.errors import BadInputError
from snncc.system.damage import open_regular, reason

if TYPE_CHECKING:
    from snncc.program import Neuron
    from snncc.runtime.artifact import CompiledModel

__all__ = ["read_profile"]

_FORMAT, _VERSION = "snncc-profile", 1
_LARGEST = 2**30

# What the page asks of a profile. A mapping: these keys; with the key Any: whatever keys it has; a
# list: any number of such; else the types of a value.
_NUMBER, _PERHAPS = (int, float), (int, float, NoneType)
_WAYS = dict.fromkeys(("snn", "dense", "quantised", "quantised_skipping"), _PERHAPS)
_RATES = dict.fromkeys(("rate", "break_even", "break_even_skipping"), _PERHAPS)
_ENERGY = {**_WAYS, **_RATES, "least": (str, NoneType)}
_FIELDS = {
    "engine": (str,),
    "data": (str,),
    "samples": (int,),
    "clock_ticks": (int,),
    "populations": [
        {
            "name": (str,),
            "module": (str,),
            "neurons": (int,),
            "D": (int,),
            "window": (int,),
            "nsfr": [[_NUMBER]],
            "mean_count": _NUMBER,
            "nonzero": _NUMBER,
            "saturated": _NUMBER,
            "histogram": [(int,)],
            "silent": (int,),
            "spikes": _NUMBER,
            "sops": _NUMBER,
        }
    ],
    "layers": [
        {
            "name": (str,),
            "module": (str,),
            "kind": (str,),
            **dict.fromkeys(("sops", "macs", "acs", "dense"), _NUMBER),
            "energy": {Any: _ENERGY},
        }
    ],
    **dict.fromkeys(("spikes", "sops", "acs", "macs", "dense"), _NUMBER),
    "events": {"per_tick": [_NUMBER], "mean": _NUMBER, "peak": _NUMBER},
    "energy": {
        Any: {
            "description": (str,),
            "formula": {Any: (str,)},
            "constants": {Any: (int, float, str)},
            "sources": [(str,)],
            **_ENERGY,
        }
    },
}
_MAP = {"shape": [(int,)], "data": (str,)}
_MAPS = {"samples": [{"index": (int,), "input": _MAP, "counts": {Any: _MAP}}]}


def read_profile(path: Path, model: CompiledModel) -> dict[str, Any]:
    """What ``snncc profile`` wrote about a network, as far as the page shows it.

    Args:
        path: The file.
        model: As loaded.

    Raises:
        BadInputError: It cannot be read, is no profile, is one of another artefact, or is damaged.
    """
    found = _read_json(path)
    where = str(path)
    if not isinstance(found, dict) or found.get("format") != _FORMAT:
        raise BadInputError(f"{where}: not a profile; snncc profile FILE.snn -o {where} writes one")
    if found.get("version") != _VERSION:
        raise BadInputError(
            f"{where}: profile version {found.get('version')!r}; this snncc reads {_VERSION}"
        )
    _check_artefact(found, model, where)
    profile: dict[str, Any] = _picked(found, _FIELDS, where)
    names = [n.name for n in model.program.neurons]
    if [row["name"] for row in profile["populations"]] != names:
        raise BadInputError(f"{where}: populations are not those of '{model.name}'")
    profile["maps"] = _maps(found.get("maps"), model, where)
    return profile


def _read_json(path: Path) -> Any:
    try:
        with open_regular(path) as file:
            data = file.read(_LARGEST + 1)
    except OSError as e:
        raise BadInputError(f"{path}: cannot be read ({reason(e)})") from e
    if len(data) > _LARGEST:
        raise BadInputError(f"{path}: larger than {_LARGEST >> 20} MiB; profile with fewer --maps")
    try:
        return json.loads(data, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as e:
        raise BadInputError(f"{path}: not JSON ({e})") from e


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is not JSON")


def _check_artefact(found: Mapping[str, Any], model: CompiledModel, where: str) -> None:
    given, own = found.get("hash"), model.sha256
    if given != own:
        raise BadInputError(
            f"{where}: a profile of another artefact: '{str(found.get('name'))[:60]}', sha256 "
            f"{str(given)[:12]}; '{model.name}' is {own[:12]}; run snncc profile on this file"
        )


def _picked(value: Any, fields: Any, where: str) -> Any:
    """The value with the fields that are asked for, and no others, each of its type."""
    if isinstance(fields, dict):
        return _picked_object(value, fields, where)
    if isinstance(fields, list):
        if not isinstance(value, list):
            raise _wrong(value, "an array", where)
        return [_picked(inner, fields[0], f"{where}.{i}") for i, inner in enumerate(value)]
    if isinstance(value, bool) or not isinstance(value, fields):
        raise _wrong(value, " or ".join(kind.__name__ for kind in fields), where)
    return value


def _picked_object(value: Any, fields: Mapping[Any, Any], where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(value, "an object", where)
    if Any in fields:
        return {key: _picked(inner, fields[Any], f"{where}.{key}") for key, inner in value.items()}
    if missing := [key for key in fields if key not in value]:
        raise BadInputError(f"{where}: no '{missing[0]}'; profile again")
    return {key: _picked(value[key], kind, f"{where}.{key}") for key, kind in fields.items()}


def _wrong(value: Any, expected: str, where: str) -> BadInputError:
    return BadInputError(f"{where}: {repr(value)[:40]} where {expected} is expected")


# -- maps ----------------------------------------------------------------------------------


def _maps(given: Any, model: CompiledModel, where: str) -> dict[str, Any] | None:
    if given is None:
        return None
    maps: dict[str, Any] = _picked(given, _MAPS, f"{where}.maps")
    neurons = {n.name: n for n in model.program.neurons}
    for sample in maps["samples"]:
        at = f"{where}.maps: sample {sample['index']}"
        _check_map(sample["input"], f"{at}: input")
        if sample["counts"].keys() != neurons.keys():
            raise BadInputError(f"{at}: populations are not those of '{model.name}'")
        for name, held in sample["counts"].items():
            _check_map(held, f"{at}: {name}", _shape(neurons[name], model))
    return maps


def _shape(neuron: Neuron, model: CompiledModel) -> list[int]:
    return [model.program.timesteps, *neuron.shape]


def _check_map(held: Mapping[str, Any], where: str, shape: list[int] | None = None) -> None:
    """Its bytes are as many as its shape says, and that is the shape expected, if one is."""
    if shape is not None and held["shape"] != shape:
        raise BadInputError(f"{where}: a map of shape {held['shape']} where {shape} is expected")
    try:
        size = len(b64decode(held["data"], validate=True))
    except ValueError as e:
        raise BadInputError(f"{where}: not base64 ({e})") from e
    if min(held["shape"], default=1) < 1 or size != prod(held["shape"]):
        raise BadInputError(f"{where}: {size} bytes for a map of shape {held['shape']}")
