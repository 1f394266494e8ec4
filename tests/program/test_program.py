from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from networks import programs

from snncc.errors import BadInputError
from snncc.program import (
    Accumulator,
    Neuron,
    Pool,
    Program,
    Projection,
    Readout,
    Source,
    pooled_size,
)
from snncc.program.bounds import bounded, emitted_payload, potential_bounds
from snncc.program.nodes import KINDS
from snncc.program.timing import required_depth

QUICK = settings(max_examples=60, deadline=None)
PIXELS = {"x": Source("x", (1,), 255)}


def assert_identical(a: Any, b: Any, where: str = "") -> None:
    """Same types, values, dtypes and shapes, all the way down."""
    assert type(a) is type(b), where
    if is_dataclass(a):
        for f in fields(a):
            if f.compare:
                assert_identical(getattr(a, f.name), getattr(b, f.name), f"{where}.{f.name}")
    elif isinstance(a, tuple):
        assert len(a) == len(b), where
        for i, pair in enumerate(zip(a, b, strict=True)):
            assert_identical(*pair, f"{where}.{i}")
    elif isinstance(a, np.ndarray):
        assert a.dtype == b.dtype, where
        np.testing.assert_array_equal(a, b, err_msg=where)
    else:
        assert a == b, where


def small() -> Program:
    """x - masked conv v1 - n1 - max m - conv v2 + v1 summed over windows - n2 - head."""
    ones = np.ones((2, 2, 1, 1), np.int8)
    halves: dict[str, Any] = {"kernel": (2, 2), "strides": (2, 2), "pads": (0, 0, 0, 0)}
    conv = Projection("x", "conv", (ones, ones), 3)
    again = Projection("m", "conv", (ones,), 2)
    stream = Projection("s", "identity", (), 6168)
    head = Projection("n2", "linear", (np.ones((3, 8), np.int8),), 2)
    levels = np.array([[1, 5], [2, 2]], np.int64)
    zeros = np.zeros(2, np.int64)
    return Program(
        "small",
        (
            Source("x", (2, 4, 4), 3, "input"),
            Accumulator("v1", (2, 4, 4), (conv,), zeros, 0, 1542, "conv1", (2, 2)),
            Neuron("n1", (2, 4, 4), "v1", levels, 0, module="act1"),
            Pool("m", (2, 2, 2), "n1", "max", payload=2, **halves),
            Pool("s", (2, 2, 2), "v1", "sum", payload=6168, **halves),
            Accumulator("v2", (2, 2, 2), (again, stream), zeros, -6168, 6172, "conv2"),
            Neuron("n2", (2, 2, 2), "v2", levels[:1], 1, module="act2"),
            Accumulator("v3", (3,), (head,), np.zeros(3, np.int64), 0, 16, "head"),
            Readout("y", (3,), "v3", 0.25),
        ),
        timesteps=1,
        ticks=2,
    )


def changed(name: str, /, **values: Any) -> Program:
    program = small()
    nodes = tuple(replace(n, **values) if n.name == name else n for n in program.nodes)
    return replace(program, nodes=nodes)


def rewired(name: str, /, **values: Any) -> Program:
    """With a field of the node's first projection changed."""
    node = small().by_name[name]
    assert isinstance(node, Accumulator)
    first, *rest = node.projections
    return changed(name, projections=(replace(first, **values), *rest))


# -- round trip -----------------------------------------------------------------------------


@QUICK
@given(programs())
def test_json_and_arrays_give_the_identical_program(program: Program) -> None:
    data, arrays = program.to_json()
    assert_identical(Program.from_json(json.loads(json.dumps(data)), arrays), program)


@QUICK
@given(programs())
def test_every_array_is_named_once(program: Program) -> None:
    _, arrays = program.to_json()
    levels, biases = len(program.neurons), len(program.accumulators)
    levels += sum(n.carry != "none" for n in program.neurons)  # their thresholds
    weights = sum(len(p.weights) for a in program.accumulators for p in a.projections)
    assert len(arrays) == levels + biases + weights


@pytest.mark.parametrize("key", ["nodes", "name", "timesteps", "ticks"])
def test_a_missing_entry_is_named(key: str) -> None:
    data, arrays = small().to_json()
    del data[key]
    with pytest.raises(BadInputError, match=f"malformed entry: KeyError: '{key}'"):
        Program.from_json(data, arrays)


