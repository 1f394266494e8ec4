from __future__ import annotations

import copy
import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from snncc.errors import UsageError
from snncc.nn import IntegerFire

FINITE = st.floats(-300, 300, width=32)
ROUNDINGS = st.sampled_from(["half-even", "half-up"])


def gradient(neuron: nn.Module, x: Tensor) -> Tensor:
    leaf = x.clone().requires_grad_()
    neuron(leaf).sum().backward()
    assert leaf.grad is not None
    return leaf.grad


def op_names(program: torch.export.ExportedProgram) -> list[str]:
    return [str(node.target) for node in program.graph.nodes if node.op == "call_function"]


@pytest.mark.parametrize(
    ("rounding", "counts"), [("half-even", [0, 0, 2, 2, 4, 4]), ("half-up", [0, 1, 2, 3, 4, 4])]
)
def test_a_tie_goes_where_the_rounding_rule_says(rounding: str, counts: list[int]) -> None:
    ties = torch.tensor([-0.5, 0.5, 1.5, 2.5, 3.5, 4.5])
    assert IntegerFire(D=4, rounding=rounding)(ties).tolist() == counts


@given(x=FINITE, D=st.integers(1, 255), rounding=ROUNDINGS)
def test_a_spike_count_is_the_nearest_integer_within_0_and_D(
    x: float, D: int, rounding: str
) -> None:
    count = IntegerFire(D, rounding=rounding)(torch.tensor(x, dtype=torch.float64)).item()
    assert count == int(count)
    assert 0 <= count <= D
    assert abs(count - min(max(x, 0), D)) <= 0.5


@given(x=FINITE, D=st.integers(1, 255), norm=st.sampled_from([0.5, 3.0, 4.0]), rounding=ROUNDINGS)
def test_norm_divides_the_output(x: float, D: int, norm: float, rounding: str) -> None:
    u = torch.tensor(x)
    assert torch.equal(
        IntegerFire(D, norm, rounding)(u), IntegerFire(D, rounding=rounding)(u) / norm
    )


@given(x=FINITE, D=st.integers(1, 255), norm=st.sampled_from([1.0, 2.0, 4.0]), rounding=ROUNDINGS)
def test_the_gradient_is_one_over_norm_from_0_to_D_and_zero_elsewhere(
    x: float, D: int, norm: float, rounding: str
) -> None:
    expected = 1 / norm if 0 <= x <= D else 0.0
    assert gradient(IntegerFire(D, norm, rounding), torch.tensor(x)).item() == expected


@pytest.mark.parametrize("border", [0.0, 4.0])
def test_the_gradient_passes_on_the_border_and_not_beside_it(border: float) -> None:
    away = torch.tensor(-1.0 if border == 0 else 9.0)
    x = torch.tensor(border)
    beside = torch.nextafter(x, away)
    assert gradient(IntegerFire(D=4), torch.stack([x, beside])).tolist() == [1, 0]


@pytest.mark.parametrize("rounding", ["half-even", "half-up"])
@pytest.mark.parametrize("norm", [1.0, 4.0])
def test_training_and_inference_fire_the_same(norm: float, rounding: str) -> None:
    neuron = IntegerFire(4, norm, rounding)
    x = torch.linspace(-2, 6, 65)  # every tie is among these
    assert torch.equal(neuron(x.clone().requires_grad_()), neuron(x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_dtype_is_kept_in_both_directions(dtype: torch.dtype) -> None:
    x = torch.tensor([0.5, 2.0], dtype=dtype)
    assert IntegerFire(norm=4.0)(x).dtype == dtype
    assert gradient(IntegerFire(norm=4.0), x).dtype == dtype


def test_a_network_learns_through_the_neuron() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 16), IntegerFire(), nn.Linear(16, 1))
    x = torch.randn(64, 4)
    optimiser = torch.optim.Adam(net.parameters(), lr=0.02)
    losses = []
    for _ in range(60):
        loss = (net(x) - x.abs().sum(1, keepdim=True)).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 4


