from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from float_networks import Case, Net, case_of, examples, imported, lowered, shared_values
from hypothesis import given, settings
from hypothesis import strategies as st
from random_networks import networks

from snncc.errors import VerificationError
from snncc.ir import oracle, validation
from snncc.ir.graphs import nodes
from snncc.ir.oracle import affordable, evaluate, magnitudes, teacher_forced
from snncc.ir.validation import compare, validate_translation
from snncc.passes import FRONT, PassManager


def net() -> Net:
    made = Net((1, 8, 8), seed=5, rms=2.0)
    made.conv(3, pads=1).batch_norm().fire(4).conv(4).batch_norm().fire(4)
    return made.pool("AveragePool").flatten().linear(5)


CASE = case_of(net(), samples=4)


@pytest.fixture(scope="module")
def stages() -> dict[str, ir.Model]:
    return lowered(CASE).stages


def scaled(model: ir.Model, weight: str, factor: float) -> ir.Model:
    """A copy with one initializer scaled."""
    copy = model.clone()
    value = copy.graph.initializers[weight]
    array = value.const_value.numpy()
    value.const_value = ir.tensor((array * factor).astype(array.dtype), name=weight)
    return copy


def changed(model: ir.Model, mutant: ir.Model, exact: bool = False) -> list[str]:
    with pytest.raises(VerificationError) as caught:
        validate_translation(model, mutant, CASE.feeds, exact)
    return [fault.node for fault in caught.value.faults]


# -- evaluation ----------------------------------------------------------------------------


def test_inner_values_are_those_the_result_is_made_of(stages: dict[str, ir.Model]) -> None:
    model = stages["integer"]
    names = shared_values(model, model)
    values = evaluate(model, CASE.feeds, names)
    np.testing.assert_array_equal(
        values[str(model.graph.outputs[0].name)], next(iter(evaluate(model, CASE.feeds).values()))
    )


def test_teacher_forcing_with_true_values_changes_nothing(stages: dict[str, ir.Model]) -> None:
    for model in stages.values():
        names = shared_values(model, model)
        values = evaluate(model, CASE.feeds, names)
        forced = teacher_forced(model, CASE.feeds, values)
        for name in names:
            np.testing.assert_array_equal(values[name], forced[name])


def test_under_teacher_forcing_an_error_does_not_travel(stages: dict[str, ir.Model]) -> None:
    model = stages["integer"]
    names = shared_values(model, model)
    values = evaluate(model, CASE.feeds, names)
    wrong = {**values, names[0]: values[names[0]] + 7}
    forced = teacher_forced(model, CASE.feeds, wrong)
    assert [n for n in names if not np.array_equal(forced[n], values[n])] == [names[1]]


def test_magnitudes_are_never_below_the_values() -> None:
    model = imported(net())
    names = shared_values(model, model)
    values = evaluate(model, CASE.feeds, names)
    for name, size in magnitudes(model, CASE.feeds, values).items():
        assert (size >= np.abs(values[name]) * (1 - 1e-6)).all(), name


def test_the_magnitude_of_a_layer_is_the_sum_of_absolute_products() -> None:
    model = imported(Net((3,)).linear(2))
    x = np.array([[1, -2, 3]], np.float32)
    (gemm,) = nodes(model)
    w, b = (np.abs(v.const_value.numpy()) for v in gemm.inputs[1:])  # type: ignore[union-attr]
    (size,) = magnitudes(model, {"x": x}, evaluate(model, {"x": x}, ["fc1"])).values()
    np.testing.assert_allclose(size, np.abs(x) @ w.T + b, rtol=1e-6)


def test_magnitudes_of_large_weights_are_those_of_small_ones(monkeypatch) -> None:
    model = imported(net())
    values = evaluate(model, CASE.feeds, shared_values(model, model))
    expected = magnitudes(model, CASE.feeds, values)
    monkeypatch.setattr(oracle, "_SMALL", 0)
    for name, size in magnitudes(model, CASE.feeds, values).items():
        np.testing.assert_allclose(size, expected[name], rtol=1e-6)


def test_values_can_be_computed_anew_one_by_one(stages: dict[str, ir.Model]) -> None:
    model = stages["integer"]
    values = evaluate(model, CASE.feeds, shared_values(model, model))
    for name, value in values.items():
        (found,) = teacher_forced(model, CASE.feeds, values, [name]).items()
        assert found[0] == name
        np.testing.assert_array_equal(found[1], value)


# -- comparison ----------------------------------------------------------------------------


def test_integers_beyond_float64_are_compared_exactly() -> None:
    one = np.array([2**60], np.int64)
    assert compare("v", one, one + 1, None).changed == 1
    assert compare("v", one, one, None).changed == 0


def test_a_change_within_the_margin_is_none() -> None:
    one, size = np.array([1.0, 1.0]), np.array([10.0, 10.0])
    found = compare("v", one, one + np.array([0.9e-4, 1.1e-4]), size)
    assert (found.changed, found.first) == (1, (1,))


