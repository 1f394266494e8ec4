"""Models of energy: constants with their sources, from the package's file or a user's own."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from snncc.errors import BadInputError, Fault, Option, UsageError, Words
from snncc.runtime.array_files import reading
from snncc.system.damage import open_regular

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["DEFAULT_MODELS", "EnergyModel", "models_named"]

#: Those that a profile has if none are asked for.
DEFAULT_MODELS = ("45nm-fp32", "45nm-fp32+memory", "45nm-int8", "45nm-int8+memory")

_MOST_BYTES = 1 << 20
_OPERATIONS = ("weight_bits", "multiply_pj", "add_pj")
_MEMORY = ("memory_pj_per_bit", "state_bits")
_PUBLISHED = ("mac_pj", "ac_pj")
#: Accounting -> the constants that it needs.
_NEEDED: Mapping[str, tuple[str, ...]] = {
    "operations": _OPERATIONS,
    "spikingformer": _PUBLISHED,
    "spike-driven-transformer": _PUBLISHED,
    "spikeyolo": _PUBLISHED,
}


@dataclass(frozen=True)
class EnergyModel:
    """What operations cost; energies in pJ.

    Attributes:
        name: As on the command line.
        accounting: Which operations are counted: ``operations``, each that the network does; or
            the name of a published accounting.
        description: What it is, for people.
        sources: Where the constants come from.
        weight_bits: Width of weights, and of activations of the dense network.
        multiply_pj: A product of two numbers of ``weight_bits``.
        add_pj: An addition to a sum.
        memory_pj_per_bit: Read or written; 0: memory is left out.
        state_bits: Of a membrane potential, or of a sum that is kept in memory.
        mac_pj, ac_pj: Of a published accounting.
    """

    name: str
    accounting: str
    description: str
    sources: tuple[str, ...]
    weight_bits: int = 0
    multiply_pj: float = 0.0
    add_pj: float = 0.0
    memory_pj_per_bit: float = 0.0
    state_bits: int = 0
    mac_pj: float = 0.0
    ac_pj: float = 0.0

    @property
    def is_published(self) -> bool:
        """Whether it counts as a paper does."""
        return self.accounting != "operations"

    @property
    def has_memory(self) -> bool:
        """Whether what is read and written costs anything."""
        return self.memory_pj_per_bit > 0

    def multiply(self, bits: int, partner_bits: int = 0) -> float:
        """A product of numbers of so many bits, ``weight_bits`` where it is 0.

        A multiplier of n x m bits adds up n m partial products: its energy is taken as proportional
        to that. Of Horowitz's figures 8 x 8 bits cost 0.2 pJ and 32 x 32 bits 3.1: 15.5 times.
        """
        share = (bits or self.weight_bits) * (partner_bits or self.weight_bits)
        return self.multiply_pj * share / self.weight_bits**2

    def moved(self, bits: int) -> float:
        """So many bits read or written."""
        return self.memory_pj_per_bit * bits

    @property
    def constants(self) -> dict[str, float]:
        """What the file gives."""
        names = [*_NEEDED[self.accounting], *(_MEMORY if self.has_memory else ())]
        return {name: getattr(self, name) for name in names}


# -- by name ---------------------------------------------------------------------------------


def models_named(names: Sequence[str]) -> tuple[EnergyModel, ...]:
    """Models of the package by name, or all those of files, ``*.toml``; each once.

    Raises:
        UsageError: No such model; with those that there are.
        BadInputError: A file cannot be read, is no TOML or has no models; or constants are missing,
            unknown or no such numbers: all of them.
    """
    found: dict[str, EnergyModel] = {}
    for name in names:
        for model in _read(Path(name)) if name.endswith(".toml") else [_named(name)]:
            if found.setdefault(model.name, model) != model:
                raise BadInputError(f"{name}: model '{model.name}' is another one elsewhere")
    return tuple(found.values())


def _named(name: str) -> EnergyModel:
    known = _of_package()
    if name not in known:
        told = f": no such model; there are {', '.join(known)}, or give a file, OWN.toml"
        raise UsageError(Words(Option("models", name), told))
    return known[name]


@cache
def _of_package() -> dict[str, EnergyModel]:
    path = files("snncc.runtime.profile") / "models.toml"
    return {m.name: m for m in _models_of(path.read_text(encoding="utf-8"), path.name)}


def _read(path: Path) -> list[EnergyModel]:
    """All models in a TOML file, each a table."""
    with reading(path):
        with open_regular(path) as file:
            data = file.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise BadInputError(f"{path}: larger than {_MOST_BYTES:,} bytes; no models of energy")
        try:
            text = data.decode()
        except UnicodeDecodeError as e:
            raise BadInputError(f"{path}: not TOML, which is UTF-8 ({e.reason})") from e
        return _models_of(text, str(path))


def _models_of(text: str, where: str) -> list[EnergyModel]:
    try:
        tables = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as e:
        raise BadInputError(f"{where}: not TOML ({e})") from e
    if not tables:
        raise BadInputError(f"{where}: no models; each is a table, [name]")
    faults = [fault for name, table in tables.items() for fault in _faults(name, table)]
    if faults:
        raise BadInputError(f"{where}: not models of energy", faults)
    return [_model(name, table) for name, table in tables.items()]


def _model(name: str, table: Mapping[str, Any]) -> EnergyModel:
    given = {"accounting": "operations", "description": "", **table}
    return EnergyModel(name=name, **{**given, "sources": tuple(table.get("sources", ()))})


_WORDS = ("accounting", "description")


def _faults(name: str, table: Any) -> list[Fault]:
    """All that is wrong with a table."""
    if not isinstance(table, dict):
        return [Fault("is no table", node=name, todo=f"write it below [{name}]")]
    accounting = table.get("accounting", "operations")
    if not isinstance(accounting, str) or accounting not in _NEEDED:
        told = f"accounting is {accounting!r}"
        return [Fault(told, node=name, todo=f"there are {', '.join(_NEEDED)}")]
    return [Fault(what, node=name, todo=todo) for what, todo in _told(table, accounting)]


def _told(table: Mapping[str, Any], accounting: str) -> Iterator[tuple[str, str]]:
    """What is wrong with the constants, and what to do."""
    needed = list(_NEEDED[accounting])
    may = {*needed, *_WORDS, "sources"}
    if accounting == "operations":
        may |= {*_MEMORY}
        needed += _MEMORY if any(key in table for key in _MEMORY) else ()
    for key in needed:
        if key not in table:
            yield f"{key} is missing", f"give it, such as {_example(key)}"
    for key, value in table.items():
        if key not in may:
            yield f"{key} is not known", f"there are {', '.join(sorted(may))}"
        elif not _is_right(key, value):
            yield f"{key} is {value!r}", f"give it as {_example(key)}"


def _example(key: str) -> str:
    if key == "sources":
        return 'sources = ["where it comes from"]'
    kinds = {f.name: f.type for f in fields(EnergyModel)}
    return f"{key} = " + {"str": '"…"', "int": "8"}.get(str(kinds[key]), "0.2")


def _is_right(key: str, value: Any) -> bool:
    if key == "sources":
        return isinstance(value, list) and all(isinstance(line, str) for line in value)
    if key in _WORDS:
        return isinstance(value, str)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if key.endswith("_bits"):
        return type(value) is int and 1 <= value <= 64
    return is_number and 0 <= value < 1e9 and (value > 0 or key != "memory_pj_per_bit")