@pytest.mark.parametrize(
    ("neuron", "ops"),
    [
        (IntegerFire(), ["clamp", "round"]),
        (IntegerFire(norm=4), ["clamp", "round", "div"]),
        (IntegerFire(rounding="half-up"), ["clamp", "add", "floor"]),
    ],
)
def test_a_pt2_file_holds_plain_operations(
    neuron: IntegerFire, ops: list[str], tmp_path: Path
) -> None:
    net = nn.Sequential(nn.Linear(3, 3), neuron)  # its parameters ask for gradients
    x = torch.randn(2, 3)
    torch.export.save(torch.export.export(net.eval(), (x,)), tmp_path / "net.pt2")
    program = torch.export.load(tmp_path / "net.pt2")
    assert [name.split(".")[1] for name in op_names(program)] == ["linear", *ops]
    assert torch.equal(program.module()(x), net(x))


@pytest.mark.parametrize(
    ("neuron", "ops"),
    [
        (IntegerFire(), ["Clip", "Round"]),
        (IntegerFire(norm=4), ["Clip", "Round", "Div"]),
        (IntegerFire(rounding="half-up"), ["Clip", "Add", "Floor"]),
    ],
)
def test_an_onnx_export_holds_plain_operations(neuron: IntegerFire, ops: list[str]) -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), neuron).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own
        program = torch.onnx.export(
            net, (torch.randn(1, 1, 5, 5),), dynamo=True, opset_version=21, verbose=False
        )
    assert program is not None
    assert [node.op_type for node in program.model.graph] == ["Conv", *ops]


def test_a_jit_trace_holds_plain_operations() -> None:
    net = nn.Sequential(nn.Linear(3, 3), IntegerFire()).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own
        traced = torch.jit.trace(net, (torch.randn(2, 3),))
    assert "PythonOp" not in str(traced.inlined_graph)


def test_vmap_and_func_grad_see_the_surrogate() -> None:
    x = torch.tensor([-1.0, 0.5, 3.0, 5.0])
    per_sample = torch.func.vmap(torch.func.grad(IntegerFire(norm=2.0)))
    assert per_sample(x).tolist() == [0, 0.5, 0.5, 0]


@pytest.mark.parametrize("D", [0, 256, -1, 4.0, True, "4", None])
def test_D_must_be_an_integer_that_fits_a_byte(D: object) -> None:
    with pytest.raises(UsageError, match=r"IntegerFire: D is .*; give an integer from 1 to 255"):
        IntegerFire(D=D)  # type: ignore[arg-type]


@pytest.mark.parametrize("norm", [0, -1.0, float("nan"), float("inf"), True, "1", None])
def test_norm_must_be_finite_and_positive(norm: object) -> None:
    with pytest.raises(UsageError, match=r"IntegerFire: norm is .*; give a finite number above 0"):
        IntegerFire(norm=norm)  # type: ignore[arg-type]


@pytest.mark.parametrize("rounding", ["nearest", "half_even", None, ["half-even"]])
def test_rounding_must_be_one_of_the_two_rules(rounding: object) -> None:
    with pytest.raises(UsageError, match=r"rounding is .*; give 'half-even' or 'half-up'"):
        IntegerFire(rounding=rounding)  # type: ignore[arg-type]


def test_the_repr_can_be_typed_back_in() -> None:
    neuron = IntegerFire(D=8, norm=0.1, rounding="half-up")
    assert repr(neuron) == "IntegerFire(D=8, norm=0.1, rounding='half-up')"


def test_a_copy_keeps_the_arguments_and_the_state_dict_is_empty() -> None:
    neuron = copy.deepcopy(IntegerFire(D=8, norm=4, rounding="half-up"))
    assert (neuron.D, neuron.norm, neuron.rounding) == (8, 4.0, "half-up")
    assert not neuron.state_dict()
