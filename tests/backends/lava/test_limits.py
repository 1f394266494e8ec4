"""What Lava cannot take is named, all of it; what it can take never exceeds the proved bounds."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_model
from attention_networks import attention_cases, one_attention
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import cases, changed

from snncc.backends.clocked.engine import ClockedEngine
from snncc.backends.lava.emit import write
from snncc.backends.lava.limits import unsupported
from snncc.errors import TargetError
from snncc.program import Accumulator, Program, Projection, Readout, Source
from snncc.program.bounds import membrane_range, potential_bounds


def faults(program: Program) -> list[str]:
    """What is wrong, as people read it."""
    return [str(fault) for fault in unsupported(program)]


def test_a_small_network_fits() -> None:
    assert faults(small_model.program()) == []


def test_everything_is_named_at_once_and_nothing_is_written(tmp_path: Path) -> None:
    program = small_model.program()
    conv = program.by_name["conv2:v"].projections[0]
    program = changed(program, "x_q", payload=300)
    program = changed(program, "conv2:v", projections=(replace(conv, weights=conv.weights * 2),))
    program = changed(program, "fc:v", bias=program.by_name["fc:v"].bias + 2**23)
    with pytest.raises(TargetError, match="lava: the network does not fit") as caught:
        write(program, tmp_path / "net", name="net")
    found = [str(fault) for fault in caught.value.faults]
    assert found == [
        "x_q (Source): values up to 300, beyond 8 bits; quantise the input to uint8",
        "net.conv2 (Accumulator): weights from 'pool1' have 2 slices of 8 bits; fewer weight_bits",
        "fc (Accumulator): the potential may reach 8,408,476, beyond the 24 bits of a state word "
        "(8,388,607); fewer weight_bits",
    ]
    assert not (tmp_path / "net").exists()


def test_masks_and_wide_sums_are_named() -> None:
    program = changed(small_model.program(), "conv1:v", masked=(2, 2))
    assert faults(program) == [
        "net.conv1 (Accumulator): masked patches; compile without patch_mask"
    ]
    program = changed(small_model.program(), "pool1", kind="sum", payload=2**23)
    assert faults(program)[0].startswith("pool1 (Pool): a sum over windows may reach 8,388,608")


def test_a_membrane_is_bound_over_all_timesteps() -> None:
    memory: dict[str, Any] = {"carry": "soft", "decay": (1, 0), "threshold": np.array([100])}
    program = changed(small_model.program(timesteps=4), "fire2", **memory)
    assert faults(program) == []
    longer = replace(program, timesteps=4000)
    (found,) = faults(longer)
    assert found.startswith("net.act2 (Neuron): the membrane may reach")
    fine = changed(program, "fire2", fraction=12)
    assert len(faults(fine)) == 1


def test_attention_is_bound_by_its_products() -> None:
    program, _ = one_attention()
    assert faults(program) == []
    (found,) = faults(changed(program, "a", payload=2**23))
    assert found.startswith("m.attn (Attention): a product may reach 8,388,608")


def test_a_node_without_a_process_is_named() -> None:
    class Novel(Readout):
        """A kind of node that is not known here."""

    program = small_model.program()
    nodes = (*program.nodes[:-1], Novel("logits", (5,), "fc:v", 0.125, "fc"))
    assert faults(replace(program, nodes=nodes)) == [
        "fc (Novel): there is no Lava process for it; use another engine"
    ]


@settings(max_examples=150)
@given(case=st.one_of(cases(), attention_cases()))
def test_potentials_stay_within_the_proved_bounds(
    case: tuple[Program, np.ndarray], compared: Counter[str]
) -> None:
    program, x = case
    found = ClockedEngine(program).run(x, [a.name for a in program.accumulators]).potentials
    for node in program.accumulators:
        low, high = potential_bounds(node, program.by_name)
        assert low <= found[node.name].min()
        assert found[node.name].max() <= high
    compared["with Lava's bounds"] += 1


def test_negative_potentials_times_negative_weights_are_bound() -> None:
    w = np.array([[-100]], np.int8)
    a = Accumulator("a", (1,), (Projection("x", "linear", (w,), 255),), np.zeros(1, int), -25500, 0)
    b = replace(a, name="b", projections=(Projection("a", "linear", (w,), 25500),), low=-(2**40),
                high=2**40)  # fmt: skip
    program = Program("two", (Source("x", (1,), 255), a, b, Readout("y", (1,), "b", 1.0)))
    assert potential_bounds(b, program.by_name) == (-2550000, 2550000)


def test_a_neuron_without_memory_is_bound_as_its_potential() -> None:
    program = small_model.program()
    for neuron in program.neurons:
        source = program.by_name[neuron.source]
        assert isinstance(source, Accumulator)
        assert membrane_range(program, neuron) == potential_bounds(source, program.by_name)
