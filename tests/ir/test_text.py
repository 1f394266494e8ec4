from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from float_networks import Net, case_of, imported, lowered

from snncc.ir.stages import STAGES
from snncc.ir.text import describe_array, diff, dump


@pytest.fixture(scope="module")
def stages() -> dict[str, ir.Model]:
    net = Net((1, 6, 6), rms=2.0).conv(2, pads=1).batch_norm().fire(4).pool("MaxPool")
    net.conv(2, 3, bias=False).fire(2, 2.0, "half-up").flatten().linear(3)
    return lowered(case_of(net, offset=-1.0), bits=12).stages


@pytest.mark.parametrize("stage", STAGES)
def test_a_dump_shows_the_network(stages: dict[str, ir.Model], stage: str, golden: str) -> None:
    assert dump(stages[stage]) == golden


def test_a_diff_shows_what_a_stage_changed(stages: dict[str, ir.Model], golden: str) -> None:
    assert diff(stages["quantised"], stages["spiking"]) == golden


def test_equal_graphs_have_no_diff(stages: dict[str, ir.Model]) -> None:
    assert diff(stages["integer"], stages["integer"].clone()).strip() == ""


def test_one_changed_weight_shows(stages: dict[str, ir.Model]) -> None:
    model = stages["integer"].clone()
    name, value = next(
        (n, v) for n, v in model.graph.initializers.items() if n.startswith("bn2.weight")
    )
    weight = value.const_value.numpy().copy()
    weight.flat[0] = np.nextafter(weight.flat[0], 9)
    value.const_value = ir.tensor(weight, name=name)
    changed = [line for line in diff(stages["integer"], model).splitlines() if line[:1] in "+-"]
    assert any("bn2.weight" in line for line in changed[2:])


@pytest.mark.parametrize(
    ("array", "text"),
    [
        (np.array([[-127, 5, 127]], np.int8), "i8[1,3] -127..127 #5551e2"),
        (np.array([0.5, -2.25], np.float32), "f32[2] -2.25..0.5 #c2c0aa"),
        (np.zeros((2, 0), np.int64), "i64[2,0] empty"),
    ],
)
def test_arrays_are_summed_up_in_a_line(array: np.ndarray, text: str) -> None:
    assert describe_array(array) == text


def test_a_dump_of_a_small_constant_is_its_value() -> None:
    assert "[0.25,0.5 ]" in dump(imported(Net((2,)).affine("Mul", [0.25, 0.5])))
