"""Laws of reading quantised files: the standard spelling computes what the file says."""

from __future__ import annotations

from fractions import Fraction

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
import quantised_networks
from quantised_networks import normal, parsed, run

from snncc.errors import UnsupportedModelError
from snncc.frontends.onnx_file import import_onnx
from snncc.frontends.quantised_file import standardised
from snncc.ir.exact import Exact
from snncc.ir.text import dump

F = np.float32
EACH_BATCH = pytest.mark.usefixtures("batch")
QUANT = "qonnx.custom_op.general.Quant"


def away(x):
    return np.sign(x) * np.floor(np.abs(x) + 0.5)


ROUNDINGS = {
    "ROUND": np.rint, "HALF_EVEN": np.rint, "HALF_UP": away, "FLOOR": np.floor, "DOWN": np.fix
}  # fmt: skip
OTHERS = {
    "CEIL": np.ceil,
    "UP": lambda x: np.sign(x) * np.ceil(np.abs(x)),
    "HALF_DOWN": lambda x: np.sign(x) * np.ceil(np.abs(x) - 0.5),
}


def expected(x, scale, zero, bits, signed, narrow, rounding):
    """Quant by its definition: what is clamped need be no integer."""
    low = -(2 ** (bits - 1)) + narrow if signed else 0
    high = 2 ** (bits - 1) - 1 if signed else 2**bits - 1 - narrow
    steps = {**ROUNDINGS, **OTHERS}[rounding](np.clip(x / scale + zero, low, high))
    return ((steps - zero) * scale).astype(F)


def quant(x, scale, zero, bits, signed, narrow, rounding):
    """A model of one Quant of the input, of ``r``, which is the same, or of the constant ``w``."""
    attributes = (
        f'signed: int = {signed}, narrow: int = {narrow}, rounding_mode: string = "{rounding}"'
    )
    body = "m = Neg (x)  r = Neg (m)" if x == "r" else ""
    body += f"  y = {QUANT} <{attributes}> ({x}, s, z, b)"
    return parsed(body, "float[N,2,4,4] y", s=scale, z=F(zero), b=F(bits))


SCALES = [F(0.3), np.array([0.3, 0.2], F).reshape(1, 2, 1, 1), np.array([[[0.3]], [[0.2]]], F)]


@EACH_BATCH
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(("bits", "zero"), [(2, 0), (2.5, 0), (4, 0), (8, 0), (8, 2), (7.3, 0)])
@pytest.mark.parametrize(("signed", "narrow"), [(0, 0), (0, 1), (1, 0), (1, 1)])
@pytest.mark.parametrize("rounding", list(ROUNDINGS))
def test_quant_is_computed_by_its_definition(scale, bits, zero, signed, narrow, rounding):
    if rounding in ("HALF_UP", "DOWN") and (signed or zero):
        return  # refused, see below
    x = 2 * normal(4, 2, (2, 4, 4))
    if np.abs(x / scale - np.floor(x / scale) - 0.5).min() < 1e-6:
        raise AssertionError("the samples hold ties")
    settings = scale, zero, bits, signed, narrow, rounding
    model = standardised(quant("x", *settings))
    assert {n.domain for n in model.graph.node} == {""}
    assert np.abs(run(model, x) - expected(x, *settings)).max() < 1e-6


@EACH_BATCH
@pytest.mark.parametrize("zero", [1, 2, 5])
@pytest.mark.parametrize("signed", [0, 1])
def test_quant_adds_its_zero_point_before_it_rounds(zero, signed):
    """QuantizeLinear adds it after: ties of an odd one fall otherwise. Samples are as they are."""
    x = np.arange(-16, 16, dtype=F).reshape(1, 2, 4, 4) / 4
    settings = F(0.5), zero, 4, signed, 0, "ROUND"
    assert (run(standardised(quant("r", *settings)), x) == expected(x, *settings)).all()


@EACH_BATCH
@pytest.mark.parametrize("scale", SCALES)
def test_a_bipolar_quantiser_has_0_above(scale):
    x = normal(4, 2, (2, 4, 4))
    x[:, :, 0] = 0
    bipolar = "qonnx.custom_op.general.BipolarQuant"
    model = standardised(parsed(f"y = {bipolar} (x, s)", "float[N,2,4,4] y", s=scale))
    assert {n.domain for n in model.graph.node} == {""}
    assert (run(model, x) == np.where(x >= 0, F(1), F(-1)) * scale).all()
    with pytest.raises(UnsupportedModelError, match=r"scale -0\.5 is not positive"):
        standardised(parsed(f"y = {bipolar} (x, s)", "float[N,2,4,4] y", s=F(-0.5)))


TRUNC = "qonnx.custom_op.general.Trunc"


