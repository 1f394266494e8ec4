"""Laws of the rounding of layers that read the input."""

from __future__ import annotations

import numpy as np
import pytest
from float_networks import Case, Net, case_of, imported, lowered

from snncc.ir.graphs import attribute, nodes
from snncc.passes import PassManager, QuantiseInput, pipeline
from snncc.passes.integers.round_for_pixels import round_for_pixels
from snncc.passes.integers.shared_grids import QuantisedLayer, largest_weight, plan


def network(flat: bool = False) -> Case:
    net = Net((2, 9, 9), seed=4, rms=2.0)
    net = net.flatten().linear(6) if flat else net.conv(6, 5, pads=2, dilation=1)
    net = net.fire(4) if flat else net.fire(4).conv(4, 3).fire(4).flatten()
    return case_of(net.linear(3))


def layers(case: Case, bits: int = 8) -> tuple[list[QuantisedLayer], list[QuantisedLayer]]:
    """To nearest, and as quantise-weights has them."""
    model = lowered(case, bits, check=False).after["fold-scale"]
    planned, _ = plan(model, bits)
    return list(planned.values()), list(round_for_pixels(planned).values())


def smooth(n: int = 200) -> np.ndarray:
    """Images of 0..255 in which neighbours are alike, (n, 2, 9, 9)."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (n, 2, 3, 3)).repeat(3, axis=2).repeat(3, axis=3)
    return coarse * 0.9 + rng.integers(0, 26, (n, 2, 9, 9))


def errors(layer: QuantisedLayer, x: np.ndarray) -> np.ndarray:
    """What rounding does to the potentials of the windows that lie inside."""
    loss = (layer.weight - layer.exact_weight()).reshape(len(layer.weight), -1)
    size = layer.weight.shape[2:] or x.shape[2:]
    windows = np.lib.stride_tricks.sliding_window_view(x, size, axis=(2, 3))
    rows = windows.transpose(0, 2, 3, 1, 4, 5).reshape(-1, loss.shape[1])
    return np.asarray(rows @ loss.T)


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("bits", [4, 8, 16])
def test_potentials_of_images_err_less(flat: bool, bits: int) -> None:
    nearest, found = (group[0] for group in layers(network(flat), bits))
    before, after = (np.square(errors(layer, smooth())).mean() for layer in (nearest, found))
    assert after < before / 2


@pytest.mark.parametrize("flat", [False, True])
def test_errors_of_a_channel_cancel(flat: bool) -> None:
    _, found = layers(network(flat))
    loss = found[0].weight - found[0].exact_weight()
    assert np.abs(loss.reshape(len(loss), 2, -1).sum(axis=2)).max() < 1


def test_weights_fit_and_only_those_on_the_input_move() -> None:
    nearest, found = layers(network(), 5)
    assert np.abs(found[0].weight).max() <= largest_weight(5)
    assert (found[0].weight != nearest[0].weight).any()
    assert found[0].grid == nearest[0].grid
    assert all(a is b for a, b in zip(nearest[1:], found[1:], strict=True))


def test_integer_weights_stay() -> None:
    net = Net((1, 6, 6), rms=2.0)
    weights = np.random.default_rng(0).integers(-127, 128, (3, 1, 3, 3))
    weights[:, 0, 0, 0] = 127
    net.then("Conv", net.const(weights / 127), module="conv")
    net.shape = (3, 4, 4)
    nearest, found = layers(case_of(net.fire(4).flatten().linear(2), scale=1.0))
    np.testing.assert_array_equal(found[0].weight, weights)
    np.testing.assert_array_equal(nearest[0].weight, weights)


def test_an_input_repeated_over_time_or_on_steps_of_its_own_is_an_input_too() -> None:
    case = network()
    real = Case(case.net, QuantiseInput((1 / 64,), (0.0,), real=True), case.q)
    manager = PassManager(pipeline(real.source, 8))
    manager.run(imported(real.net))
    model = manager.after["fold-scale"]
    source = next(nodes(model, "QuantizeInput"))
    assert attribute(source, "top") == 255
    planned, _ = plan(model, 8)
    first = next(iter(planned))
    assert (round_for_pixels(planned)[first].weight != planned[first].weight).any()
