"""Laws of quantised files: they compile to what ONNX Runtime computes, or say why not."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import quantised_networks
from hypothesis import given
from hypothesis import strategies as st
from interpreter import interpret
from quantised_networks import normal, parsed, quantised, run

import snncc
from snncc.compiler import InputOptions, check
from snncc.errors import UnsupportedModelError, UsageError, VerificationError
from snncc.frontends import quantised_file
from snncc.runtime.contract import InputContract

EACH_BATCH = pytest.mark.usefixtures("batch")
F, I8, U8 = np.float32, np.int8, np.uint8
RNG = np.random.default_rng(3)
WEIGHTS = RNG.integers(-7, 8, (3, 2, 3, 3))
HEAD = RNG.integers(-7, 8, (3, 48))
GRID = {"s": F(0.25), "z": U8(0), "t": F(0.4037), "zt": U8(0), "si": F(0.02), "zi": U8(127)}
CONSTANTS = {
    **GRID, "w": WEIGHTS.astype(I8), "sw": np.array([0.1013, 0.2171, 0.0709], F),
    "zw": np.zeros(3, I8), "b": np.array([3, -40, 12], np.int32),
    "sb": np.array([0.1013, 0.2171, 0.0709], F) * F(0.02),
    "h": HEAD.astype(I8), "sh": F(0.03), "zh": I8(0), "lo": U8(0), "hi": U8(15),
}  # fmt: skip

INPUT = "xq = QuantizeLinear (x, si, zi)  xd = DequantizeLinear (xq, si, zi)"
FIRST = """
    wf = DequantizeLinear <axis: int = 0> (w, sw, zw)
    bf = DequantizeLinear <axis: int = 0> (b, sb)
    c = Conv <pads: ints = [1, 1, 1, 1]> (xd, wf, bf)
"""
LAST = """
    f = Flatten (a)
    hf = DequantizeLinear (h, sh, zh)
    y = Gemm <transB: int = 1> (f, hf)
"""


def saved(path, model: onnx.ModelProto):
    """The path of the model's file."""
    onnx.save(model, path / "net.onnx")
    return path / "net.onnx"


def network(path, activation: str, input_: str = INPUT, **constants):
    """Input, convolution, ``activation`` of c to a, linear layer."""
    return saved(path, parsed(input_ + FIRST + activation + LAST, **{**CONSTANTS, **constants}))


def compiled(path, x, bits=24, **more):
    """The network and its result on ``x``."""
    model = snncc.compile(path, x, weight_bits=bits, **more)
    return model, snncc.Session(model).run(None, {"x": x})[0]


def relative(y, expected):
    """The largest difference, relative to the largest result."""
    return float(np.abs(y - expected).max() / np.abs(expected).max())


# -- ONNX Runtime's quantiser --------------------------------------------------------------


@EACH_BATCH
@pytest.mark.parametrize(
    ("bits", "weight_bits", "per_channel"), [(8, 24, True), (4, 24, False), (4, 8, False)]
)
def test_a_file_of_the_runtimes_quantiser_gives_what_the_runtime_gives(
    tmp_path, bits, weight_bits, per_channel
):
    path, x = quantised(tmp_path / "cnn.onnx", bits, per_channel), normal(12, 9)
    model, y = compiled(path, x, weight_bits)
    assert relative(y, run(path, x)) < 1e-5
    assert {n.D for n in model.program.neurons} == {2**bits - 1}
    report = model.report
    assert report.verify.mismatched == 0
    assert (report.changed, report.changed_by_input) == (0, 0)


@EACH_BATCH
def test_pools_and_regrouping_do_not_quantise_again(tmp_path):
    model = snncc.compile(quantised(tmp_path / "cnn.onnx", 4), weight_bits=8)
    assert len(model.program.neurons) == 6  # four ReLUs, the sum, the result


@EACH_BATCH
def test_the_interpreter_agrees_on_a_quantised_file(tmp_path):
    model = snncc.compile(quantised(tmp_path / "cnn.onnx", 4), weight_bits=8)
    x = model.input.encode(normal(1, 4))
    _, _, readouts = interpret(model.program, x)
    outputs = snncc.Session(model).run_integers({"x": normal(1, 4)})
    assert all((outputs[name] == values).all() for name, values in readouts.items())


# -- QCDQ and QONNX ------------------------------------------------------------------------

