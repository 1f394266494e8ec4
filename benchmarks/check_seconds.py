"""Seconds of CPU that ``snncc check`` takes by network, beyond importing PyTorch.

    python benchmarks/check_seconds.py
    python benchmarks/check_seconds.py spikformer loop --timesteps 4

Every figure is the first check of a process of its own, on one thread, so that what is built once
for a process counts: operators of the exporter, schemas, tables. Networks have random weights; what
they cost depends on their structure alone.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

_TIMESTEPS = (4, 40)
#: What the zoo's options are where they are not the timesteps.
_OPTIONS: Mapping[str, Any] = {
    "heads": 8, "scale": 0.125, "tau": 2.0, "pools": "0011", "pooling": "spikes", "spreads": False,
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table; a row for each network, a column for each number of timesteps."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NETWORK", help=f"of {', '.join(NETWORKS)}")
    parser.add_argument("--timesteps", type=int, nargs="+", default=_TIMESTEPS, metavar="T")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if unknown := sorted(set(given.names) - set(NETWORKS)):
        parser.error(f"no such network: {', '.join(unknown)}; there are {', '.join(NETWORKS)}")
    if given.one:
        neurons, seconds = measured(given.names[0], given.timesteps[0])
        print(neurons, seconds)
        return
    print(f"{'network':14}{'neurons':>8}" + "".join(f"{f'T = {T}':>10}" for T in given.timesteps))
    for name in given.names or NETWORKS:
        found = [_apart(name, T) for T in given.timesteps]
        print(f"{name:14}{found[0][0]:8}" + "".join(f"{s:8.1f} s" for _, s in found), flush=True)


def _apart(name: str, T: int) -> tuple[int, float]:
    """``measured`` in a process of its own."""
    command = [sys.executable, __file__, name, "--timesteps", str(T), "--one"]
    neurons, seconds = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True
    ).stdout.split()
    return int(neurons), float(seconds)


def measured(name: str, T: int) -> tuple[int, float]:
    """Neurons that one check finds, and its seconds of CPU."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    network, shape, more = NETWORKS[name](T)
    network.eval()
    start = time.process_time()
    from snncc.compiler import check

    found = check(network, input_shape=shape, **more)
    return found.activations_found, time.process_time() - start


# -- networks --------------------------------------------------------------------------------

_Made = tuple[Any, tuple[int, ...], dict[str, Any]]


def _zoo(family: str, cls: str, shape: Mapping[str, Any], side: int) -> Callable[[int], _Made]:
    """A network of the zoo, small."""

    def made(T: int) -> _Made:
        from importlib import import_module

        module = import_module(f"snncc.frontends.zoo.{family}")
        options = {**_OPTIONS, "T": T}
        return getattr(module, cls)(module.Shape(**shape), options, {}), (3, side, side), {}

    return made


def _sequence(T: int) -> _Made:
    """Neurons that read all timesteps at once, as SpikingJelly's in multi-step mode: 20 of them."""
    from torch import nn

    from snncc.nn import LIF

    class Sequence(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            widths = (2, *(16,) * 20)
            self.convs = nn.ModuleList(nn.Conv2d(n, m, 3, padding=1) for n, m in pairwise(widths))
            self.norms = nn.ModuleList(nn.BatchNorm2d(16) for _ in self.convs)
            self.fires = nn.ModuleList(LIF() for _ in self.convs)
            self.head = nn.Linear(16, 10)

        def forward(self, x: Any) -> Any:  # [N, T, ...]
            samples = x.shape[0]
            x = x.transpose(0, 1)
            for conv, norm, fire in zip(self.convs, self.norms, self.fires, strict=True):
                x = norm(conv(x.flatten(0, 1))).unflatten(0, (T, samples))
                x = fire(x)
            return self.head(x.mean((3, 4))).mean(0)

    return Sequence(), (2, 8, 8), {"timesteps": T, "batch_first": True}


def _loop(T: int) -> _Made:
    """Neurons that are called once per timestep with their membrane, as snnTorch's: 4 of them."""
    import torch
    from torch import nn

    from snncc.frontends.leaves import StatefulFireSpec, StepSpec, register_leaf

    class Leaky(nn.Module):
        """Of snnTorch, with ``reset_mechanism='zero'``."""

        beta = 0.5

        def forward(self, x: Any, membrane: Any) -> tuple[Any, Any]:
            h = self.beta * membrane + x
            spikes = (h > 1).float()
            return spikes, h * (1 - spikes)

    neuron = StatefulFireSpec(decay=Leaky.beta, gain=1.0, threshold=1.0, rule=">", reset="hard")
    register_leaf(Leaky, lambda m: StepSpec(neuron))

    class Loop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.conv2 = nn.Conv2d(2, 12, 5), nn.Conv2d(12, 32, 5)
            self.fc1, self.fc2 = nn.Linear(32, 64), nn.Linear(64, 10)
            self.pool = nn.MaxPool2d(2)
            self.fires = nn.ModuleList(Leaky() for _ in range(4))

        def forward(self, x: Any) -> Any:  # [N, T, ...]
            one, two, three, four = self.fires
            m1 = m2 = m3 = m4 = torch.zeros(())
            counts = []
            for t in range(T):
                s1, m1 = one(self.conv1(x[:, t]), m1)
                s2, m2 = two(self.conv2(self.pool(s1)), m2)
                s3, m3 = three(self.fc1(self.pool(s2).mean((2, 3))), m3)
                s4, m4 = four(self.fc2(s3), m4)
                counts.append(s4)
            return torch.stack(counts).mean(0)

    return Loop(), (2, 16, 16), {"timesteps": T, "batch_first": True}


#: Name -> the network for a number of timesteps, the shape of its input, and options of ``check``.
NETWORKS: dict[str, Callable[[int], _Made]] = {
    "loop": _loop,
    "sequence": _sequence,
    "spikformer": _zoo(
        "spikformer", "Spikformer",
        {"depth": 2, "stem": (8, 16, 32, 64), "hidden": 128, "classes": 10}, 32,
    ),
    "spikingformer": _zoo(
        "spikingformer", "Spikingformer",
        {"depth": 2, "stem": (8, 16, 32, 64, 64), "hidden": 128, "classes": 10}, 32,
    ),
    "sdt-v1": _zoo(
        "sdt_v1", "SpikeDrivenTransformer",
        {"depth": 2, "stem": (8, 16, 32, 64), "hidden": 128, "classes": 10}, 32,
    ),
    "sdt-v2": _zoo(
        "sdt_v2", "SpikeDrivenTransformerV2",
        {"widths": (16, 32, 64, 80), "hidden": (256, 320), "classes": 10}, 64,
    ),
}  # fmt: skip


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
