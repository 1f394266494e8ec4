"""Emitted directories do on Lava what the clocked engine does, tick for tick."""

from __future__ import annotations

from pathlib import Path

import pytest
import small_model
from lava_runs import differences, emitted, expected, run


@pytest.mark.parametrize("flags", [["--executor", "direct"], ["--executor", "lava"]])
def test_a_small_network_is_exact(tmp_path: Path, flags: list[str]) -> None:
    program, x = small_model.program(), small_model.samples(8)
    found = run(emitted(program, x, tmp_path / "net"), *flags)
    assert differences(expected(program, x), found) == []
