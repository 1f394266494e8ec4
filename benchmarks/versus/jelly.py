"""The network as a SpikingJelly user runs it: multi-step IF neurons with soft reset over D ticks.

The membrane starts at half the threshold, so that a neuron rounds. Two forms:

* ``at once``: a neuron fires as its input arrives, as in any such network. That is another
  function than the trained integer network: a spike fired early cannot be taken back.
* ``barrier``: currents of all D ticks are summed first and arrive in the first of the neuron's own
  D ticks. These are the spike counts of the integer network.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from spikingjelly.activation_based import functional, neuron
from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from snncc.errors import UnsupportedModelError
from snncc.program import Accumulator, Neuron, Node, Pool, Program, Readout, Source
from versus.dense_form import foldable, thresholds
from versus.eager import layer_of

__all__ = ["Jelly"]

Array = npt.NDArray[Any]
Step = Callable[[Tensor], Tensor]


def _refuse(what: str) -> UnsupportedModelError:
    return UnsupportedModelError(f"no form of the network in SpikingJelly: {what}")


class Jelly(nn.Module):
    """A chain of layers and IF neurons; spikes are (D, N, *shape).

    Args:
        program: T = 1, one chain.
        barrier: See above.

    Raises:
        UnsupportedModelError: Not such a network.
    """

    def __init__(self, program: Program, barrier: bool) -> None:
        super().__init__()
        self.barrier, self.D = barrier, program.ticks
        self.folded = foldable(program, thresholds(program))
        self.neurons = nn.ModuleList()
        self.steps = [self._step(before, node) for before, node in pairwise(program.nodes)]

    @torch.inference_mode()
    def forward(self, x: Array) -> list[Array]:
        """The readout of uint8 samples (N, *shape)."""
        functional.reset_net(self)
        for node in self.neurons:
            fire = cast("neuron.IFNode", node)
            fire.v = fire.v_threshold / 2
        value = torch.from_numpy(x).float()
        for step in self.steps:
            value = step(value)
        return [value.numpy()]

    def _step(self, before: Node, node: Node) -> Step:
        if isinstance(node, Source) or before.name not in _sources(node):
            raise _refuse("not one chain")
        if isinstance(node, Accumulator):
            return self._currents(node, before)
        if isinstance(node, Neuron):
            return self._fire(node)
        if isinstance(node, Pool):
            return _ticks(lambda s: max_pool2d(s, node.kernel, node.strides))
        return self._result(before)

    def _currents(self, node: Accumulator, before: Node) -> Step:
        """Membrane currents, (D, N, ...), or their sum (N, ...) where the neuron waits for it."""
        theta = self.folded.get(node.name, np.ones(1))
        theta = theta if len(theta) > 1 else np.ones(1)  # one for all is the threshold itself
        first = isinstance(before, Source)
        layer = layer_of(node.projections[0], theta, node.bias / (1 if first else self.D))
        if first:
            return layer if self.barrier else lambda x: self._spread(layer(x))
        each = _ticks(layer)
        return (lambda s: each(s).sum(0)) if self.barrier or node.name not in self.folded else each

    def _spread(self, potential: Tensor) -> Tensor:
        """A potential that arrives in equal parts."""
        return (potential / self.D).expand(self.D, *potential.shape)

    def _fire(self, node: Neuron) -> Step:
        if node.source not in self.folded or node.D != self.D:
            raise _refuse("thresholds or bursts differ")
        theta = self.folded[node.source]
        threshold = 1.0 if len(theta) > 1 else float(theta[0])
        fire = neuron.IFNode(v_threshold=threshold, v_reset=None, step_mode="m")
        self.neurons.append(fire)
        return (lambda v: fire(self._burst(v))) if self.barrier else fire

    def _burst(self, potential: Tensor) -> Tensor:
        """A potential that arrives in the first tick."""
        currents = potential.new_zeros(self.D, *potential.shape)
        currents[0] = potential
        return currents

    def _result(self, before: Node) -> Step:
        return (lambda s: s.sum(0)) if not isinstance(before, Accumulator) else lambda v: v


def _sources(node: Node) -> tuple[str, ...]:
    if isinstance(node, Accumulator):
        first = node.projections[0]
        return (first.source,) if len(node.projections) == 1 and first.weights else ()
    assert isinstance(node, (Neuron, Pool, Readout))
    fits = not isinstance(node, Pool) or (node.kind == "max" and not any(node.pads))
    return (node.source,) if fits else ()


def _ticks(layer: Step) -> Step:
    """The layer on all ticks at once, folded into the batch."""

    def each(spikes: Tensor) -> Tensor:
        together = layer(spikes.flatten(0, 1))
        return together.reshape(*spikes.shape[:2], *together.shape[1:])

    return each
