"""What stands behind a name of the zoo, and which name fits the tensors of a checkpoint."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from snncc.errors import BadInputError, Option, UsageError, Words
from snncc.frontends.zoo.options import ToTell

__all__ = [
    "Entry",
    "Origins",
    "T_of",
    "made",
    "pooling_of",
    "require_fit",
    "require_told",
    "shape_of",
]

Tensors = Mapping[str, Any]
#: Option -> its value, and where that comes from.
Origins = dict[str, tuple[Any, str]]

_PLACES = {"spikes": "after neurons", "potentials": "before neurons"}


@dataclass(frozen=True)
class Entry:
    """What stands behind a name.

    Attributes:
        make: Shape and options -> network.
        read: Tensors -> shape.
        defaults: Shape -> options that weights do not carry, with the family's values.
        widths: What the tensors must tell, 0: anything; none: anything at all.
        measures: What ``widths`` are, for messages.
        frames: Whether it reads event frames; none: shapes do not tell that.
        pooling: Where pools stand in the networks of this name, ``spikes``: after neurons,
            ``potentials``: before; none: they have no pools that could stand in either place.
        origin: Of the defaults, for people.
    """

    make: Callable[[Any, Mapping[str, Any]], nn.Module]
    read: Callable[[Tensors], Any]
    defaults: Callable[[Any], Mapping[str, Any]]
    widths: tuple[int, ...] | None = None
    measures: str = "widths"
    frames: bool | None = None
    pooling: str | None = None
    origin: str = "the family's"

    def fits(self, shape: Any) -> bool:
        """Whether a network of this name can have the shape, read by ``read``."""
        if self.frames is not None and self.frames != shape.frames:
            return False
        return self.widths is None or all(
            want in (0, found) for want, found in zip(self.widths, shape.widths, strict=True)
        )


def shape_of(name: str, zoo: Mapping[str, Entry], tensors: Tensors) -> Any:
    """What the tensors tell about a network of this name.

    Raises:
        BadInputError: They are those of another network, which is named if the zoo has it.
    """
    try:
        return zoo[name].read(tensors)
    except BadInputError as e:
        told = Words(Option("arch", name), ": ")
        raise e.within(told, _instead(zoo, tensors)) from e


def _instead(zoo: Mapping[str, Entry], tensors: Tensors) -> Words:
    """What else to name: of every family that has these tensors the first network."""
    found: list[str | Option] = []
    for read in dict.fromkeys(entry.read for entry in zoo.values()):
        try:
            shape = read(tensors)
        except BadInputError:
            continue
        names = [name for name, e in zoo.items() if e.read is read and e.fits(shape)]
        found += [" or of " if found else "", Option("arch", names[0])] if names else []
    if not found:
        return Words("; name another, or models.py:fn")
    return Words("; these are the tensors of ", *found)


def require_fit(name: str, zoo: Mapping[str, Entry], shape: Any) -> None:
    """A network of this name can have the shape.

    Raises:
        BadInputError: It cannot; the first name of its family that can is told.
    """
    entry = zoo[name]
    if entry.fits(shape):
        return
    same = _alike(zoo, entry, entry.pooling, shape)
    if entry.frames is not None and entry.frames != shape.frames:
        what = "event frames" if shape.frames else "pictures"
        told = f": the weights are those of a network for {what}"
    else:
        told = f": the weights have {entry.measures} {', '.join(map(str, shape.widths))}"
    instead = ("; take ", Option("arch", same[0])) if same else ("; take models.py:fn",)
    raise BadInputError(Words(Option("arch", name), told, *instead))


def _alike(zoo: Mapping[str, Entry], entry: Entry, pooling: str | None, shape: Any) -> list[str]:
    """Names of the entry's family with their pools in this place that can have the shape."""
    kin = {name: e for name, e in zoo.items() if e.read is entry.read and e.pooling == pooling}
    return [name for name, e in kin.items() if e.fits(shape)]


def pooling_of(
    name: str, zoo: Mapping[str, Entry], shape: Any, given: str | None, arch: str
) -> tuple[str, str]:
    """Where the pools of a network stand, and who says so.

    Networks with pools before neurons (CML) have the same tensors as those with pools after, and
    compute something else, so that nothing is taken for granted.

    Args:
        name: Of the network.
        zoo: All networks.
        shape: What the tensors tell.
        given: By the user.
        arch: What the file says it is, if it does.

    Raises:
        BadInputError: Keys or file say otherwise than the name, or nobody says.
    """
    by_name = zoo[name].pooling or ""
    by_file = "potentials" if "cml" in arch.lower() else None
    if given is not None:
        return given, "given"
    for said, who in ((by_file, f"the file's arch, {arch}"), (shape.told_pooling, "the keys")):
        if said is not None and said != by_name:
            raise _refusal(name, zoo, shape, f"by {who}, pools stand {_PLACES[said]}", said)
        if said is not None:
            return said, who.partition(",")[0]
    if by_name == "potentials":
        return by_name, "the name"
    if by_name == shape.published_pooling:
        return by_name, "the published code"
    named = f"the file's arch, {arch}, does not tell" if arch else "the file does not tell"
    told = f"CML networks have these tensors, too, with pools before neurons, and {named}"
    raise _refusal(name, zoo, shape, told, "potentials", by_name)


