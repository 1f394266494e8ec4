"""A weight that slips in any pass is found right after it, whatever the pass says of itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import onnx_ir as ir
import pytest
import torch
from attention_modules import network
from attention_nets import attend
from float_networks import Case, Net, case_of, examples, imported
from state_networks import apart, carried, mean_over_time, repeated

import snncc
from snncc.errors import VerificationError
from snncc.passes import Pass, PassManager, QuantiseInput, pipeline
from snncc.passes.base import Law
from snncc.passes.integers.choose_bits import ChooseBits
from snncc.passes.tokens.recognise_attention import RecogniseAttention


def convolutions() -> Net:
    """Batch norms, both pools on both sides of neurons, a branch, a concatenation, a mean."""
    net = Net((2, 8, 8), seed=3).conv(4, pads=1).batch_norm(negative=False)
    net.pool("MaxPool").fire(4, norm=4.0)
    kept = net.x
    net.conv(4, pads=1).batch_norm().fire(3, spelling="round-of-clip").add(kept)
    net.conv(4, pads=1).pool("AveragePool").fire(4)
    other = net.x
    net.conv(3, 1).batch_norm().fire(2, norm=2.0).concat(other, 4)
    return net.conv(5, 1).batch_norm().fire(4).mean().linear(3, matmul=True)


def attention() -> Net:
    """Tokens, heads, factors."""
    net = Net((2, 4, 4), seed=1).conv(4, 1).batch_norm().fire(4)
    return attend(net, 2, scales=("q", "k")).conv(4, 1).fire(4).mean().linear(3)


def timesteps() -> Net:
    """Neurons with memory, over T timesteps."""
    net = repeated(Net((1, 6, 6), seed=2), 3).conv(3).batch_norm()
    net = carried(net, 3).conv(4).batch_norm()
    return mean_over_time(apart(carried(net, 3).flatten().linear(3), 3), 3)


CASES: dict[str, Case] = {
    make.__name__: case_of(make(), samples=4) for make in (convolutions, attention, timesteps)
}


def passes_of(case: Case) -> list[Pass]:
    found = list(pipeline(case.source, 12))
    choose = ChooseBits({k: v[:2] for k, v in case.feeds.items()})
    at = next(i for i, step in enumerate(found) if step.name == "quantise-weights")
    return [*found[:at], choose, *found[at:]]


def weights_of(model: ir.Model) -> Iterator[str]:
    """Initializers that layers multiply with, and borders of norms."""
    for node in model.graph:
        for value in node.inputs[1:] if node.op_type in _READERS else ():
            array = None if value is None else value.const_value
            if value is not None and array is not None and np.any(array.numpy()):
                yield str(value.name)


_READERS = {"Conv", "Gemm", "MatMul", "BatchNormalization", "QConv", "QGemm", "Mul"}


def slipped(step: Pass, weight: str) -> Callable[[ir.Model], int]:
    """The pass, with one weight multiplied by 1.01; it says that it did nothing."""

    def run(model: ir.Model) -> int:
        type(step).run(step, model)
        value = model.graph.initializers[weight]
        array = value.const_value.numpy()  # type: ignore[union-attr]
        integers = array.dtype.kind in "iu"
        wrong = array - np.sign(array) if integers else array * np.float32(1.01)
        value.const_value = ir.tensor(wrong, name=weight)
        return 0

    return run


def validated(case: Case) -> list[str]:
    return [step.name for step in passes_of(case) if step.law is not Law.LOSSY]


def some(weights: list[str]) -> list[str]:
    """Three of them; all where SNNCC_EXAMPLES asks for more."""
    step = max(1, len(weights) // 3)
    return weights if examples(0) else weights[::step]


PAIRS = [(name, step) for name, case in CASES.items() for step in validated(case)]


@contextmanager
def running(step: Pass, run: Callable[[ir.Model], int]) -> Iterator[None]:
    """The pass, which is one object for all that compile, does something else meanwhile."""
    object.__setattr__(step, "run", run)
    try:
        yield
    finally:
        object.__delattr__(step, "run")


@pytest.mark.parametrize(("name", "step"), PAIRS)
def test_every_weight_that_slips_in_a_pass_is_found_there(name: str, step: str) -> None:
    case = CASES[name]
    chosen = passes_of(case)
    at = next(i for i, found in enumerate(chosen) if found.name == step)
    reached = PassManager(chosen[:at]).run(imported(case.net))
    whole = reached.clone()
    type(chosen[at]).run(chosen[at], whole)
    weights = list(dict.fromkeys(weights_of(whole)))
    assert weights
    for weight in some(weights):
        manager = PassManager([chosen[at]], feeds=case.feeds)
        slip = slipped(chosen[at], weight)
        wrong = pytest.raises(VerificationError, match=f"^{step}: the graph changed its meaning")
        with running(chosen[at], slip), wrong:
            manager.run(reached)


def test_a_compilation_with_a_slip_in_it_ends_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pass says that it found one attention less than there are: none."""
    torch.manual_seed(0)
    own = RecogniseAttention.run

    def wrong(self: RecogniseAttention, model: ir.Model) -> int:
        own(self, model)
        name = next(weights_of(model))
        value = model.graph.initializers[name]
        value.const_value = ir.tensor(3 * value.const_value.numpy(), name=name)  # type: ignore[union-attr]
        return 0

    monkeypatch.setattr(RecogniseAttention, "run", wrong)
    x = np.random.default_rng(0).uniform(-1, 1, (4, 2, 8, 8)).astype(np.float32)
    with pytest.raises(VerificationError, match=r"^recognise-attention: ") as caught:
        snncc.compile(network(), x, input_shape=(2, 8, 8))
    assert caught.value.exit_code == 5


def test_a_real_input_is_the_only_pass_that_may_be_lossy_before_weights() -> None:
    names = {step.name for step in pipeline(QuantiseInput(real=True), 8) if step.law is Law.LOSSY}
    assert names == {"quantise-input", "quantise-weights"}


def test_a_pass_that_changes_nothing_is_not_compared() -> None:
    case = CASES["convolutions"]
    manager = PassManager(passes_of(case), feeds=case.feeds)
    manager.run(imported(case.net))
    checked = {record.name: record.checked for record in manager.records}
    assert checked["recognise-attention"] == checked["require-integer"] == 0
    assert all(checked[n] for n in ("canonicalise", "fold-batch-norm", "fold-scale"))


@pytest.mark.parametrize("name", CASES)
def test_after_every_pass_nearly_all_values_are_compared(name: str) -> None:
    """What a pass makes anew on the way, as a weight's own product, has no counterpart."""
    case = CASES[name]
    model, chosen = imported(case.net), list(pipeline(case.source, 12))
    for step in chosen:
        manager = PassManager([step], feeds=case.feeds)
        after = manager.run(model)
        (record,) = manager.records
        made = sum(len(node.outputs) for node in after.graph)
        if record.checked and step.name not in ("lower-to-spikes", "distribute-linear"):
            assert record.checked >= 0.6 * made, (step.name, record.checked, made)
        model = after


def test_a_result_that_comes_from_nothing_known_is_an_error() -> None:
    case = CASES["convolutions"]
    step = passes_of(case)[1]

    def renaming(model: ir.Model) -> int:
        out = model.graph.outputs[0]
        out.name = f"{out.name}:other"
        return 1

    with running(step, renaming), pytest.raises(VerificationError, match="a result was not comp"):
        PassManager([step], feeds=case.feeds).run(imported(case.net))
