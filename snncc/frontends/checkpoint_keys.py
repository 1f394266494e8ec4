"""Keys of a checkpoint and of a network, where wrappers and containers make them differ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import product
from typing import Any

__all__ = ["choose_prefix", "plain_key", "renames", "versions_of"]

_PREFIXES = ("module.", "model.", "_orig_mod.", "backbone.")
_MAX_PREFIXES = 3
#: What containers of SpikingJelly put between their own name and their layer's, in some versions.
_CONTAINED = "module"


def plain_key(key: str) -> str:
    """The key without the ``module`` that containers and wrappers put into it."""
    return ".".join(part for part in key.split(".") if part != _CONTAINED)


def choose_prefix(stored: Mapping[str, Any], expected: Mapping[str, Any]) -> str:
    """The prefix without which most keys match; the shortest such, mostly none.

    Args:
        stored: Tensors by key, as stored.
        expected: Of the network.
    """
    best, most = "", sum(key in expected for key in stored)
    for length in range(1, _MAX_PREFIXES + 1):
        for parts in product(_PREFIXES, repeat=length):
            prefix = "".join(parts)
            keys = [key.removeprefix(prefix) for key in stored]
            matches = sum(key in expected for key in keys)
            if matches > most and len(set(keys)) == len(keys):
                best, most = prefix, matches
    return best


def renames(keys: Iterable[str], expected: Iterable[str]) -> dict[str, str]:
    """Key of a checkpoint -> key of the network that differs from it by ``module`` alone.

    Containers of SpikingJelly call a layer ``conv1.module.0`` in some versions and ``conv1.0`` in
    others. Only keys that would be left over on both sides are renamed, and only where one of
    each could be meant.

    Args:
        keys: Of the checkpoint, without prefix.
        expected: Of the network.
    """
    theirs, ours = dict.fromkeys(keys), dict.fromkeys(expected)
    wanted = _by_plain_key(key for key in ours if key not in theirs)
    found = _by_plain_key(key for key in theirs if key not in ours)
    return {
        names[0]: wanted[plain][0]
        for plain, names in found.items()
        if len(names) == 1 and len(wanted.get(plain, ())) == 1
    }


def _by_plain_key(keys: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for key in keys:
        found.setdefault(plain_key(key), []).append(key)
    return found


def versions_of(
    versions: Mapping[str, dict[str, Any]], stripped: str, renamed: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    """Versions of submodules, as stored, under the network's names.

    Args:
        versions: By path of the submodule, as stored.
        stripped: The prefix that is taken off.
        renamed: Key without prefix -> key of the network.
    """
    parents = {_parent(old): _parent(new) for old, new in renamed.items()}
    bare = {
        f"{key}.".removeprefix(stripped).rstrip("."): version
        for key, version in versions.items()
        if f"{key}.".startswith(stripped)
    }
    return {parents.get(key, key): version for key, version in bare.items()}


def _parent(key: str) -> str:
    return key.rpartition(".")[0]