QCDQ = """
    r = Relu (c)
    q = QuantizeLinear (r, t, zt)
    k = Clip (q, lo, hi)
    a = DequantizeLinear (k, t, zt)
"""
QUANT = "qonnx.custom_op.general.Quant"
ROUND = 'narrow: int = 0, rounding_mode: string = "ROUND"'
NARROW = ROUND.replace("0", "1")
QONNX = f"""
    xd = {QUANT} <signed: int = 0, {ROUND}> (x, si, zf, b8)
    wf = {QUANT} <signed: int = 1, {NARROW}> (wr, wp, z0, b4)
    c = Conv <pads: ints = [1, 1, 1, 1]> (xd, wf, br)
    r = Relu (c)
    a = {QUANT} <signed: int = 0, {ROUND}> (r, t, z0, b4)
    f = Flatten (a)
    y = Gemm <transB: int = 1> (f, hr)
"""


def qonnx():
    """The QCDQ network as QONNX writes it, weights as floats off their grid."""
    scale = CONSTANTS["sw"].reshape(3, 1, 1, 1)
    noise = RNG.uniform(-0.3, 0.3, WEIGHTS.shape)
    return parsed(
        QONNX, si=GRID["si"], t=GRID["t"], zf=F(127), z0=F(0), b8=F(8), b4=F(4), wp=scale,
        wr=((WEIGHTS + noise) * scale).astype(F), br=(CONSTANTS["b"] * CONSTANTS["sb"]).astype(F),
        hr=(HEAD * CONSTANTS["sh"]).astype(F),
    )  # fmt: skip


@EACH_BATCH
@pytest.mark.parametrize("bits", [8, 24])
def test_a_clip_between_narrows_the_levels(tmp_path, bits):
    x, path = normal(24, 5, (2, 4, 4)), network(tmp_path, QCDQ)
    model, y = compiled(path, x, bits)
    assert [n.D for n in model.program.neurons] == [15]
    assert relative(y, run(path, x)) < 1e-5
    assert model.report.changed == 0


@EACH_BATCH
def test_the_integers_of_the_file_are_kept(tmp_path):
    model = snncc.compile(network(tmp_path, QCDQ), weight_bits=8)
    first, last = model.program.accumulators
    assert (first.projections[0].weights[0] == WEIGHTS).all()
    assert (last.projections[0].weights[0] == HEAD).all()


@EACH_BATCH
def test_qonnx_is_the_same_program(tmp_path):
    one = snncc.compile(network(tmp_path, QCDQ), weight_bits=8).program
    two = snncc.compile(saved(tmp_path, qonnx()), weight_bits=8).program
    for a, b in zip(one.accumulators, two.accumulators, strict=True):
        assert (a.projections[0].weights[0] == b.projections[0].weights[0]).all()
        assert (a.bias == b.bias).all()
    assert (one.neurons[0].levels == two.neurons[0].levels).all()


def test_levels_that_import_reads_otherwise_are_found(tmp_path, monkeypatch):
    """The graph is compared with the file's own quantisers."""
    own = quantised_file._ends
    monkeypatch.setattr(quantised_file, "_ends", lambda *args: (own(*args)[0], own(*args)[1] - 1))
    with pytest.raises(VerificationError, match=r"^import: the graph does not comp"):
        snncc.compile(saved(tmp_path, qonnx()), 9 * normal(4, 3, (2, 4, 4)), weight_bits=8)


# -- which pairs are neurons ---------------------------------------------------------------

PAIR = "q = QuantizeLinear ({0}, t, zt)  a = DequantizeLinear (q, t, zt)"
RELU = "r = Relu (c)" + PAIR.format("r")
RELU6 = "r = Clip (c, m, n)" + PAIR.format("r")


@EACH_BATCH
@pytest.mark.parametrize(
    ("activation", "zero", "D"),
    [
        (PAIR.format("c"), U8(0), 255),
        (PAIR.format("c"), I8(-128), 255),  # as other converters write unsigned integers
        (RELU, I8(0), 127),
        (RELU, U8(3), 252),
        (RELU6, U8(0), 15),
    ],
)
def test_neurons_are_pairs_whose_integers_run_from_zero(tmp_path, activation, zero, D):
    x = normal(8, 6, (2, 4, 4))
    path = network(tmp_path, activation, zt=zero, m=F(0), n=F(6))
    model, y = compiled(path, x)
    assert [n.D for n in model.program.neurons] == [D]
    assert relative(y, run(path, x)) < 1e-5


