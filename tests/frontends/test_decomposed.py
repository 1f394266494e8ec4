"""What tracing a program anew would make of it is what is written without that."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import onnx_ir as ir
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from snncc.frontends import pytorch
from snncc.frontends.decomposed import _KEPT, _RULES, decomposed
from snncc.frontends.pytorch import import_module
from snncc.ir.graphs import provenance

#: Each operator that is known, in the places and with the arguments that people give it.
CALLS: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "arithmetic": lambda a, b: -((a + b * 2 - 1) / 3),
    "shapes": lambda a, b: torch.stack([a, b]).flatten(0, 1).unflatten(0, (2, -1)).mean(0),
    "samples first": lambda a, b: a.flatten(0, 1).unflatten(0, (-1, 4)),
    "three at once": lambda a, b: a.flatten(0, 2).unflatten(0, (-1, 4, 8)),
    "a view of parts": lambda a, b: a[:, 1:3].flatten(2).sum(2),
    "moved": lambda a, b: a.permute(0, 2, 3, 1).reshape(a.shape[0], -1),
    "moved, flat": lambda a, b: a.permute(0, 2, 3, 1).flatten(1),
    "moved, copied": lambda a, b: a.transpose(1, 2).contiguous().view(a.shape[0], -1),
    "regrouped": lambda a, b: a.reshape(a.shape[0] * 2, -1, 8).view(-1, 4, 8, 8),
    "flat already": lambda a, b: a.flatten(1).flatten(1) + 1,
    "repeated": lambda a, b: a.unsqueeze(0).repeat(3, 1, 1, 1, 1).mean(0),
    "joined": lambda a, b: torch.cat([*a.split(2, 1)[::-1], b], 1),
    "spread": lambda a, b: a * torch.ones(1, 4, 1, 1).expand(1, 4, 8, 8) + torch.full((1,), 0.5),
    "bounds": lambda a, b: torch.maximum(a, b).clamp(0, 4) + torch.minimum(a, b).relu(),
    "passed straight": lambda a, b: a + (a.clamp(0, 4).round() - a).detach() + b.floor(),
    "zeros": lambda a, b: a.clone() + torch.zeros(1) + torch.zeros_like(b),
    "pooled": lambda a, b: functional.max_pool2d(a, 2) + functional.avg_pool2d(b, 2),
    "volumes": lambda a, b: functional.conv3d(
        functional.max_pool3d(a[:, None], 1), torch.ones(2, 1, 1, 3, 3)
    ),
    "global": lambda a, b: functional.adaptive_avg_pool2d(a, 1).flatten(1) + a.amax((2, 3)),
    "squeezed": lambda a, b: a.mean((2, 3), keepdim=True).squeeze(-1).squeeze(-1).sigmoid(),
    "tokens": lambda a, b: functional.conv1d(
        (a @ b.transpose(-2, -1)).flatten(2), torch.ones(3, 4, 1)
    ),
    "dropped": lambda a, b: functional.dropout(a, 0.5, False) + functional.dropout2d(b, 0.5, False),
    "padded": lambda a, b: functional.pad(a, (1, 1, 1, 1))[:, 0],
    "in vain": lambda a, b: (a.flatten(1), b.floor())[0],
    "linear": lambda a, b: functional.linear(a.flatten(1), torch.ones(3, 256)),
}  # fmt: skip


class Calling(nn.Module):
    def __init__(self, calls: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.calls = calls
        self.one, self.two = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(2, 4, 1)
        self.norm, self.plain = nn.BatchNorm2d(4), nn.BatchNorm2d(4, affine=False)

    def forward(self, x: Tensor) -> Any:
        return self.calls(self.norm(self.one(x)), self.plain(self.two(x)))


def all_calls(a: Tensor, b: Tensor) -> Any:
    return tuple(calls(a, b) for calls in CALLS.values())


def network(calls: Callable[[Tensor, Tensor], Any]) -> nn.Module:
    torch.manual_seed(0)
    return Calling(calls).eval()


def lines(model: ir.Model) -> list[str]:
    """All that a graph is, but for the names that values have outside of modules."""
    names: dict[ir.Value, str] = {v: str(v.name) for v in model.graph.inputs}

    def word(value: ir.Value | None) -> str:
        if value is None:
            return "-"
        if value.const_value is not None:
            return f"{value.const_value.numpy().tolist()} {value.dtype}"
        return names.setdefault(value, f"v{len(names)}")

    found = []
    for node in model.graph:
        place = provenance(node)
        outs = [f"{word(out)} {out.shape} {out.dtype}" for out in node.outputs]
        settings = [str(a) for _, a in sorted(node.attributes.items())]
        where = (place.module, place.source, place.operator if place.source else "")
        found.append(f"{outs} {node.op_type} {[word(x) for x in node.inputs]} {settings} {where}")
    return [*found, str([word(out) for out in model.graph.outputs])]


@pytest.mark.parametrize(
    "calls",
    [all_calls, *(pytest.param(f, id=n, marks=pytest.mark.slow) for n, f in CALLS.items())],
)
def test_the_graph_is_that_of_pytorchs_own_decomposition(
    calls: Callable[[Tensor, Tensor], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[bool] = []

    def watched(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
        ready = decomposed(program)
        taken.append(ready is not program)
        return ready

    monkeypatch.setattr(pytorch, "decomposed", watched)
    ours = lines(import_module(network(calls), (2, 8, 8)))
    monkeypatch.setattr(pytorch, "decomposed", lambda program: program)
    assert lines(import_module(network(calls), (2, 8, 8))) == ours
    assert taken == [True]


def captured(module: nn.Module) -> torch.export.ExportedProgram:
    x, sizes = torch.zeros(2, 2, 8, 8), ({0: torch.export.Dim.AUTO},)
    return torch.export.export(module, (x,), dynamic_shapes=sizes, strict=False)


def operators(program: torch.export.ExportedProgram) -> set[str]:
    return {str(node.target) for node in program.graph.nodes if node.op == "call_function"}


def test_every_operator_that_is_known_is_among_those_calls() -> None:
    seen = operators(captured(network(all_calls)))
    known = {str(target) for target in (*_KEPT, *_RULES) if "onnx_symbolic" not in str(target)}
    assert known <= seen, known - seen


@pytest.mark.parametrize(
    "calls",
    [
        lambda a, b: a.add_(b),
        lambda a, b: functional.gelu(a),
        lambda a, b: functional.dropout(a, 0.5, True),
        lambda a, b: functional.adaptive_avg_pool2d(a, 2),
        lambda a, b: functional.batch_norm(a, None, None, training=True),
        lambda a, b: functional.dropout(a, 0.5, False),  # a result has a name of its own
    ],
)
def test_other_programs_are_left_to_pytorch(calls: Callable[[Tensor, Tensor], Any]) -> None:
    program = captured(network(calls))
    before = operators(program)
    assert decomposed(program) is program
    assert operators(program) == before


def test_a_table_that_has_one_of_its_operators_is_obeyed() -> None:
    ready = decomposed(captured(network(CALLS["squeezed"])))
    assert ready.run_decompositions({}) is ready
    table = {torch.ops.aten.sigmoid.default: lambda x: 1 / (1 + torch.exp(-x))}
    assert "aten.sigmoid.default" in operators(ready)
    assert "aten.sigmoid.default" not in operators(ready.run_decompositions(table))


def test_values_keep_the_names_of_their_calls() -> None:
    program = captured(network(CALLS["moved"]))
    ready = {node.name for node in decomposed(program).graph.nodes}
    named = {node.name for node in program.graph.nodes if "size" not in node.name}
    assert named <= ready, named - ready


@pytest.mark.slow
def test_it_needs_nothing_imported_before() -> None:
    subprocess.run([sys.executable, "-c", "import snncc.frontends.decomposed"], check=True)
