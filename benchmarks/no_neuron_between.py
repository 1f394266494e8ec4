"""Event time of two layers with no neuron between: merged weights beside graded payloads.

Blocks of a depthwise and a pointwise convolution, one thread, both forms by turns:

    python benchmarks/no_neuron_between.py --channels 64 --kernel 7 --bits 8
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from functools import partial
from statistics import median
from time import perf_counter

import numpy as np
import torch
from torch import nn

import snncc
from snncc.backends.event.engine import EventEngine
from snncc.nn import IntegerFire

FORMS = ("merge", "graded")


def network(channels: int, kernel: int, blocks: int) -> nn.Module:
    """A stem, blocks of two convolutions and a neuron, a head; random weights."""
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Conv2d(3, channels, 3, padding=1), IntegerFire(4)]
    for _ in range(blocks):
        deep = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels)
        layers += [deep, nn.Conv2d(channels, channels, 1), IntegerFire(4)]
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10)]
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
            layer.weight.data *= 2
    return nn.Sequential(*layers).eval()


def by_turns(runs: Mapping[str, Callable[[], object]], times: int) -> dict[str, float]:
    """Median seconds of each, one after the other, so that all meet the same machine."""
    found: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(times):
        for name, run in runs.items():
            start = perf_counter()
            run()
            found[name].append(perf_counter() - start)
    return {name: median(seconds) for name, seconds in found.items()}


def main() -> None:
    """Print a line for each form."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--kernel", type=int, default=7)
    parser.add_argument("--blocks", type=int, default=3)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--bits", type=int, default=8)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--times", type=int, default=9)
    given = parser.parse_args()
    net, shape = network(given.channels, given.kernel, given.blocks), (3, given.size, given.size)
    x = np.random.default_rng(0).integers(0, 256, (given.samples, *shape)).astype(np.uint8)
    pixels = snncc.InputOptions(mean=[0.5], std=[0.25])
    models = {
        form: snncc.compile(
            net, input_shape=shape, input=pixels, weight_bits=given.bits, verify_samples=1,
            no_neuron_between=form,
        )
        for form in FORMS
    }  # fmt: skip
    engines = {form: EventEngine(model.program, threads=1) for form, model in models.items()}
    runs = {form: partial(engine.run, x) for form, engine in engines.items()}
    seconds = by_turns(runs, given.times)
    print(f"{given.bits} bit, {given.channels} channels, {given.kernel}x{given.kernel}")
    for form, program in ((form, model.program) for form, model in models.items()):
        weights = sum(
            w.size for a in program.accumulators for p in a.projections for w in p.weights
        )
        print(f"{form:8} {weights:12,} B  {1e3 * seconds[form] / given.samples:8.3f} ms a sample")


if __name__ == "__main__":
    main()