@EACH_BATCH
def test_scales_may_differ_by_channel(tmp_path):
    x, scale = normal(8, 6, (2, 4, 4)), np.array([0.3011, 0.4037, 0.5023], F)
    path = network(tmp_path, RELU, t=scale, zt=np.zeros(3, U8))
    assert relative(compiled(path, x)[1], run(path, x)) < 1e-5


@EACH_BATCH
@pytest.mark.parametrize(
    ("activation", "zero", "D"),
    [
        (PAIR.format("c"), I8(0), 255),
        (PAIR.format("c"), U8(3), 255),
        (PAIR.format("c"), U8(100), 255),
        ("r = Clip (c, m, n)" + PAIR.format("r"), U8(0), 13),  # from 2 to 15
        (PAIR.format("c").replace("a =", "d =") + "a = Relu (d)", I8(0), 127),
        (PAIR.format("c").replace("a =", "d =") + "a = Relu (d)", U8(100), 155),
    ],
)
def test_signed_and_offset_pairs_count_from_their_first_integer(tmp_path, activation, zero, D):
    """Padded and unpadded layers read them; so do sums, and layers after max-pools."""
    x, w = normal(8, 6, (2, 4, 4)), RNG.integers(-7, 8, (3, 3, 3, 3)).astype(np.float32)
    more = """
        p = MaxPool <kernel_shape: ints = [3, 3], pads: ints = [1, 1, 1, 1]> (a)
        e = Conv <pads: ints = [1, 1, 1, 1]> (p, w2)
        k = Add (e, a)
        r2 = Relu (k)
        q2 = QuantizeLinear (r2, t, zr)
        a2 = DequantizeLinear (q2, t, zr)
    """
    body = INPUT + FIRST + activation + more + LAST.replace("Flatten (a)", "Flatten (a2)")
    given = {**CONSTANTS, "zt": zero, "w2": w, "zr": U8(0), "m": F(1), "n": F(6)}
    path = saved(tmp_path, parsed(body, **given))
    model, y = compiled(path, x)
    assert sorted(n.D for n in model.program.neurons) == sorted([D, 255])
    assert relative(y, run(path, x)) < 1e-5
    assert not model.report.verify.mismatched


@EACH_BATCH
def test_a_pair_that_others_read_besides_a_relu_fires_for_both(tmp_path):
    x = normal(8, 6, (2, 4, 4))
    pair = PAIR.format("c").replace("a =", "d =") + "e = Relu (d) a = Add (d, e)"
    path = network(tmp_path, pair, zt=U8(100))
    model, y = compiled(path, x)
    assert [n.D for n in model.program.neurons] == [155, 255]
    assert relative(y, run(path, x)) < 1e-5


@EACH_BATCH
def test_spikes_that_are_joined_and_quantised_again_are_all_compared(tmp_path):
    """On another scale each of them, as in SqueezeNet: what drives the second is the first."""
    x = normal(8, 6, (2, 4, 4))
    join = """
        e = Conv <pads: ints = [1, 1, 1, 1]> (a, w2)  re = Relu (e)
        qe = QuantizeLinear (re, s, z)  ae = DequantizeLinear (qe, s, z)
        g = Conv <pads: ints = [1, 1, 1, 1]> (a, w2)  rg = Relu (g)
        qg = QuantizeLinear (rg, t2, z)  ag = DequantizeLinear (qg, t2, z)
        j = Concat <axis: int = 1> (ae, ag)
        qj = QuantizeLinear (j, s, z)  aj = DequantizeLinear (qj, s, z)
        k = Conv <pads: ints = [0, 0, 0, 0]> (aj, w3)
        qk = QuantizeLinear (k, t2, z)  ak = DequantizeLinear (qk, t2, z)
    """
    body = INPUT + FIRST + RELU + join + LAST.replace("Flatten (a)", "Flatten (ak)")
    more = {
        "w2": RNG.integers(-7, 8, (3, 3, 3, 3)).astype(F) / 50, "t2": F(0.611),
        "w3": RNG.integers(-7, 8, (3, 6, 1, 1)).astype(F) / 50,
    }  # fmt: skip
    model, _ = compiled(saved(tmp_path, parsed(body, **{**CONSTANTS, **more})), x)
    assert model.report.import_law.neurons == len(model.program.neurons) == 5


def messages(path) -> str:
    """What ``check`` says of a file, a fault a line."""
    found = check(path)
    assert found.near_misses[-1] == found.faults[-1]
    with pytest.raises(UnsupportedModelError, match=f"{len(found.faults)} nodes? of"):
        snncc.compile(path)
    return "".join(f"{fault}\n" for fault in found.faults)


