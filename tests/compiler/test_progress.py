"""What a compilation tells while it runs."""

import numpy as np
import pytest
import torch
from cli_models import tiny

import snncc
from snncc.compiler.progress import Step, Steps

X = np.random.default_rng(0).integers(0, 256, (5, *tiny().default_cfg["input_size"]), np.uint8)


@pytest.mark.parametrize("calibration", [None, X], ids=["noise", "data"])
def test_every_step_is_told_with_its_number_and_all_are_foreseen(calibration):
    torch.manual_seed(0)
    told = []
    snncc.compile(tiny(), calibration, say=told.append)
    begun = [step for step in told if not step.done]
    assert [step.number for step in begun] == list(range(1, len(begun) + 1))
    assert {step.of for step in begun} == {0, len(begun)}
    assert [str(step) for step in begun if step.of == 0] == ["import"]
    names = [step.name for step in begun]
    measured = {"measure", "observe"} if calibration is not None else set()
    assert set(names) >= {"import law", "fold-scale", "layer by layer", "verify", *measured}
    last = {step.name: step for step in told if step.parts}
    assert {step.done for step in last.values()} >= {5 if calibration is not None else 8}
    assert all(step.done == step.parts for step in last.values())


def test_steps_count_and_parts_add_up():
    told = []
    steps = Steps(told.append)
    steps.begin("one")
    steps.plan(1)
    steps.begin("two", parts=3)
    steps.advance(2)
    steps.advance(1)
    assert told == [
        Step("one"),
        Step("two", 2, 2, 0, 3),
        Step("two", 2, 2, 2, 3),
        Step("two", 2, 2, 3, 3),
    ]
