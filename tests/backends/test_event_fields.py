"""What the layout writes is what the core reads: the enums of core/net.h, field for field."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from attention_networks import one_attention

from snncc.backends.event import layout as of_python
from snncc.backends.event.layout import HEAD, KINDS, MAGIC, NODE, PROJECTION, layout
from snncc.errors import SnnccError
from snncc.program import (
    CARRIES,
    TOTAL_LIMIT,
    Accumulator,
    Attention,
    Gate,
    Neuron,
    Pool,
    Program,
    Projection,
    Readout,
    Source,
    Sum,
)
from snncc.program.nodes.neuron import MAX_TICKS

CORE = Path(of_python.__file__).parent / "core"


def code(name: str) -> str:
    """The file without its comments."""
    text = (CORE / name).read_text(encoding="utf-8")
    return re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)


def kinds() -> list[tuple[str, str]]:
    """The kinds of node in the core's list, as (name in the enum, name of its table and file)."""
    return re.findall(r"X\((\w+), (\w+)\)", code("nodes/kinds.h"))


def enum(first: str) -> list[str]:
    """Names in the enum of net.h that begins with ``first``, in order."""
    (body,) = re.findall(rf"enum\s*\{{\s*({first}\b[^}}]*)\}}", code("net.h"))
    return [entry.split("=")[0].strip() for entry in body.split(",") if entry.strip()]


def said(prefix: str, names: Sequence[str]) -> list[str]:
    """The names as the core spells them."""
    return [prefix + name.upper() for name in names]


def constant(pattern: str) -> str:
    found = re.search(pattern, code("net.h"))
    assert found is not None
    return found[1]


def test_the_fields_are_those_of_the_core_in_its_order() -> None:
    assert said("EV_HEAD_", [*HEAD, "words"]) == enum("EV_HEAD_MAGIC")
    assert said("EV_NODE_", [*NODE, "words"]) == enum("EV_NODE_KIND")
    most = int(constant(r"EV_MAX_PARTS = (\d+)"))
    parts = [f"{name}{i}" for i in range(most) for name in ("part", "shift")]
    assert list(PROJECTION[-len(parts) :]) == parts
    fields = [*PROJECTION[: -len(parts)], "part", "words"]
    assert said("EV_PROJECTION_", fields) == enum("EV_PROJECTION_SOURCE")


def test_what_there_is_of_each_kind_has_the_numbers_of_the_core() -> None:
    assert [kind.__name__.upper() for kind in KINDS] == [name for name, _ in kinds()]
    assert said("EV_CARRY_", list(CARRIES)) == enum("EV_CARRY_NONE")
    gates = [kind.replace("-", "_") for kind in Gate.variants[1]]
    assert said("EV_GATE_", gates) == enum("EV_GATE_AND")
    assert said("EV_POOL_", Pool.variants[1]) == enum("EV_POOL_MAX")
    assert said("EV_", Projection.variants[1]) == enum("EV_CONV")
    assert said("EV_", [f"{order}_first" for order in Attention.variants[1]]) == enum("EV_KV_FIRST")


def test_numbers_that_both_know_are_the_same() -> None:
    assert int(constant(r"EV_MAGIC INT64_C\((\w+)\)"), 0) == MAGIC
    assert 1 << int(constant(r"EV_LIMIT \(INT64_C\(1\) << (\d+)\)")) == TOTAL_LIMIT
    assert int(constant(r"EV_MAX_TICKS = (\d+)")) == MAX_TICKS


def test_a_kind_is_known_to_its_own_file_and_to_the_list_alone() -> None:
    """What the rest of the core wants to know of it is an answer in its table."""
    own = {(f"nodes/{file}.c", name) for name, file in kinds()}
    # The first node is the source; neurons read accumulators.
    own |= {("net_read.c", "SOURCE"), ("nodes/neuron.c", "ACCUMULATOR")}
    names = re.compile("|".join(rf"\bEV_{name}\b" for name, _ in kinds()))
    paths = [str(path.relative_to(CORE)) for path in CORE.rglob("*.[ch]")]
    found = {(path, name[3:]) for path in paths for name in names.findall(code(path))}
    assert found <= own
    assert {f"nodes/{file}.c" for _, file in kinds()} < set(paths)


@pytest.mark.parametrize(("prefix", "fields"), [("NODE", NODE), ("PROJECTION", PROJECTION[:-6])])
def test_the_core_reads_every_field(prefix: str, fields: tuple[str, ...]) -> None:
    files = ["net_read.c", "projection.c", *(f"nodes/{file}.c" for _, file in kinds())]
    text = "\n".join(map(code, files))
    unread = [f for f in said(f"EV_{prefix}_", fields) if not re.search(rf"\b{f}\b", text)]
    assert unread == []


def test_every_field_is_written_for_some_node(monkeypatch: pytest.MonkeyPatch) -> None:
    written: dict[tuple[str, ...], set[str]] = {HEAD: set(), NODE: set(), PROJECTION: set()}
    words = of_python._words

    def recorded(names: tuple[str, ...], fields: dict[str, int]) -> list[int]:
        written[names] |= fields.keys()
        return words(names, fields)

    monkeypatch.setattr(of_python, "_words", recorded)
    for program in (one_attention()[0], everything_else()):
        layout(program)
    assert {names: set(names) for names in written} == written


def test_a_field_without_a_place_is_refused() -> None:
    with pytest.raises(SnnccError, match="no place for gain"):
        of_python._words(NODE, {"kind": 0, "gain": 3})


def everything_else() -> Program:
    """Masked patches, a membrane that remembers, a pool, a gate, a sum, weights of three parts."""
    weights = tuple(np.full((1, 2, 1, 1), 127, np.int8) for _ in range(3))
    zero, reach = np.zeros(1, np.int64), 127 * (1 + 256 + 65536) * 2 * 65535
    conv = Projection("x", "conv", weights, 65535)
    memory = {"carry": "delayed", "decay": (1, 1), "fraction": 1, "current": (1, 1),
              "threshold": np.ones(1, np.int64)}  # fmt: skip
    program = Program(
        "everything else",
        (
            Source("x", (2, 2, 2), 65535),
            Accumulator("v", (1, 2, 2), (conv,), zero, 0, reach, masked=(1, 1)),
            Neuron("n", (1, 2, 2), "v", np.ones((1, 1), np.int64), 0, **memory),
            Pool("m", (1, 1, 1), "n", "max", (2, 2), (2, 2), (0, 0, 0, 0), 1),
            Gate("g", (1, 2, 2), "n", "m", "and-not", 1),
            Sum("s", (1, 2, 2), "n", "g", 2),
            Readout("y", (1, 2, 2), "g", 1.0),
        ),
        timesteps=2,
    )
    program.validate()
    return program
