"""How the command line spells the options that messages of the library name: as its flags."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import replace

from snncc.errors import Fault, Option, Words

__all__ = ["fault_in_flags", "in_flags"]

#: Options whose flag is not their own name.
_FLAGS = {
    "input.mode": "--input",
    "input.mean": "--mean",
    "input.std": "--std",
    "input.range": "--input-range",
    "x": "--input",  # of verify
    "models": "--energy",  # of profile
    "overwrite": "-f",
    "leaves": "--leaf",
}


def in_flags(text: str) -> str:
    """A message with every option that it names as its flag."""
    return text.spelled(_flag) if isinstance(text, Words) else text


def fault_in_flags(fault: Fault) -> Fault:
    """Likewise."""
    return replace(fault, what=in_flags(fault.what), todo=in_flags(fault.todo))


def _flag(option: Option) -> str:
    flag = _FLAGS.get(option.name, f"--{option.name.replace('_', '-')}")
    if option.like:
        return f"{flag} {option.like}"
    if option.value is None or option.value is True:
        return flag
    if isinstance(option.value, Mapping):  # {"Class": fields}: one flag for each
        each = (f"{name}={json.dumps(fields)}" for name, fields in option.value.items())
        return " ".join(f"{flag} {shlex.quote(one)}" for one in each)
    values = option.value if isinstance(option.value, (list, tuple)) else (option.value,)
    return f"{flag} {','.join(map(str, values))}"
