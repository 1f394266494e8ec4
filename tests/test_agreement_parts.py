"""Networks of residual and transformer families' parts: five oracles fire the same spikes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from float_networks import Net, case_of, examples, lowered
from gate_networks import parts_of
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from interpreter import interpret
from part_networks import PARTS, PartCase, part_networks

from snncc.backends.base import Activity, Engine
from snncc.backends.clocked.engine import ClockedEngine
from snncc.backends.event.engine import KERNELS, EventEngine
from snncc.backends.integer import IntegerEngine, SpikeFormEngine
from snncc.errors import UnsupportedModelError
from snncc.ir.graphs import to_proto
from snncc.passes.fold.no_neuron_between import AUTO, GRADED
from snncc.passes.spikes.build_program import build_program
from snncc.program import Program
from snncc.runtime.contract import by_timestep
from snncc.runtime.result import mismatch

BITS = st.sampled_from([8, 8, 12, 16, 24])
FORM = st.sampled_from([AUTO, AUTO, GRADED])
#: What is right to refuse: weights of too few bits, potentials of too many.
_REFUSED = ("do not fit", "that they are added to")


@dataclass(frozen=True)
class Outcome:
    """What a comparison found.

    Attributes:
        program: The network.
        differ: Populations, potentials and results on which two oracles differ.
        spikes: Of each population, on all samples and timesteps.
    """

    program: Program
    differ: list[str]
    spikes: dict[str, int]

    @property
    def silent(self) -> int:
        """Populations that fired nothing."""
        return sum(not count for count in self.spikes.values())


def compare(case: PartCase, bits: int, form: str = AUTO, check: bool = False) -> Outcome:
    """Compile and run on all oracles; networks that are refused, as they should be, are not drawn.

    Args:
        case: The network and its samples.
        bits: Of weights.
        form: Of layers with no neuron between.
        check: Validate the passes, too.
    """
    try:
        stages = lowered(case, bits, check, form).stages
    except UnsupportedModelError as e:
        assume(not any(reason in str(e) for reason in _REFUSED))
        raise
    program = build_program(stages["quantised"], "net")
    x = by_timestep(case.q, program.source.shape)
    integer = IntegerEngine(to_proto(stages["quantised"]), program).run(x, batch=1)
    spiking = SpikeFormEngine(to_proto(stages["spiking"]), program)
    trains = [n.name for n in program.neurons]
    probes = [*trains, *(n.name for n in program.accumulators)]
    clocked = ClockedEngine(program).run(x, probes)
    found = {
        "spike-form": spiking.run(x, trains),
        "clocked": clocked,
        **{f"event, {k}": EventEngine(program, kernels=k).run(x, probes) for k in KERNELS},
    }
    differ = [
        *(f"{name}: {engine}" for engine, ran in found.items() for name in _unlike(integer, ran)),
        *(f"{name}: {engine}, by tick" for engine, ran in found.items()
          for name in _unlike(clocked, ran)),
        *(f"{name}: interpreter" for name in _of_interpreter(program, x, clocked)),
    ]  # fmt: skip
    spikes = {name: int(counts.sum(dtype=np.int64)) for name, counts in integer.counts.items()}
    return Outcome(program, differ, spikes)


def _unlike(expected: Activity, got: Activity) -> list[str]:
    return [each.name for each in mismatch(expected, got) if each.mismatched]


def _of_interpreter(program: Program, x: np.ndarray, got: Activity) -> Iterator[str]:
    """What the interpreter finds otherwise: counts, potentials and results."""
    for wanted, found in zip(
        interpret(program, x), (got.counts, got.potentials, got.readouts), strict=True
    ):
        assert wanted.keys() <= found.keys()
        for name, values in wanted.items():
            if not np.array_equal(values, found[name]):
                yield name


# -- the law -------------------------------------------------------------------------------

#: What a Program has that was built of a part, where it can be told.
_SHOWN = {
    "gate": "gate",
    "sum of spikes": "sum of spikes",
    "maximum of potentials": "maximum of potentials",
    "graded chain": "graded payload",
}


@pytest.mark.parametrize("part", PARTS)
@settings(max_examples=2)
@given(st.data(), BITS)
def test_five_oracles_fire_the_same_spikes(part: str, data: st.DataObject, bits: int) -> None:
    found = compare(data.draw(part_networks((part,))), bits, GRADED)
    assert found.differ == []
    assert part not in _SHOWN or _SHOWN[part] in parts_of(found.program)


@pytest.mark.slow
def test_five_oracles_fire_the_same_spikes_on_many_networks(
    compared: Counter[str], tally: Counter[str]
) -> None:
    @settings(max_examples=examples(2000))
    @given(part_networks(), BITS, FORM, st.integers(0, 9))
    def law(case: PartCase, bits: int, form: str, one: int) -> None:
        found = compare(case, bits, form, check=one == 9)
        assert found.differ == []
        compared["in all, by five oracles"] += 1
        compared.update(f"built of {part}" for part in {*case.parts})
        compared.update(f"whose Program has {part}" for part in parts_of(found.program))
        compared[f"over {found.program.timesteps} timesteps"] += 1
        tally["spikes compared"] += sum(found.spikes.values())
        tally["populations compared"] += len(found.spikes)
        tally["of those silent"] += found.silent

    law()
    assert tally["of those silent"] < 0.2 * tally["populations compared"]


# -- the law has teeth ---------------------------------------------------------------------


@pytest.mark.parametrize("engine", [IntegerEngine, SpikeFormEngine, ClockedEngine, EventEngine])
def test_one_wrong_count_of_any_engine_is_seen(
    engine: type[Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    right = engine.run

    def wrong(self: Engine, *given: Any, **more: Any) -> Activity:
        ran = right(self, *given, **more)
        name, counts = next(iter(ran.counts.items()))
        counts = counts.copy()
        counts.flat[0] ^= 1
        return replace(ran, counts={**ran.counts, name: counts})

    assert compare(_network(), 8).differ == []
    monkeypatch.setattr(engine, "run", wrong)
    assert compare(_network(), 8).differ != []


def _network() -> PartCase:
    """A convolution, its neuron and a readout."""
    case = case_of(Net((1, 5, 5), seed=1, rms=2.0).conv(3, pads=1).fire(3).flatten().linear(2))
    return PartCase(case.net, case.source, case.q, ())
