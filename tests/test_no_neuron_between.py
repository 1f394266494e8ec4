"""Layers with no neuron between: merged or graded, every engine computes the same integers."""

from __future__ import annotations

from collections import Counter

import pytest
from float_networks import Case, examples, lowered
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from random_networks import networks
from test_agreement import BITS, Forms, disagreements

from snncc.errors import UnsupportedModelError
from snncc.passes.fold.no_neuron_between import (
    AUTO,
    GRADED,
)
from snncc.passes.spikes.build_program import build_program
from snncc.program import Program

FORM = st.sampled_from([AUTO, GRADED])
#: What is right to refuse: weights of too few bits, potentials of too many.
_REFUSED = ("do not fit", "padded average of the input", "that they are added to")


def forms(case: Case, bits: int, form: str) -> Forms:
    """All forms; networks that are refused, as they should be, are not drawn."""
    try:
        stages = lowered(case, bits, check=False, form=form).stages
        program = build_program(stages["quantised"], "net")
    except UnsupportedModelError as e:
        assume(not any(reason in str(e) for reason in _REFUSED))
        raise
    return Forms(case, stages["quantised"], stages["spiking"], program)


def graded(program: Program) -> list[str]:
    """Accumulators that read potentials through weights."""
    nodes = program.by_name
    return [
        a.name
        for a in program.accumulators
        if any(p.weights and nodes[p.source].is_potential for p in a.projections)
    ]


# -- the law -------------------------------------------------------------------------------


@settings(max_examples=25)
@given(networks(max_layers=2, between=True), BITS, FORM)
def test_layers_with_no_neuron_between_are_the_same_on_all_engines(
    case: Case, bits: int, form: str
) -> None:
    assert disagreements(forms(case, bits, form)) == []


@pytest.mark.slow
@settings(max_examples=examples(1000))
@given(networks(max_layers=2, between=True), BITS, FORM)
def test_many_layers_with_no_neuron_between_are_the_same_on_all_engines(
    compared: Counter[str], case: Case, bits: int, form: str
) -> None:
    f = forms(case, bits, form)
    assert disagreements(f) == []
    compared["with payloads" if graded(f.program) else "all merged"] += 1