@EACH_BATCH
@pytest.mark.parametrize("mode", ["FLOOR", "ROUND"])
@pytest.mark.parametrize(("bits", "left"), [(8, 8), (8, 4), (6, 5)])
@pytest.mark.parametrize("version", [1, 2])
def test_a_trunc_drops_bits_of_its_integers(mode, bits, left, version):
    k = np.random.default_rng(1).integers(0, 2**bits, (4, 2, 4, 4))
    scale, share = F(0.25), 2 ** (bits - left)
    after = scale * F(share) if version == 2 else scale
    given = {"s": scale, "z": F(0), "b": F(bits), "l": F(left), "a": after}
    names = "x, s, z, b, a, l" if version == 2 else "x, s, z, b, l"
    attributes = f'<rounding_mode: string = "{mode}", signed: int = 0, narrow: int = 0>'
    if version == 1:
        del given["a"]
    model = standardised(parsed(f"y = {TRUNC} {attributes} ({names})", "float[N,2,4,4] y", **given))
    whole = {"FLOOR": np.floor, "ROUND": np.rint}[mode](k / share)
    top = 2**left - 1 if version == 2 else 2**left
    assert (run(model, (k * scale).astype(F)) == np.minimum(whole, top) * after).all()


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"l": F(0)}, "from 8 to 0 bits: these are no bit widths"),
        ({"l": F(9)}, "from 8 to 9 bits loses -1 bits"),
        ({"l": F(2.5)}, "from 8 to 2.5 bits: these are no bit widths"),
        ({"b": F(np.nan)}, "from nan to 4 bits: these are no bit widths"),
        ({"z": F(3)}, "zero point 3; what is left of it"),
        ({"s": F(-1)}, "scale -1 is not positive"),
        ({"s": np.array([0.1, 0.2], F).reshape(1, 2, 1, 1)}, "has settings of each channel"),
    ],
)
def test_a_trunc_of_impossible_bits_is_named(changed, what):
    given = {"s": F(0.25), "z": F(0), "b": F(8), "l": F(4), **changed}
    model = parsed(f"y = {TRUNC} (x, s, z, b, l)", "float[N,2,4,4] y", **given)
    with pytest.raises(UnsupportedModelError, match=what) as caught:
        standardised(model)
    assert len(caught.value.faults) == 1


@EACH_BATCH
def test_quant_takes_ties_as_its_mode_says():
    x = (np.arange(32, dtype=F) / 4).reshape(1, 2, 4, 4)  # every other one is a tie
    for rounding in ROUNDINGS:
        settings = F(0.5), 0, 3, 0, 0, rounding
        assert (run(standardised(quant("x", *settings)), x) == expected(x, *settings)).all()


@EACH_BATCH
@pytest.mark.parametrize("rounding", [*ROUNDINGS, *OTHERS])
@pytest.mark.parametrize("signed", [0, 1])
@pytest.mark.parametrize(
    ("scale", "zero"), [(F(0.1), 0), (SCALES[1], 1), (SCALES[2], 0.5), (F(0.5), 0)]
)
def test_quant_of_weights_is_a_constant(tmp_path, scale, zero, signed, rounding):
    w = np.rint(8 * normal(1, 3, (2, 4, 4))).astype(F) / 4  # with ties
    settings = scale, zero, 4, signed, signed, rounding
    model = quant("w", *settings)
    model.graph.initializer.append(onnx.numpy_helper.from_array(w, "w"))
    model.graph.node[0].output[0] = "q"
    model.graph.node.append(onnx.helper.make_node("Add", ["x", "q"], ["y"]))
    found = weights(model, tmp_path)
    steps = w / scale + F(zero)  # float32, as runtimes divide
    ends = (-7, 7) if signed else (0, 15)
    whole = {**ROUNDINGS, **OTHERS}[rounding](np.clip(steps, *ends)).astype(np.float64) - zero
    assert (found.real.astype(F) == (whole * scale).astype(F)).all()
    if zero != 0.5:  # these are integers, times the file's own scale
        units = np.broadcast_to(scale, w.shape)
        pairs = zip(whole.reshape(-1).tolist(), units.reshape(-1).tolist(), strict=True)
        assert exactly(found) == [Fraction(k) * Fraction(s) for k, s in pairs]


def weights(model, folder):
    """The constant of the one Add that is left of a model, as imported."""
    onnx.save(model, folder / "net.onnx")
    graph = import_onnx(folder / "net.onnx").graph
    (node,) = graph
    assert node.op_type == "Add"
    found = Exact.of(node.inputs[1])
    assert found is not None
    return found


def exactly(numbers: Exact) -> list[Fraction]:
    """All of them as fractions."""
    return list(numbers.fractions())


