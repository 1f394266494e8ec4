"""What import does with a module leaves no trace in it."""

from __future__ import annotations

import random
from collections import deque
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import snncc
from snncc.errors import SnnccError
from snncc.frontends import untouched as module_of_untouched
from snncc.frontends.untouched import untouched
from snncc.nn import IntegerFire

CONFIG = {"input_size": (1, 6, 6), "mean": (0.0,), "std": (1.0,)}
X = np.random.default_rng(0).integers(0, 256, (16, 1, 6, 6), dtype=np.uint8)


class Intricate(nn.Module):
    """Buffers that move in training, lists, a membrane, a hook, and a backend by name."""

    def __init__(self, fails: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm, self.fire = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), IntegerFire(4)
        self.head, self.drop = nn.Linear(64, 3), nn.Dropout(0.5)
        self.register_buffer("seen", torch.zeros(2), persistent=False)
        self.membrane, self.log, self.backend = torch.ones(3), [1, 2], "cupy"
        self.fails = fails
        self.calls = 0
        self.fire.register_forward_hook(lambda *_: None)
        self.default_cfg = CONFIG

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        self.log.append(self.calls)
        self.seen += 1
        self.membrane = 2 * self.membrane
        self.backend = "torch"
        if self.fails and self.calls > 1:
            raise RuntimeError("on purpose")
        return self.head(self.drop(self.fire(self.norm(self.conv(x)))).flatten(1))


def arrays(model: snncc.CompiledModel) -> list[np.ndarray]:
    return list(model.program.to_json()[1].values())


def state(net: nn.Module) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path, part in net.named_modules():
        plain = (bool, int, str, list, torch.Tensor)
        for name, value in {**part.__dict__, **part._buffers, **part._parameters}.items():
            if isinstance(value, plain) or callable(value):
                found[f"{path}.{name}"] = value
        found[f"{path}.hooks"] = list(part._forward_hooks.values())
    return {k: _frozen(v) for k, v in found.items()}


def _frozen(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return id(value), value.data_ptr(), value.tolist()
    return list(value) if isinstance(value, list) else value


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("training", ["none", "norm", "all"])
def test_a_compiled_module_is_as_it_was(fails: bool, training: str) -> None:
    net = Intricate(fails).eval()
    if training != "none":
        (net if training == "all" else net.norm).train()
    before, numbers = state(net), torch.random.get_rng_state()
    if fails:
        with pytest.raises(SnnccError, match="on purpose"):
            snncc.compile(net, X)
    else:
        snncc.compile(net, X)
    assert state(net) == before
    assert torch.equal(torch.random.get_rng_state(), numbers)
    assert torch.is_grad_enabled()


def test_a_norm_in_training_is_compiled_in_eval_mode() -> None:
    net = Intricate().eval()
    expected = snncc.compile(net, X)
    net.norm.train()
    net.norm.register_forward_pre_hook(lambda *_: None)
    found = snncc.compile(net, X)
    for ours, theirs in zip(arrays(found), arrays(expected), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert found.report.changed == 0


def test_an_author_whose_train_keeps_a_part_in_training_cannot_move_it() -> None:
    class Stubborn(nn.BatchNorm2d):
        def train(self, mode: bool = True) -> nn.Module:
            return super().train(True)

    net = nn.Sequential(nn.Conv2d(1, 4, 3), Stubborn(4), IntegerFire(4))
    with untouched(net):
        assert not any(part.training for part in net.modules())
        net(torch.rand(2, 1, 6, 6))
    assert net[1].training
    assert net[1].num_batches_tracked == 0


def test_what_grew_is_as_small_as_before() -> None:
    class Growing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mem, self.table = torch.zeros(0), {"v": torch.zeros(2)}

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.mem.resize_(4)
            self.table["v"].add_(1)
            self.table["w"] = x
            self.late = nn.ReLU()
            return x

    net = Growing()
    with untouched(net):
        net(torch.zeros(1))
    assert net.mem.shape == (0,)
    assert list(net.table) == ["v"]
    assert net.table["v"].tolist() == [0, 0]
    assert not hasattr(net, "late")


class Counter:
    """A plain object of the author's; it is equal to any other."""

    def __init__(self) -> None:
        self.n, self.parts = 0, [torch.zeros(2)]

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0


class Nested(nn.Module):
    """State at every depth, and generators of random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.tensors, self.pair = [torch.zeros(3)], (torch.zeros(2), [0])
        self.nest = {"a": [0], "b": {"c": 0}, "d": {1, 2}}
        self.array, self.fixed = np.zeros(2), np.zeros(2)
        self.fixed.flags.writeable = False
        self.objects = np.array([[0], None], dtype=object)
        self.queue, self.names = deque([1, 2], maxlen=2), SimpleNamespace(n=0)
        self.counter, self.unlisted = Counter(), [nn.BatchNorm1d(2)]
        self.me = [self]
        self.drawn = [random.Random(1), np.random.default_rng(1), torch.Generator().manual_seed(1)]
        self.weight = nn.Parameter(torch.zeros(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.tensors[0].add_(1)
        self.pair[0].add_(1)
        self.pair[1][0] += 1
        self.nest["a"][0] += 1
        self.nest["b"]["c"] += 1
        self.nest["d"].add(3)
        self.array += 1
        self.objects[0].append(1)
        self.objects[1] = 1
        self.queue.append(3)
        self.names.n += 1
        self.counter.n += 1
        self.counter.late = 1
        self.counter.parts[0] += 1
        self.unlisted[0](x)
        self.unlisted.append(nn.ReLU())
        self.noise = (random.random(), np.random.rand(), *self.draw())  # noqa: NPY002
        return x

    def draw(self) -> tuple[float, ...]:
        mine, numpy, torchs = self.drawn
        return mine.random(), numpy.random(), float(torch.rand(1, generator=torchs))

    def told(self) -> str:
        norm = self.unlisted[0]
        return str((
            self.tensors, self.pair, self.nest, self.array, self.fixed, self.objects, self.queue,
            self.names, self.counter.__dict__, len(self.unlisted), norm.running_mean,
            norm.training, hasattr(self, "noise"), self.drawn[0].getstate(),
            self.drawn[1].bit_generator.state, self.drawn[2].get_state().tolist(),
            random.getstate(), np.random.get_state()[1].tolist(),  # noqa: NPY002
        ))  # fmt: skip


def test_what_modules_hold_at_any_depth_comes_back() -> None:
    net = Nested()
    before = net.told()
    with untouched(net):
        net(torch.rand(4, 2))
        net(torch.rand(4, 2))
        assert net.told() != before
        assert net.unlisted[0].running_mean.any()
    assert net.told() == before


def test_parameters_are_not_copied_and_more_than_a_bound_is_not_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    net = Nested()
    net.many = [[] for _ in range(1000)]
    net.large = [np.zeros(1000), np.zeros(1)]
    assert not any(t is net.weight for undo in module_of_untouched._kept([net]) for t in undo.args)
    monkeypatch.setattr(module_of_untouched, "_MOST_OBJECTS", 200)
    assert len(module_of_untouched._kept([net])) < 200
    monkeypatch.setattr(module_of_untouched, "_MOST_OBJECTS", 10_000)
    monkeypatch.setattr(module_of_untouched, "_MOST_BYTES", 4000)
    kept = [undo.args[0] for undo in module_of_untouched._kept([net]) if undo.args]
    assert not any(value is net.large[0] for value in kept)
    assert any(value is net.large[1] for value in kept)
