"""Writes networks as the compiler lays them out, seeds of the fuzzer: corpus.py FOLDER [COUNT]."""

from __future__ import annotations

import sys
from itertools import count
from pathlib import Path

from attention_networks import attention_programs
from gate_networks import gate_programs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from networks import programs

from snncc.backends.event.layout import layout
from snncc.program import Program


def write(folder: Path, examples: int) -> None:
    """Writes the bytes of ``examples`` random Programs to ``folder``, the same every time."""
    folder.mkdir(parents=True, exist_ok=True)
    number = count()

    @settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.one_of(programs(), attention_programs(), gate_programs()))
    def add(program: Program) -> None:
        i = next(number)
        layout(program, keep=i % 2 == 0).tofile(folder / f"{i:04}.net")

    add()
    print(f"{next(number)} networks in {folder}")


if __name__ == "__main__":
    write(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1000)