@EACH_BATCH
@pytest.mark.parametrize(
    ("dtype", "scale", "attributes"),
    [
        (np.int8, F(0.1), ""),
        (np.int8, np.array([0.1, 0.2], F), "<axis: int = 1>"),
        (ml_dtypes.int4, np.array([0.1, 0.2], F), "<axis: int = 1>"),
        (ml_dtypes.uint4, np.array([0.1, -0.2], F), "<axis: int = 1>"),
        (np.int32, F(0.001), ""),
        (
            np.int8,
            np.arange(1, 17, dtype=F).reshape(1, 2, 4, 2),
            "<axis: int = 3, block_size: int = 2>",
        ),
    ],
)
def test_dequantised_constants_are_what_the_runtime_makes_of_them(
    tmp_path, dtype, scale, attributes
):
    low = 0 if dtype is ml_dtypes.uint4 else -8
    w = np.random.default_rng(1).integers(low, 8, (1, 2, 4, 4)).astype(dtype)
    body = f"d = DequantizeLinear {attributes} (w, s)  y = Add (x, d)"
    model, x = parsed(body, "float[N,2,4,4] y", w=w, s=scale), normal(2, 1, (2, 4, 4))
    found = weights(model, tmp_path)
    assert (x + found.real.astype(F) == run(model, x)).all()
    if scale.ndim < 2:  # exactly: float32 products of blocks stay what they are
        by = np.broadcast_to(scale.reshape(-1, 1, 1), w.shape)
        pairs = zip(w.reshape(-1).astype(int), by.reshape(-1).tolist(), strict=True)
        assert exactly(found) == [Fraction(int(k)) * Fraction(s) for k, s in pairs]


@EACH_BATCH
def test_weights_quantised_in_the_file_meet_ties_as_the_runtime_does(tmp_path):
    w = (np.arange(-16, 16, dtype=F) / 4).reshape(1, 2, 4, 4)
    body = "q = QuantizeLinear (w, s, z)  d = DequantizeLinear (q, s, z)  y = Add (x, d)"
    model = parsed(body, "float[N,2,4,4] y", w=w, s=F(0.5), z=np.int8(0))
    x = normal(2, 1, (2, 4, 4))
    assert (x + weights(model, tmp_path).real.astype(F) == run(model, x)).all()


@EACH_BATCH
@pytest.mark.parametrize(
    "move", ["Transpose <perm: ints = [0, 1, 3, 2]> (d)", "Reshape (d, shape)"]
)
def test_weights_that_are_moved_stay_exact(tmp_path, move):
    w = np.random.default_rng(1).integers(-8, 8, (1, 2, 4, 4)).astype(np.int8)
    body = f"d = DequantizeLinear (w, s)  m = {move}  y = Add (x, m)"
    shape = np.array([1, 2, 4, 4])
    model = parsed(body, "float[N,2,4,4] y", w=w, s=F(0.1), shape=shape)
    found = weights(model, tmp_path)
    moved = w.transpose(0, 1, 3, 2) if "Transpose" in move else w
    assert exactly(found) == [Fraction(int(k)) * Fraction(float(F(0.1))) for k in moved.flat]


@EACH_BATCH
@pytest.mark.parametrize("dtype", [ml_dtypes.uint4, ml_dtypes.int4])
def test_four_bits_compute_the_same_in_eight(dtype):
    body = "q = QuantizeLinear (x, s, z)  y = DequantizeLinear (q, s, z)"
    model = parsed(body, "float[N,2,4,4] y", s=F(0.2), z=np.asarray(3, dtype))
    wide, x = standardised(model), 2 * normal(8, 4, (2, 4, 4))
    assert [n.op_type for n in wide.graph.node] == ["QuantizeLinear", "Clip", "DequantizeLinear"]
    assert (run(wide, x) == run(model, x)).all()


@EACH_BATCH
def test_a_file_without_quantisers_is_left_alone():
    model = parsed("y = Relu (x)", "float[N,2,4,4] y")
    assert standardised(model) is model


@EACH_BATCH
def test_quantisers_whose_constants_are_listed_as_inputs(tmp_path):
    settings = F(0.3), 2, 4, 0, 0, "ROUND"
    model = quant("x", *settings)
    model.graph.node[0].output[0] = "q"
    model.graph.node.append(onnx.helper.make_node("Relu", ["q"], ["y"]))
    onnx.save(model, tmp_path / "plain.onnx")
    for tensor in model.graph.initializer:
        listed = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        model.graph.input.append(listed)
    onnx.save(model, tmp_path / "listed.onnx")
    plain, listed = (import_onnx(tmp_path / f"{name}.onnx") for name in ("plain", "listed"))
    assert dump(plain) == dump(listed)
    assert [str(v.name) for v in listed.graph.inputs] == ["x"]


