from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from float_networks import Case, Net, case_of, front

from snncc.errors import UnsupportedModelError, UsageError
from snncc.ir.graphs import nodes
from snncc.ir.oracle import evaluate
from snncc.passes import PassManager, QuantiseInput

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
IMAGENET = QuantiseInput(
    scale=tuple(1 / (255 * s) for s in STD),
    offset=tuple(-m / s for m, s in zip(MEAN, STD, strict=True)),
)
Q = np.random.default_rng(0).integers(0, 256, (4, 3, 8, 8)).astype(np.uint8)


def padded(net: Net) -> Net:
    return net.conv(5, pads=[1, 2, 1, 0], stride=2).fire().mean().linear(3)


def integer(net: Net, source: QuantiseInput = IMAGENET, q: np.ndarray = Q) -> ir.Model:
    """The network on pixels; the pass manager checks every value against floats."""
    return PassManager([source], feeds=Case(net, source, q).feeds).run(front(net))


def test_the_input_becomes_uint8() -> None:
    model = integer(padded(Net((3, 8, 8))))
    (x,) = model.graph.inputs
    assert (x.name, x.dtype) == ("x:u8", ir.DataType.UINT8)


def test_zeros_around_a_normalised_image_stay_zeros() -> None:
    """Black is not the zero of padding: the bias becomes a map, exact at the border."""
    model = integer(padded(Net((3, 8, 8))))
    (border,) = nodes(model, "Add")
    bias = border.inputs[1].const_value.numpy()  # type: ignore[union-attr]
    assert bias.shape == (1, 5, 4, 4)
    assert np.ptp(bias[0, :, 1:, 1:], axis=(1, 2)).max() < 1e-5
    assert np.ptp(bias[0], axis=(1, 2)).min() > 0.1


def test_an_unpadded_layer_keeps_one_bias_per_channel() -> None:
    model = integer(Net((3, 8, 8)).conv(5).fire().mean().linear(3))
    assert not list(nodes(model, "Add"))


def test_a_map_that_is_there_already_is_added() -> None:
    net = Net((3, 8, 8)).affine("Sub", [1, 2, 3], True).conv(4, pads=1).fire().mean().linear(2)
    assert len(list(nodes(integer(net), "Add"))) == 1


@pytest.mark.parametrize("kind", ["MaxPool", "AveragePool"])
def test_pools_of_the_input_pass_the_map_on(kind: str) -> None:
    integer(Net((3, 8, 8)).pool(kind).conv(4, pads=1).fire().mean().linear(2))


def test_flattening_spreads_the_map_over_features() -> None:
    integer(Net((3, 8, 8)).flatten().linear(4).fire().linear(2))


def test_a_padded_max_pool_of_the_input_is_exact() -> None:
    integer(Net((3, 8, 8)).pool("MaxPool", 3, 2, 1).conv(4, 2).fire().mean().linear(2))


def test_a_padded_average_of_the_input_is_exact_without_offset() -> None:
    net = Net((3, 8, 8)).pool("AveragePool", 3, 2, 1).conv(4, 2).fire().mean().linear(2)
    integer(net, QuantiseInput(scale=(1 / 255,)))


def test_a_padded_average_of_a_shifted_input_is_refused() -> None:
    net = Net((3, 8, 8)).pool("AveragePool", 3, 2, 1).conv(4, 2).fire().mean().linear(2)
    with pytest.raises(UnsupportedModelError, match="padded average of the input"):
        integer(net)


@pytest.mark.parametrize("rounding", ["half-even", "half-up"])
@pytest.mark.parametrize("offset", [0.0, -0.1, -1.5])
def test_a_neuron_may_read_the_input(rounding: str, offset: float) -> None:
    """Decimal scales put pixels on rounding borders, where float32 may fall either way."""
    net = Net((3, 8, 8)).fire(4, rounding=rounding).conv(2).fire().mean().linear(2)
    integer(net, QuantiseInput((1 / 50,), (offset,)))


def test_a_real_input_is_rounded_to_its_grid() -> None:
    net = padded(Net((3, 8, 8)))
    source = QuantiseInput(scale=(0.02,), offset=(-2.0,), real=True)
    model = PassManager([source]).run(front(net))
    assert model.graph.inputs[0].name == "x"
    x = np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(np.float32)
    (q,) = evaluate(model, {"x": x}, ["x:u8"]).values()
    np.testing.assert_array_equal(
        q, np.clip(np.rint((x + np.float32(2)) / np.float32(0.02)), 0, 255)
    )
    # on inputs that lie on the grid nothing is lost
    on_grid = np.asarray(q * np.float32(0.02) - np.float32(2))
    (a,), (b,) = (evaluate(m, {"x": on_grid}).values() for m in (front(net), model))
    np.testing.assert_allclose(a, b, atol=1e-4)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (QuantiseInput(scale=(1.0, 1.0)), "2 values of scale for 3 input channels"),
        (QuantiseInput(offset=(1.0, 1.0)), "2 values of offset for 3 input channels"),
        (QuantiseInput(scale=(0.0,)), "must be positive"),
        (QuantiseInput(scale=(float("nan"),)), "must be positive"),
        (QuantiseInput(offset=(float("inf"),)), "must be finite"),
    ],
)
def test_a_wrong_grid_is_a_usage_error(source: QuantiseInput, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        PassManager([source]).run(front(padded(Net((3, 8, 8)))))


def test_the_grid_shows_as_options() -> None:
    assert set(IMAGENET.options()) == {"scale", "offset", "real"}


def test_a_network_with_two_first_layers_gets_both_folded() -> None:
    net = Net((3, 8, 8))
    one = net.conv(4, 3, pads=1).x
    net.x, net.shape = "x", (3, 8, 8)
    net.conv(4, 1).add(one).fire().mean().linear(2)
    integer(net)


def test_a_case_on_its_grid_is_what_the_float_network_reads() -> None:
    case = case_of(padded(Net((3, 8, 8))), scale=1 / 255, offset=-0.5)
    assert case.x.dtype == np.float32
    np.testing.assert_allclose(case.x, case.q / 255 - 0.5, atol=1e-6)


def test_a_flat_image_next_to_the_mean_is_no_fault() -> None:
    """There pixels and offset cancel, and float32 has their difference to few digits."""
    source = QuantiseInput(scale=(1 / (255 * 0.353),), offset=(-0.286 / 0.353,))
    flat = np.full((1, 1, 8, 8), round(255 * 0.286), np.uint8)
    integer(Net((1, 8, 8)).conv(8, pads=1, bias=False).fire().mean().linear(2), source, flat)