NEAR_MISSES = {
    "one_level": ("r = Clip (c, n, n)" + PAIR.format("r"), U8(0)),
    "sixteen_bits": (PAIR.format("c"), np.uint16(0)),
    "sixteen_bits_off_centre": (PAIR.format("c"), np.uint16(32768)),
    "two_scales": (PAIR.format("c").replace("(q, t, zt)", "(q, s, zt)"), U8(0)),
    "a_negative_scale": (PAIR.format("c"), U8(0)),
}


@pytest.mark.parametrize("case", NEAR_MISSES)
def test_other_pairs_are_near_misses_that_say_what_to_do(tmp_path, golden, case, monkeypatch):
    activation, zero = NEAR_MISSES[case]
    scale = F(-0.4037) if case == "a_negative_scale" else GRID["t"]
    for axis in ("N", 1, 8):
        monkeypatch.setattr(quantised_networks, "BATCH", axis)
        path = network(tmp_path, activation, zt=zero, t=scale, m=F(1), n=F(6))
        assert messages(path) == golden


def test_files_of_integer_operators_name_the_format_to_use(tmp_path, golden, monkeypatch):
    for axis in ("N", 1, 8):
        monkeypatch.setattr(quantised_networks, "BATCH", axis)
        path = quantised(tmp_path / "cnn.onnx", form="QOperator")
        with pytest.raises(UnsupportedModelError) as caught:
            check(path)
        assert f"{caught.value}\n" == golden


@EACH_BATCH
def test_dynamic_quantisers_say_what_to_do(tmp_path):
    body = "q, s1, z1 = DynamicQuantizeLinear (c)  a = DequantizeLinear (q, s1, z1)"
    found = check(network(tmp_path, body))
    assert "quantise with QuantFormat.QDQ" in found.faults[0].todo


# -- both ends -----------------------------------------------------------------------------


@EACH_BATCH
def test_a_result_may_be_quantised_with_an_offset(tmp_path):
    tail = (
        LAST.replace("y =", "v =") + "o = QuantizeLinear (v, t, zi) y = DequantizeLinear (o, t, zi)"
    )
    path, x = (
        saved(tmp_path, parsed(INPUT + FIRST + RELU + tail, **CONSTANTS)),
        normal(24, 7, (2, 4, 4)),
    )
    model, y = compiled(path, x, 8)
    assert relative(y, run(path, x)) < 1e-5
    assert len(model.program.neurons) == 2


@EACH_BATCH
def test_the_inputs_own_quantiser_is_the_contract(tmp_path):
    model = snncc.compile(network(tmp_path, RELU))
    grid = model.input
    assert (grid.dtype, grid.zero_point, grid.top) == ("float32", 127, 255)
    assert np.float32(grid.scale) == GRID["si"]
    assert model.report.origins["input_range"] == "the network's own quantiser"
    with pytest.raises(UsageError, match="quantises its input itself"):
        snncc.compile(network(tmp_path, RELU), input=InputOptions(range=(0, 1)))


@given(
    x=st.lists(st.one_of(st.integers(-80, 80).map(lambda k: k / 8), st.floats(-9, 9)), min_size=1),
    scale=st.sampled_from([0.25, 0.02, 2 / 255]),
    zero=st.integers(0, 255),
)
def test_the_contract_quantises_as_the_runtime_does(x, scale, zero):
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 21]> g (float[N,1] x) => (uint8[N,1] q) '
        "{ q = QuantizeLinear (x, s, z) }"
    )
    for name, value in (("s", F(scale)), ("z", U8(zero))):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(value), name))
    contract = InputContract("x", (1,), "float32", (), (), float(F(scale)), 0.0, zero, 255)
    values = np.array(x, F).reshape(-1, 1)
    assert (contract.encode(values) == run(model, values)).all()


@EACH_BATCH
def test_raw_pixels_may_be_the_integers_of_the_input(tmp_path):
    path, mean, std = network(tmp_path, RELU), 127 / 255, 1 / (255 * 0.02)
    pixels = np.random.default_rng(8).integers(0, 256, (24, 2, 4, 4)).astype(U8)
    _, y = compiled(path, pixels, input=InputOptions(mode="u8", mean=(mean,), std=(std,)))
    x = ((pixels / 255 - mean) / std).astype(F)
    assert relative(y, run(path, x)) < 1e-5
    with pytest.raises(UsageError, match=r"around 127; pixels of this input\.mean"):
        snncc.compile(path, input=InputOptions(mode="u8", mean=(0.4,), std=(0.3,)))