def test_a_missing_array_is_named() -> None:
    data, arrays = small().to_json()
    del arrays["n1.levels"]
    with pytest.raises(BadInputError, match=r"n1\.levels"):
        Program.from_json(data, arrays)


@pytest.mark.parametrize(
    "junk",
    [None, -1, 10**30, 1.5, 2.0, float("nan"), float("inf"), True, "z", [], [1], [[None]], {}],
    ids=repr,
)
def test_junk_in_any_field_is_bad_input_or_a_valid_program(junk: Any) -> None:
    data, arrays = small().to_json()
    for node in data["nodes"]:
        for entry in (node, *node.get("projections", ())):
            for key, value in list(entry.items()):
                entry[key] = junk
                with suppress(BadInputError):
                    Program.from_json(data, arrays)
                entry[key] = value


# -- laws -----------------------------------------------------------------------------------


def test_the_small_program_is_valid() -> None:
    small().validate()


def test_windows_and_latency() -> None:
    program = small()
    assert (program.windows, program.latency) == (2, 4)
    assert [n.name for n in program.readers("v1")] == ["n1", "s"]


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "pad", "dilation"),
    [(5, 3, 1, 0, 1), (5, 3, 2, 2, 1), (7, 3, 2, 1, 2), (4, 4, 3, 3, 1)],
)
def test_pooled_size_counts_the_window_positions(
    size: int, kernel: int, stride: int, pad: int, dilation: int
) -> None:
    reach = dilation * (kernel - 1)
    positions = [at for at in range(0, size + pad, stride) if at + reach < size + pad]
    assert pooled_size(size, kernel, stride, pad, dilation) == len(positions)


def test_slices_combine_in_base_256() -> None:
    slices = tuple(np.array([[v]], np.int8) for v in (-3, 2, -1))
    assert Projection("x", "linear", slices).total().tolist() == [[-3 + 2 * 256 - 65536]]


def test_a_shift_multiplies_what_a_spike_brings() -> None:
    slices = tuple(np.array([[v]], np.int8) for v in (-3, 2))
    assert Projection("x", "linear", slices, shift=3).total().tolist() == [[8 * (-3 + 2 * 256)]]


@pytest.mark.parametrize("shift", [0, 3])
def test_bounds_are_reached_by_extreme_inputs(shift: int) -> None:
    weights = np.array([[2, -3, 1]], np.int8)
    p = Projection("x", "linear", (weights,), 5, shift=shift)
    node = Accumulator("v", (1,), (p,), np.array([7], np.int64), 0, 0)
    x = np.array([[5, 0, 5], [0, 5, 0]])
    assert potential_bounds(node, PIXELS) == tuple(sorted(((x @ weights[0] << shift) + 7).tolist()))


def test_bounds_of_weights_that_read_potentials_hold_for_negative_ones() -> None:
    def layer(name: str, source: str, payload: int, low: int, high: int) -> Accumulator:
        p = Projection(source, "linear", (np.array([[-100]], np.int8),), payload)
        return Accumulator(name, (1,), (p,), np.zeros(1, np.int64), low, high)

    a, y = layer("a", "x", 255, -25500, 0), Readout("y", (1,), "b", 1.0)
    for low, high, ok in ((-2550000, 0, False), (-2550000, 2550000, True)):
        nodes = (Source("x", (1,), 255), a, layer("b", "a", 25500, low, high), y)
        program = Program("net", nodes)
        if ok:
            program.validate()
            continue
        with pytest.raises(BadInputError, match=r"do not hold the proved \[-2550000, 2550000\]"):
            program.validate()


def test_what_arrives_as_it_is_is_negative_only_if_it_is_a_potential() -> None:
    v = Accumulator("v", (1,), (Projection("x", "identity", (), 255),), np.array([-9]), 0, 0)
    assert potential_bounds(v, PIXELS) == (-9, 246)
    v = bounded(v, PIXELS)
    pool = Pool("s", (1,), "v", "sum", (1, 1), (1, 1), (0, 0, 0, 0), emitted_payload(v))
    nodes = {**PIXELS, "v": v, "s": pool}
    for source in ("v", "s"):
        again = replace(v, name="w", projections=(Projection(source, "identity", (), 246),))
        assert potential_bounds(again, nodes) == (-255, 237)