def _refusal(
    name: str, zoo: Mapping[str, Entry], shape: Any, why: str, other: str, own: str = ""
) -> BadInputError:
    """The error that names the network with its pools in the other place, and the option."""
    found = _alike(zoo, zoo[name], other, shape)
    instead: list[str | Option] = ["; take ", Option("arch", found[0])] if found else []
    if own:
        chosen = f' \'{{"pooling": "{own}"}}\''
        instead += [f", or, where they stand {_PLACES[own]}, ", Option("arch_args"), chosen]
    return BadInputError(Words(Option("arch", name), f": {why}", *instead))


def require_told(name: str, options: Origins, arch: str) -> Origins:
    """The options, with what the file's ``arch`` says of those that nobody told.

    Raises:
        BadInputError: Nobody tells, and the network would be another one.
    """
    told = {**options}
    for key, (value, _) in options.items():
        if not isinstance(value, ToTell):
            continue
        words = re.split(r"[^a-z]+", arch.lower())
        by_arch = [choice for choice in value.choices if choice in words]
        if len(by_arch) != 1:
            raise BadInputError(Words(Option("arch", name), *_nobody_tells(key, value, arch)))
        told[key] = by_arch[0], "the file's arch"
    return told


def _nobody_tells(key: str, value: ToTell, arch: str) -> list[str | Option]:
    """What no tensor tells, and how to tell it."""
    named = f"the file's arch, {arch}, does" if arch else "the file does"
    choices = [f'\'{{"{key}": "{choice}"}}\'' for choice in value.choices]
    told = f": the weights do not tell {value.what}, and {named} not either; give "
    return [told, Option("arch_args"), f" {', '.join(choices[:-1])} or {choices[-1]}"]


def T_of(
    name: str,
    entry: Entry,
    chosen: tuple[Any, str],
    given: Mapping[str, Any],
    told: Mapping[str, Any],
    timesteps: int | None,
) -> tuple[Any, str]:
    """Timesteps of a network, and who says so; however often they are given, they are given alike.

    Args:
        name: Of the network.
        entry: What stands behind the name.
        chosen: Timesteps and origin without the last argument.
        given: The user's options.
        told: The file's.
        timesteps: Of the sequences that the user says the network reads.

    Raises:
        UsageError: T is given twice and differently, or the network reads no sequences.
    """
    if timesteps is not None and not entry.frames:
        told_so: tuple[str | Option, ...] = (": it reads pictures, no sequences; give its T by ",)
        where = Option("arch_args"), f" '{{\"T\": {timesteps}}}' instead of ", Option("timesteps")
        raise UsageError(Words(Option("arch", name), *told_so, *where))
    by_whom: dict[str | Option, Any] = {
        Option("arch_args"): given.get("T"),
        Option("timesteps"): timesteps,
        "the file's args": told.get("T"),
    }
    found = {who: T for who, T in by_whom.items() if T is not None}
    if len({*found.values()}) > 1:
        raise UsageError(Words(Option("arch", name), *_two_T(found)))
    return chosen if timesteps is None else (timesteps, "given")


def _two_T(found: Mapping[str | Option, Any]) -> list[str | Option]:
    pieces: list[str | Option] = [": T is given twice and differently"]
    for i, (who, T) in enumerate(found.items()):
        pieces += [", " if i else ": ", f"{T} by ", who]
    in_file = "the file's args" in found
    way_out = "leave it out, or save the state dict alone for another T" if in_file else "give one"
    return [*pieces, f"; {way_out}"]


def made(cls: Callable[..., nn.Module]) -> Callable[[Any, Mapping[str, Any]], nn.Module]:
    """What makes a network of this class: of shape, options and the input that both tell."""
    return lambda shape, options: cls(shape, options, _input_of(shape, options))


def _input_of(shape: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Size and normalisation of pictures; or frames of event counts, taken as they are."""
    size = (shape.channels, options["size"], options["size"])
    if shape.frames:
        frames = {"timesteps": options["T"], "batch_first": True}
        return {"input_size": size, **frames, "mean": (0.0,), "std": (1 / 255,)}
    if {len(options["mean"]), len(options["std"])} - {1, shape.channels}:
        return {"input_size": size}
    return {"input_size": size, "mean": tuple(options["mean"]), "std": tuple(options["std"])}
