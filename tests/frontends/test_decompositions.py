"""Programs decomposed call by call are those that PyTorch makes of them as a whole."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.nn import functional

import snncc.frontends.decompositions as decompositions
import snncc.frontends.pytorch as frontend
import snncc.nn
from snncc.frontends.decompositions import by_calls, decomposed
from snncc.frontends.programs import first_call, module_of
from snncc.frontends.pytorch import import_module
from snncc.frontends.sequences import Frames
from snncc.ir.ops import OPSET
from snncc.ir.text import dump


class Layers(nn.Module):
    """Convolution, norm and neuron, and what a test does to the spikes."""

    def __init__(self, after: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.fire, self.after = snncc.nn.IntegerFire(4), after

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.fire(self.norm(self.conv(x))))


class Whole(nn.Module):
    """Everything is inside a module, which names it."""

    def __init__(self, after: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.body = Layers(after)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x)
        return out


class OverTime(nn.Module):
    """[T, N, ...] through layers and neurons, as SpikingJelly's networks."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fire = nn.Conv2d(2, 4, 3, padding=1), snncc.nn.LIF()
        self.norm, self.head = nn.BatchNorm2d(4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        T, N = x.shape[:2]
        y = self.norm(self.conv(x.flatten(0, 1))).reshape(T, N, 4, 8, 8).contiguous()
        out: Tensor = self.head(self.fire(y).flatten(3).mean(3)).mean(0)
        return out


def bordered(y: Tensor) -> Tensor:
    """A border that is written in place, as in Spike-driven Transformer V2."""
    y = functional.pad(y, [1, 1, 1, 1])
    edge = torch.ones(4, 1, 1) / 2
    y[:, :, 0:1, :] = edge
    y[:, :, -1:, :] = edge
    y[:, :, :, 0:1] = edge / 2
    return functional.avg_pool2d(y, 2)


def attention(y: Tensor) -> Tensor:
    q = y.flatten(2).transpose(-1, -2).reshape(y.shape[0], 64, 2, 2).permute(0, 2, 1, 3)
    return ((q @ q.transpose(-2, -1)) * 0.125 @ q).transpose(1, 2).reshape(y.shape[0], 64, 4)


KNOWN: dict[str, Callable[[Tensor], Tensor]] = {
    "a border written in place": bordered,
    "changed in place": lambda y: functional.relu(y.clone().sub_(1), inplace=True),
    "attention": attention,
    "pools": lambda y: functional.max_pool2d(functional.avg_pool2d(y, 2), 3, 1, 1),
    "average over one cell": lambda y: functional.adaptive_avg_pool2d(y, 1).flatten(1),
    "axes": lambda y: y.permute(0, 2, 3, 1).contiguous().flatten(1, 2).unflatten(1, (8, 8)),
    "parts": lambda y: torch.cat([*torch.split(y, 2, 1)[::-1], y[:, 1:2]], 1),
    "of every kind": lambda y: torch.stack([y.unbind(1)[0], y.sum(1), y[..., 0:8].amax(1)]).mean(0),
    "elementwise": lambda y: torch.maximum((1 - y).abs().sqrt(), y**2).clamp(0, 4).round(),
}
UNKNOWN: dict[str, Callable[[Tensor], Tensor]] = {
    "a cast": lambda y: (y > 1).float(),
    "an average over windows of different sizes": lambda y: functional.adaptive_avg_pool2d(y, 3),
    "samples and rows become one axis": lambda y: y.permute(0, 2, 3, 1).reshape(-1, 4),
    "a part of what was changed": lambda y: functional.relu(y, inplace=True).flatten(1),
    "an operator that is not listed": lambda y: functional.unfold(y, 2),
}


def program_of(net: nn.Module, shape: tuple[int, ...] = (2, 2, 8, 8), axis: int = 0) -> Any:
    """The program as the frontend has it, and the table of operators that may not stay."""
    batch = ({axis: torch.export.Dim("N", min=2)},)
    x = torch.zeros(shape)
    program = torch.export.export(net.eval(), (x,), dynamic_shapes=batch, strict=False)
    return program, exporters_table()


@cache
def exporters_table() -> dict[Any, Any]:
    """The operators that may not stay in a program which becomes ONNX."""
    program, taken = torch.export.export(nn.ReLU(), (torch.zeros(2),)), []

    def run_decompositions(table: dict[Any, Any]) -> ExportedProgram:
        taken.append(dict(table))
        return program

    program.run_decompositions = run_decompositions  # type: ignore[assignment]
    torch.onnx.export(program, (), dynamo=True, opset_version=OPSET, optimize=False, verbose=False)
    return taken[0]


def described(program: ExportedProgram) -> list[tuple[Any, ...]]:
    """All nodes, by their places; values as their shapes and types."""
    place = {node: i for i, node in enumerate(program.graph.nodes)}
    found = []
    for node in program.graph.nodes:
        args = torch.fx.node.map_arg((node.args, node.kwargs), lambda arg: f"#{place[arg]}")
        where = [str(node.meta.get("val")), module_of(node), node.meta.get("stack_trace")]
        name = node.name if node.op == "placeholder" else str(node.target)
        is_call = node.op == "call_function" and "getitem" not in str(node.target)
        is_known = is_call and not isinstance(node.meta.get("val"), torch.SymInt)
        more = (*where, first_call(node)) if is_known else ()
        found.append((node.op, name, str(args), *more))
    return found


@pytest.mark.parametrize("after", KNOWN.values(), ids=KNOWN)
def test_a_program_is_that_of_pytorchs_own_way(after: Callable[[Tensor], Tensor]) -> None:
    program, table = program_of(Whole(after))
    found = decomposed(program, table)
    assert found is not None
    assert described(found) == described(program.run_decompositions(table))


def test_a_network_over_time_is_that_of_pytorchs_own_way() -> None:
    leafless = OverTime()
    leafless.fire = nn.ReLU()  # type: ignore[assignment]
    program, table = program_of(leafless, (4, 2, 2, 8, 8), axis=1)
    found = decomposed(program, table)
    assert found is not None
    assert described(found) == described(program.run_decompositions(table))


@pytest.mark.parametrize("after", UNKNOWN.values(), ids=UNKNOWN)
def test_what_is_not_known_is_left_to_pytorch(after: Callable[[Tensor], Tensor]) -> None:
    assert decomposed(*program_of(Whole(after))) is None


def test_a_sum_outside_modules_keeps_its_name() -> None:
    """PyTorch's own way numbers it behind sums of sizes, and reports call it so."""

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.conv2 = nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv1(x)
            return x + self.conv2(x)

    assert decomposed(*program_of(Residual())) is None


NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "layers": (lambda: Whole(lambda y: functional.avg_pool2d(y, 2)), 0),
    "a border": (lambda: Whole(bordered), 0),
    "over time": (OverTime, 4),
}