def test_bounds_beyond_64_bits_are_no_less() -> None:
    weights = np.full((1, 2**16), 127, np.int8)
    p = Projection("x", "linear", (weights,) * 3, 2**62, shift=16)
    node = Accumulator("v", (1,), (p,), np.zeros(1, np.int64), 0, 0)
    assert potential_bounds(node, PIXELS) == (0, 2**62 * 2**16 * 127 * (1 + 256 + 256**2) * 2**16)


def test_a_masked_potential_may_be_zero_whatever_its_bias() -> None:
    weights = np.array([[[[2]], [[0]]]], np.int8)
    p = Projection("x", "conv", (weights,), 5)
    node = Accumulator("v", (1, 2, 2), (p,), np.array([7], np.int64), 0, 0)
    assert potential_bounds(node, PIXELS) == (7, 17)
    assert potential_bounds(replace(node, masked=(1, 2)), PIXELS) == (0, 17)
    assert potential_bounds(replace(node, bias=-node.bias - 10, masked=(1, 2)), PIXELS) == (-17, 0)


def test_a_mask_needs_a_channel_of_its_own_in_the_source() -> None:
    weights = np.ones((1, 1, 1, 1), np.int8)
    p = Projection("x", "conv", (weights,), 3)
    masked = Accumulator("v", (1, 2, 2), (p,), np.zeros(1, np.int64), 0, 3, masked=(1, 1))
    nodes = (Source("x", (1, 2, 2), 3), masked, Readout("y", (1, 2, 2), "v", 1.0))
    with pytest.raises(BadInputError, match="the source has no mask"):
        Program("net", nodes).validate()


def test_depth_looks_through_pools_and_accumulators_and_never_hangs() -> None:
    program = small()
    seen = dict(program.by_name)
    assert required_depth(seen["v3"], seen) == 2
    twice = [Projection("x", "identity"), Projection("x", "identity")]
    previous = "x"
    for i in range(2000):  # 2**2000 paths
        paths = tuple(replace(p, source=previous) for p in twice)
        previous = f"a{i}"
        seen[previous] = Accumulator(previous, (1,), paths, np.zeros(1, np.int64), 0, 0)
    assert required_depth(seen[previous], seen) == 0


# -- validation: every field has readers -----------------------------------------------------


ITEMS = (*KINDS.values(), Projection)


@pytest.mark.parametrize("kind", ITEMS, ids=lambda kind: kind.__name__)
def test_of_every_field_is_said_who_reads_it(kind: type[Any]) -> None:
    assert set(kind.readers) == {f.name for f in fields(kind)}


# -- validation: every corruption is found, at its node -------------------------------------