def test_a_nan_is_a_change_whatever_its_magnitude() -> None:
    nan = np.array([np.nan])
    assert compare("v", np.ones(1), nan, nan).changed == 1


def test_equal_values_are_no_change_whatever_their_magnitude() -> None:
    assert compare("v", np.ones(1), np.ones(1), np.array([np.nan])).changed == 0


def test_another_shape_is_a_change_of_all_elements() -> None:
    assert compare("v", np.ones(3), np.ones((3, 1)), None).changed == 3


# -- translation validation ----------------------------------------------------------------


@settings(max_examples=examples(12))
@given(networks())
def test_the_pipeline_passes_on_random_networks(case: Case) -> None:
    PassManager(FRONT, feeds=case.feeds).run(imported(case.net))


@pytest.mark.parametrize("stage", ["imported", "integer", "quantised", "spiking"])
def test_a_graph_is_a_translation_of_itself(stages: dict[str, ir.Model], stage: str) -> None:
    model = stages[stage]
    found = validate_translation(model, model.clone(), CASE.feeds, exact=True)
    assert [d.name for d in found] == shared_values(model, model)


@settings(max_examples=12)
@given(st.data())
def test_a_wrong_weight_is_found_at_its_layer_and_nowhere_else(data: st.DataObject) -> None:
    model = PassManager(FRONT).run(imported(net()))
    layers = {n.outputs[0].name: n for n in nodes(model, "Conv", "Gemm")}
    name = data.draw(st.sampled_from(sorted(layers)))
    index = data.draw(st.sampled_from([1, 2]))
    weight = layers[name].inputs[index].name
    assert changed(model, scaled(model, weight, 1.1)) == [name]


@pytest.mark.parametrize("at_once", [1, 1000])
def test_values_are_compared_in_portions(
    stages: dict[str, ir.Model], monkeypatch, at_once: int
) -> None:
    model = stages["quantised"]
    whole = validate_translation(model, model.clone(), CASE.feeds, exact=True)
    fires = list(nodes(model, "FireCount"))
    mutant = scaled(model, str(fires[1].inputs[1].name), 1.1)  # type: ignore[union-attr]
    monkeypatch.setattr(validation, "_COMPARED_AT_ONCE", at_once)
    assert validate_translation(model, model.clone(), CASE.feeds, exact=True) == whole
    assert changed(model, mutant, exact=True) == [fires[1].outputs[0].name]


def test_a_wrong_level_is_found_at_its_population_and_nowhere_else(
    stages: dict[str, ir.Model],
) -> None:
    model = stages["quantised"]
    for fire in nodes(model, "FireCount"):
        mutant = scaled(model, str(fire.inputs[1].name), 1.1)  # type: ignore[union-attr]
        assert changed(model, mutant, exact=True) == [fire.outputs[0].name]


def test_a_wrong_rounding_rule_is_found_at_its_neuron() -> None:
    made = Net((1, 6, 6)).pool("AveragePool").fire(4).flatten().linear(3)
    model = PassManager(FRONT).run(imported(made))
    mutant = model.clone()
    (fire,) = nodes(mutant, "IntegerFire")
    fire.attributes["rounding"] = ir.AttrString("rounding", "half-up")
    x = np.random.default_rng(0).integers(0, 5, (2, 1, 6, 6)).astype(np.float32)
    with pytest.raises(VerificationError) as caught:
        validate_translation(model, mutant, {"x": x}, exact=False)
    assert [f.node for f in caught.value.faults] == [fire.outputs[0].name]


def test_a_fault_says_where_and_how_much(stages: dict[str, ir.Model], golden: str) -> None:
    model = stages["quantised"]
    fire = list(nodes(model, "FireCount"))[1]
    mutant = scaled(model, str(fire.inputs[1].name), 1.1)  # type: ignore[union-attr]
    with pytest.raises(VerificationError) as caught:
        validate_translation(model, mutant, CASE.feeds, exact=True)
    assert f"{caught.value}\n" == golden


def test_unsupported_parts_do_not_disturb_the_comparison() -> None:
    made = Net((1, 6, 6)).conv(2).batch_norm().then("Sigmoid").then("Tanh").then("Softmax")
    made.flatten().linear(3)
    x = np.random.default_rng(0).normal(size=(2, 1, 6, 6)).astype(np.float32)
    PassManager(FRONT, feeds={"x": x}).run(imported(made))


def test_fewer_samples_of_large_networks_are_held_at_once():
    def network(side: int) -> ir.Model:
        text = f"""<ir_version: 10, opset_import: ["" : 21]>
            n (float[N, 64, {side}, {side}] x) => (float[N, 64, {side}, {side}] y) {{
                h = Relu (x)
                y = Relu (h)
            }}"""
        model = ir.from_onnx_text(text)
        for node in model.graph:
            node.outputs[0].shape = ir.Shape(["N", 64, side, side])
        return model

    assert affordable(network(8), 32) == 32
    assert affordable(network(512), 32) == 4
    assert affordable(network(8192), 32) == 1
