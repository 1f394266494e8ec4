import pytest
import torch

from snncc.errors import UsageError
from snncc.nn import ILIF, LIF


def drives(T=5, seed=0):
    return torch.randn(T, 3, 2, 4, 4, generator=torch.Generator().manual_seed(seed)) * 1.5 + 0.5


def by_hand(x, decay, gain, fire, hard, threshold):
    """One element after the other, in float64."""
    out = torch.zeros_like(x)
    flat, found = x.double().reshape(len(x), -1), out.reshape(len(x), -1)
    for element in range(flat.shape[1]):
        v = 0.0
        for t in range(len(x)):
            h = decay * v + gain * float(flat[t, element])
            s = fire(h)
            v = (0.0 if s else h) if hard else h - s * threshold
            found[t, element] = s
    return out


@pytest.mark.parametrize("reset", ["hard", "soft"])
@pytest.mark.parametrize(("tau", "decay_input"), [(2.0, True), (1.5, False), (float("inf"), True)])
def test_lif_is_its_equation(tau, decay_input, reset):
    lif = LIF(tau, threshold=0.75, reset=reset, decay_input=decay_input)
    gain = 1 / tau if decay_input and tau < float("inf") else 1.0
    x = drives()
    expected = by_hand(x, 1 - 1 / tau, gain, lambda h: float(h >= 0.75), reset == "hard", 0.75)
    assert torch.equal(lif(x), expected)
    assert 0 < lif(x).mean() < 1


@pytest.mark.parametrize(("compare", "first"), [(">=", 1.0), (">", 0.0)])
def test_the_threshold_itself(compare, first):
    assert LIF(compare=compare)(torch.tensor([[2.0]])).item() == first


@pytest.mark.parametrize("reset", ["hard", "soft"])
def test_ilif_is_its_equation(reset):
    x = drives() * 2
    expected = by_hand(x, 0.25, 1.0, lambda h: round(min(max(h, 0), 3)), reset == "hard", 1.0)
    assert torch.equal(ILIF(3, 0.25, norm=2.0, reset=reset)(x) * 2, expected)


def test_learnt_tau_begins_where_it_is_told():
    torch.testing.assert_close(LIF(3.0, learn_tau=True)(drives()), LIF(3.0)(drives()))


@pytest.mark.parametrize("neuron", [LIF(3.0, learn_tau=True), ILIF(4), ILIF(2, reset="hard")])
def test_gradients_reach_every_timestep(neuron):
    x = drives().requires_grad_()
    (neuron(x) * torch.arange(1.0, 6).view(-1, 1, 1, 1, 1)).sum().backward()
    assert all(bool(g.any()) for g in x.grad)
    assert all(bool(p.grad) for p in neuron.parameters())


@pytest.mark.parametrize(
    "arguments",
    [{"tau": 0.5}, {"threshold": 0}, {"reset": "no"}, {"compare": "<"},
     {"tau": 1.0, "learn_tau": True}],
)  # fmt: skip
def test_wrong_arguments_of_lif_are_named(arguments):
    with pytest.raises(UsageError, match=f"LIF: {next(iter(arguments))}"):
        LIF(**arguments)


@pytest.mark.parametrize("arguments", [{"D": 0}, {"decay": 2}, {"norm": 0}, {"rounding": "up"}])
def test_wrong_arguments_of_ilif_are_named(arguments):
    with pytest.raises(UsageError, match=f"ILIF: {next(iter(arguments))}"):
        ILIF(**arguments)