INT8 = np.ones((2, 2, 1, 1), np.int8)
SHIFTED = (Projection("s", "identity", (), 6168, shift=1),)
CORRUPTIONS: list[tuple[str, Callable[[], Program], str]] = [
    ("x", lambda: changed("x", payload=0), "payload 0 out of range"),
    ("x", lambda: changed("x", shape=(2, 0, 4)), "not positive"),
    ("x", lambda: changed("x", shape=(2, 2**16, 2**16)), "too large"),
    ("v1", lambda: changed("x", payload=4), "payload 3 is below what 'x' emits"),
    ("x", lambda: changed("v1", name="x"), "name is not unique"),
    ("v1", lambda: changed("v1", projections=()), "no projection feeds it"),
    ("v1", lambda: changed("v1", bias=np.zeros(2)), "bias is not int64"),
    ("v1", lambda: changed("v1", bias=np.zeros(3, np.int64)), r"bias has shape \(3,\)"),
    ("v1", lambda: changed("v1", high=1541), r"bounds \[0, 1541\] do not hold the proved"),
    ("v1", lambda: changed("v1", low=1), "do not hold the proved"),
    ("v1", lambda: changed("v1", high=2**62), "may overflow int64"),
    ("v1", lambda: changed("v1", high=1542.0), "field 'high' is not of type int"),
    ("v1", lambda: changed("v1", masked=(2, 3)), r"\(2, 3\) patches do not cover \(2, 4, 4\)"),
    ("v1", lambda: changed("v1", masked=(0, 2)), r"masked by \(0, 2\) patches"),
    ("v1", lambda: changed("v1", masked=(-2, 2)), r"masked by \(-2, 2\) patches"),
    ("v1", lambda: changed("v1", masked=(2,)), "field 'masked' is not of type"),
    ("v2", lambda: changed("v2", masked=(4, 4)), r"do not cover \(2, 2, 2\)"),
    ("v3", lambda: changed("v3", masked=(1, 1)), r"do not cover \(3,\)"),
    ("v1", lambda: rewired("v1", source="m"), "reads 'm', which does not come before it"),
    ("v1", lambda: rewired("v1", source="nowhere"), "reads 'nowhere'"),
    ("v1", lambda: rewired("v1", kind="recurrent"), "unknown projection kind"),
    ("v1", lambda: rewired("v1", weights=(INT8.astype(np.int16),)), "not int8 of one shape"),
    ("v1", lambda: rewired("v1", weights=(INT8, INT8[:1])), "not int8 of one shape"),
    ("v1", lambda: rewired("v1", weights=()), "one to three weight slices"),
    ("v1", lambda: rewired("v1", weights=(INT8,) * 4), "one to three weight slices"),
    ("v1", lambda: rewired("v1", weights=(INT8[0],)), "4-d weights"),
    ("v1", lambda: rewired("v1", weights=(INT8[:, :1],)), "weights expect 1 channels"),
    ("v1", lambda: rewired("v1", groups=3), "groups 3 does not divide 2"),
    ("v1", lambda: rewired("v1", strides=(2, 1)), r"arrives as \(2, 2, 4\), not \(2, 4, 4\)"),
    ("v1", lambda: rewired("v1", strides=(0, 1)), "strides"),
    ("v1", lambda: rewired("v1", strides=(1.0, 1.0)), "field 'strides'"),
    ("v1", lambda: rewired("v1", pads=(0, 0, -1, 0)), "pads"),
    ("v1", lambda: rewired("v1", dilations=(1, 0)), "dilations"),
    ("v1", lambda: rewired("v1", payload=2), "payload 2 is below what 'x' emits"),
    ("v1", lambda: rewired("v1", payload=2**31), "beyond 32 bits"),
    ("v1", lambda: rewired("v1", shift=-1), "shift -1 out of range"),
    ("v1", lambda: rewired("v1", shift=47), "shift 47 out of range"),
    ("v1", lambda: rewired("v1", shift=46), "do not hold the proved"),
    ("v1", lambda: rewired("v1", shift=1), "do not hold the proved"),
    ("v1", lambda: rewired("v1", shift=1.0), "field 'shift' is not of type int"),
    ("v2", lambda: changed("v2", projections=SHIFTED), "field 'shift' belongs to conv and linear"),
    ("v1", lambda: rewired("v1", drop=1), "'drop' belongs to identity, not to conv"),
    (
        "v2",
        lambda: changed("v2", projections=(replace(SHIFTED[0], shift=0, drop=-1),)),
        "drop -1 out of range",
    ),
    (
        "v2",
        lambda: changed("v2", projections=(replace(SHIFTED[0], shift=0, drop=62),)),
        "drop 62 out of range",
    ),
    (
        "v2",
        lambda: changed("v2", projections=(replace(SHIFTED[0], shift=0, drop=1),)),
        "rounds 's', which is no potential",
    ),
    ("v2", lambda: rewired("v2", source="n1"), "arrives as"),
    ("v2", lambda: rewired("v2", kind="identity", weights=(), source="n1"), "identity changes"),
    ("v2", lambda: rewired("v2", kind="identity"), "'weights' belongs to conv and linear"),
    ("v3", lambda: rewired("v3", strides=(2, 2)), "'strides' belongs to conv, not to linear"),
    ("v3", lambda: rewired("v3", pads=(1, 1, 1, 1)), "'pads' belongs to conv, not to linear"),
    ("v3", lambda: rewired("v3", dilations=(2, 1)), "'dilations' belongs to conv"),
    ("v3", lambda: rewired("v3", groups=3), "'groups' belongs to conv, not to linear"),
    ("v1", lambda: rewired("v1", strides=(10**30, 1)), "field 'strides' is out of range"),
    ("v1", lambda: rewired("v1", pads=(0, 0, 2**30, 2**30)), "pads .* are too large"),
    ("x", lambda: changed("x", payload=10**30), "field 'payload' is out of range"),
    ("n1", lambda: changed("n1", fraction=1), "'fraction' belongs to soft and hard and delayed"),
    ("y", lambda: changed("y", bias=np.zeros(3, np.float32)), "'bias' belongs to host"),
    ("v3", lambda: rewired("v3", weights=(np.ones((3, 7), np.int8),)), "weights expect 7 inputs"),
    ("v3", lambda: rewired("v3", weights=(INT8,)), "linear needs 2-d weights"),
    ("n1", lambda: changed("n1", shape=(2, 4)), r"reads \(2, 4, 4\) as \(2, 4\)"),
    ("n1", lambda: changed("n1", levels=np.zeros((2, 2))), "levels are not int64"),
    ("n1", lambda: changed("n1", levels=np.zeros((3, 2), np.int64)), "levels have shape"),
    ("n1", lambda: changed("n1", levels=np.zeros((2, 3), np.int64)), "3 levels, 2 ticks"),
    ("n1", lambda: changed("n1", levels=np.zeros((2, 0), np.int64)), "0 levels, 2 ticks"),
    ("n1", lambda: changed("n1", levels=np.array([[2, 1]])), "levels decrease"),
    ("n1", lambda: changed("n1", levels=np.array([[1, 2**62]])), "levels out of range"),
    ("n1", lambda: changed("n1", carry="forever"), "unknown carry 'forever'"),
    ("n1", lambda: changed("n1", depth=-1), "fires too early at depth -1"),
    ("n2", lambda: changed("n2", depth=0), "fires too early at depth 0"),
    ("n2", lambda: changed("n2", depth=10**9), "fires too late at depth 1000000000"),
    ("n2", lambda: changed("n2", source="n1"), "reads 'n1', which is no accumulator"),
    ("m", lambda: changed("m", kind="mean"), "unknown pool kind 'mean'"),
    ("m", lambda: changed("m", kernel=(3, 2)), r"gives \(2, 1, 2\), not \(2, 2, 2\)"),
    ("m", lambda: changed("m", kernel=(0, 2)), "kernel"),
    ("m", lambda: changed("m", pads=(2, 0, 0, 0)), "padding is larger than the kernel"),
    ("m", lambda: changed("m", payload=1), "payload 1 is below 2"),
    ("s", lambda: changed("s", payload=6167), "payload 6167 is below 6168"),
    ("y", lambda: changed("y", scale=0.0), "scale 0.0 is not positive"),
    ("y", lambda: changed("y", scale=float("nan")), "field 'scale' is not of type float"),
    ("y", lambda: changed("y", shape=(4,)), r"reads \(3,\) as \(4,\)"),
]