@pytest.mark.parametrize(("make", "T"), NETWORKS.values(), ids=NETWORKS)
def test_the_graph_is_the_same(
    make: Callable[[], nn.Module], T: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, taken = make().eval(), []
    frames = Frames(T, batch_first=False) if T else Frames()

    def watched(program: ExportedProgram, table: Any) -> ExportedProgram | None:
        taken.append(decomposed(program, table))
        return taken[-1]

    monkeypatch.setattr(decompositions, "decomposed", watched)
    ours = dump(import_module(net, (2, 8, 8), frames=frames))
    monkeypatch.setattr(frontend, "by_calls", lambda program: None)
    theirs = dump(import_module(net, (2, 8, 8), frames=frames))
    assert taken != [None]
    assert without_numbers_of_sizes(ours) == without_numbers_of_sizes(theirs)


def without_numbers_of_sizes(text: str) -> str:
    """What computes with the number of samples is numbered behind what PyTorch throws away."""
    return re.sub(r"\b(sym_size_int|mul)(_\d+)?\b", r"\1", text)


def test_another_pytorch_decomposes_in_its_own_way(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: Any) -> Any:
        raise AttributeError("no such function in this version")

    program, table = program_of(Whole(functional.relu))
    monkeypatch.setattr(decompositions, "map_arg", gone)
    assert decomposed(program, table) is None
    by_calls(program)
    before = program_of(Whole(functional.relu))[0].run_decompositions(table)
    assert described(program.run_decompositions(table)) == described(before)