# -- what is refused, and how that is said -------------------------------------------------

UNREADABLE = {
    **{f"mode_{mode.lower()}": {"rounding": mode} for mode in (*OTHERS, "ROUND_TO_ZERO")},
    "signed_half_up": {"rounding": "HALF_UP", "signed": 1},
    "signed_down": {"rounding": "DOWN", "signed": 1},
    "ten_bits": {"bits": 10},
    "two_bit_widths": {"bits": [4, 8]},
    "negative_scale": {"scale": F(-0.25)},
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_quantisers_without_a_spiking_form_say_why(golden, case, monkeypatch):
    given = {"bits": 4, "signed": 0, "rounding": "ROUND", "scale": F(0.3), **UNREADABLE[case]}
    for axis in ("N", 1, 8):
        monkeypatch.setattr(quantised_networks, "BATCH", axis)
        model = quant("x", given["scale"], 0, given["bits"], given["signed"], 0, given["rounding"])
        model.graph.node[0].name = "act"
        with pytest.raises(UnsupportedModelError) as caught:
            standardised(model)
        assert f"{caught.value}\n" == golden


@EACH_BATCH
def test_all_quantisers_that_are_refused_are_listed():
    body = "".join(
        f'{y} = {QUANT} <signed: int = 0, narrow: int = 0, rounding_mode: string = "CEIL"> '
        f"({x}, s, z, b) "
        for x, y in (("x", "a"), ("a", "y"))
    )
    with pytest.raises(UnsupportedModelError, match="spiking form: 2") as caught:
        standardised(parsed(body, "float[N,2,4,4] y", s=F(0.3), z=F(0), b=F(4)))
    assert len(caught.value.faults) == 2


@EACH_BATCH
def test_constants_of_the_graph_have_no_float_of_their_own(tmp_path):
    """What ONNX Runtime computes with is the float32 next to the exact number."""
    body = "d = DequantizeLinear (w, s)  y = Add (x, d)"
    w = np.arange(32, dtype=np.int8).reshape(1, 2, 4, 4)
    onnx.save(parsed(body, "float[N,2,4,4] y", w=w, s=F(0.1)), tmp_path / "net.onnx")
    model = import_onnx(tmp_path / "net.onnx")
    (value,) = (v for v in model.graph.initializers.values() if v.shape and len(v.shape) == 4)
    assert value.dtype == ir.DataType.FLOAT
    assert value.const_value is not None
    assert (value.const_value.numpy() == w * F(0.1)).all()


@pytest.mark.parametrize(
    ("zero", "bits", "what"),
    [
        (0.5, 4.0, "zero point 0.5 is no integer"),
        (-0.25, 4.0, "zero point -0.25 is no integer"),
        (20.0, 4.0, "zero point 20 outside of its integers 0..15"),
        (-2.0, 4.0, "zero point -2 outside of its integers 0..15"),
        (0.0, 0.0, "bit width 0: it has one level, and nothing to count"),
        (0.0, 0.5, "bit width 0.5: it has one level, and nothing to count"),
        (0.0, np.nan, "bit width nan: it has one level, and nothing to count"),
    ],
)
def test_a_quantiser_without_levels_or_off_the_integers_is_named(zero, bits, what):
    with pytest.raises(UnsupportedModelError, match=what):
        standardised(quant("x", F(0.5), zero, bits, 0, 0, "ROUND"))


def test_other_zero_points_are_named():
    """Half-up of any but 0, which QuantizeLinear does not have; and one for each channel."""
    with pytest.raises(UnsupportedModelError, match="zero point 1, rounding mode HALF_UP, which"):
        standardised(quant("x", F(0.5), 1.0, 4.0, 0, 0, "HALF_UP"))
    apart = np.array([0, 1], F).reshape(1, 2, 1, 1)
    with pytest.raises(UnsupportedModelError, match="zero points 0 to 1, not one for all channels"):
        standardised(quant("x", F(0.5), apart, 4.0, 0, 0, "ROUND"))


@pytest.mark.parametrize(
    ("live", "what"),
    [("s", "scale"), ("z", "zero point"), ("b", "bit width")],
)
def test_what_a_quantiser_computes_while_it_runs_is_named(live, what):
    arrays = {"s": F(0.5), "z": F(0), "b": F(4)}
    top = "q = Abs (x)  r = ReduceMax <keepdims: int = 0> (q)"
    names = ", ".join("r" if name == live else name for name in arrays)
    del arrays[live]
    proto = parsed(f"{top}  y = {QUANT} (x, {names})", "float[N,2,4,4] y", **arrays)
    with pytest.raises(UnsupportedModelError, match=f"computes its {what} while it runs"):
        standardised(proto)
