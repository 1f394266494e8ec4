from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import nn

import snncc
from snncc.compiler import InputOptions
from snncc.errors import UnsupportedModelError
from snncc.frontends.pytorch import import_module
from snncc.ir.oracle import evaluate
from snncc.ir.stages import verify_stage
from snncc.ir.validation import validate_translation
from snncc.nn import (
    IntegerFire,
    SparseBatchNorm2d,
    SpikeSparseConv2d,
    apply_patch_mask,
    masked,
    random_patch_mask,
)
from snncc.passes import FRONT, PassManager, RequireInteger, SparseToVanillaConv

INPUT = InputOptions(mean=(0.2, 0.4), std=(0.5, 0.25))


def network(conv: Any, norm: Any) -> nn.Sequential:
    torch.manual_seed(1)
    net = nn.Sequential(
        conv(2, 4, 4, stride=2, padding=1), norm(4), IntegerFire(4),
        conv(4, 8, 3, padding=(1, 1), groups=2, bias=False), norm(8), IntegerFire(4, 4.0),
        conv(8, 8, (3, 2), padding="same", dilation=2), IntegerFire(2),
        nn.Flatten(), nn.Linear(8 * 16, 3),
    )  # fmt: skip
    for bn in net.modules():
        if isinstance(bn, nn.BatchNorm2d):
            nn.init.normal_(bn.running_mean, 0, 0.3)
            nn.init.uniform_(bn.running_var, 0.05, 0.5)
            nn.init.normal_(bn.bias, 0.5, 0.5)
    return net.eval()


@pytest.fixture(scope="module")
def sparse() -> nn.Sequential:
    return network(SpikeSparseConv2d, SparseBatchNorm2d)


@pytest.fixture(scope="module")
def graph(sparse: nn.Sequential) -> ir.Model:
    """With the mask as second input."""
    return import_module(sparse, (2, 8, 8), patches=(2, 2))


def feeds_of(model: ir.Model, x: torch.Tensor, mask: torch.Tensor) -> dict[str, np.ndarray]:
    names = [str(v.name) for v in model.graph.inputs]
    return dict(zip(names, (x.numpy(), mask.numpy()), strict=False))


def kinds(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def test_with_a_mask_as_input_sparse_layers_are_operators(graph: ir.Model) -> None:
    conv, norm = ["SpikeSparseConv"], ["BatchNormalization", "PatchMask"]
    layers = [*conv, *norm, "IntegerFire", *conv, *norm, "IntegerFire", *conv, "IntegerFire"]
    layers = ["PatchMask", *layers]  # of the input
    assert [kind for kind in kinds(graph) if kind in layers] == layers
    assert [list(v.shape[1:]) for v in graph.graph.inputs] == [[2, 8, 8], [1, 2, 2]]
    verify_stage(graph, "imported")


def test_masked_graphs_compute_what_pytorch_does(sparse: nn.Sequential, graph: ir.Model) -> None:
    seed = torch.Generator().manual_seed(0)
    for ratio in (0.0, 0.25, 0.75):
        x = torch.randn(5, 2, 8, 8, generator=seed)
        mask = random_patch_mask(5, 2, ratio, seed)
        inner = evaluate(graph, feeds_of(graph, x, mask), ["0", "1", "3", "4"])
        with torch.no_grad(), masked(sparse, mask):
            for i in ("0", "1", "3", "4"):
                expected = sparse[: int(i) + 1](apply_patch_mask(x, mask)).numpy()
                np.testing.assert_allclose(inner[i], expected, rtol=1e-4, atol=1e-5)
                covered = np.repeat(np.repeat(mask.numpy() == 0, 2, 2), 2, 3)
                assert not inner[i][np.broadcast_to(covered, inner[i].shape)].any()


def test_under_a_mask_of_ones_the_vanilla_network_computes_the_same(graph: ir.Model) -> None:
    vanilla = graph.clone()
    assert SparseToVanillaConv().run(vanilla) == 6
    verify_stage(vanilla, "imported")
    assert [len(m.graph.inputs) for m in (graph, vanilla)] == [2, 1]
    assert not {"SpikeSparseConv", "PatchMask"} & {*kinds(vanilla)}
    after = PassManager([*FRONT, RequireInteger()]).run(graph)
    assert kinds(after) == [*["Conv", "IntegerFire"] * 3, "Reshape", "Gemm"]
    feeds = feeds_of(graph, torch.randn(4, 2, 8, 8), torch.ones(4, 1, 2, 2))
    found = validate_translation(graph, vanilla, feeds, exact=False)
    assert len(found) >= 9


def test_what_compiles_is_the_vanilla_network_mask_or_no_mask(sparse: nn.Sequential) -> None:
    plain = network(nn.Conv2d, nn.BatchNorm2d)
    plain.load_state_dict(sparse.state_dict())  # keys and shapes are the same
    options = {"input_shape": (2, 8, 8), "input": INPUT, "weight_bits": 8, "name": "net"}
    expected = snncc.compile(plain, **options)
    with masked(sparse, torch.zeros(3, 1, 2, 2)):
        found = snncc.compile(sparse, **options)
        assert all(m.mask is not None for m in sparse if isinstance(m, SpikeSparseConv2d))
    (one, arrays), (two, others) = expected.program.to_json(), found.program.to_json()
    assert one == two
    assert all(np.array_equal(arrays[key], others[key]) for key in arrays)
    assert found.report.verify.mismatched == 0


def test_a_network_that_ends_in_a_mask_keeps_its_result_s_name() -> None:
    net = nn.Sequential(SpikeSparseConv2d(1, 2, 1), SparseBatchNorm2d(2)).eval()
    model = import_module(net, (1, 4, 4), patches=(2, 2))
    name = model.graph.outputs[0].name
    SparseToVanillaConv().run(model)
    verify_stage(model, "imported")
    assert model.graph.outputs[0].name == name
    (found,) = evaluate(model, {str(model.graph.inputs[0].name): np.ones((1, 1, 4, 4), np.float32)})
    assert found == name


def test_copies_as_padding_are_refused() -> None:
    net = SpikeSparseConv2d(1, 1, 3, padding=1, padding_mode="reflect")
    with pytest.raises(UnsupportedModelError, match="padding_mode='reflect'"):
        import_module(net, (1, 4, 4), patches=(2, 2))
    assert "forward" not in vars(net)