@pytest.mark.parametrize(
    ("name", "corrupt", "what"), CORRUPTIONS, ids=lambda v: v if type(v) is str else ""
)
def test_a_corruption_is_found_at_its_node(
    name: str, corrupt: Callable[[], Program], what: str
) -> None:
    with pytest.raises(BadInputError) as error:
        corrupt().validate()
    own = [fault.what for fault in error.value.faults if fault.node == name]
    assert len(own) == 1
    assert re.search(what, own[0])


def test_all_faulty_nodes_are_reported_together() -> None:
    program = changed("n1", carry="forever")
    nodes = tuple(replace(n, scale=-1.0) if isinstance(n, Readout) else n for n in program.nodes)
    with pytest.raises(BadInputError) as error:
        replace(program, nodes=nodes).validate()
    assert [(f.node, f.kind) for f in error.value.faults] == [("n1", "Neuron"), ("y", "Readout")]


def test_a_max_pool_of_summed_spikes_is_refused() -> None:
    # Trains 1100 + 0000 and 1000 + 1000: the sums' maximum is 2, tick by tick it would be 2 + 1.
    program = small()
    over = Pool("o", (2, 1, 1), "p", "max", (2, 2), (2, 2), (0, 0, 0, 0), 8)
    sums = replace(over, name="p", shape=(2, 2, 2), source="n1", kind="sum")
    with pytest.raises(BadInputError, match=r"o \(Pool\): max-pool over sums"):
        replace(program, nodes=(*program.nodes, sums, over)).validate()


def test_a_readout_of_a_readout_is_refused() -> None:
    program = small()
    with pytest.raises(BadInputError, match="emits nothing"):
        replace(program, nodes=(*program.nodes, Readout("z", (3,), "y", 1.0))).validate()


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({"ticks": 0}, "ticks 0 out of range"),
        ({"ticks": 10**9}, "ticks 1000000000 out of range"),
        ({"timesteps": 0}, "timesteps 0"),
        ({"nodes": small().nodes[1:]}, "exactly one source"),
        ({"nodes": small().nodes[:-1]}, "no readout"),
    ],
    ids=str,
)
def test_faults_of_the_whole_program(values: dict[str, Any], what: str) -> None:
    with pytest.raises(BadInputError, match=what):
        replace(small(), **values).validate()
