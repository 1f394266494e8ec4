"""The network in eager PyTorch, float32, integer activations layer by layer."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, linear, max_pool2d, pad

from snncc.errors import UnsupportedModelError
from snncc.program import Accumulator, Neuron, Node, Pool, Program, Projection, Readout
from versus.dense_form import column, foldable, thresholds

__all__ = ["Eager", "layer_of"]

Array = npt.NDArray[Any]
Layer = Callable[[Tensor], Tensor]
Step = Callable[[dict[str, Tensor]], None]


def _tensor(values: Array) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, np.float32))


def layer_of(p: Projection, scale: Array, bias: Array | None) -> Layer:
    """The layer of a projection, weights and bias divided by ``scale``, (C,) or (1,).

    Args:
        p: With weights.
        scale: Of the outputs.
        bias: (C,), or (C, H, W), or none.
    """
    total = p.total()
    w = _tensor(total / column(scale, total.ndim))
    inside = bias is not None and bias.ndim == 1
    b = _tensor(bias / scale) if bias is not None and inside else None
    layer = _convolution(p, w, b) if p.kind == "conv" else _dense(w, b)
    if bias is None or inside:
        return layer
    border = _tensor(bias / column(scale, bias.ndim))
    return lambda x: layer(x) + border


def _dense(w: Tensor, b: Tensor | None) -> Layer:
    return lambda x: linear(x.flatten(1), w, b)


def _convolution(p: Projection, w: Tensor, b: Tensor | None) -> Layer:
    top, left, bottom, right = p.pads
    if (top, left) == (bottom, right):
        return lambda x: conv2d(x, w, b, p.strides, (top, left), p.dilations, p.groups)
    sides = (left, right, top, bottom)
    return lambda x: conv2d(pad(x, sides), w, b, p.strides, 0, p.dilations, p.groups)


class Eager:
    """Integer activations layer by layer: ``clip(round(u), 0, D)``.

    Args:
        program: T = 1.

    Raises:
        UnsupportedModelError: No dense form.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self.thetas = thresholds(program)
        self.folded = foldable(program, self.thetas)
        self.steps = [self._step(node) for node in program.nodes[1:]]

    @torch.inference_mode()
    def __call__(self, x: Array) -> list[Array]:
        """Readouts of uint8 samples (N, *shape), float32, in the Program's order."""
        values = {self.program.source.name: torch.from_numpy(x).float()}
        for step in self.steps:
            step(values)
        return [values[r.name].numpy() for r in self.program.readouts]

    def _step(self, node: Node) -> Step:
        if isinstance(node, Accumulator):
            return self._potential(node)
        if isinstance(node, Neuron):
            return self._fire(node)
        if isinstance(node, Pool):
            return self._pool(node)
        assert isinstance(node, Readout)
        return lambda v: v.update({node.name: v[node.source].reshape(-1, *node.shape)})

    def _potential(self, node: Accumulator) -> Step:
        scale = self.folded.get(node.name, np.ones(1))
        layered = [i for i, p in enumerate(node.projections) if p.weights]
        terms = [
            (p.source, layer_of(p, scale, node.bias if i == layered[0] else None))
            if p.weights
            else (p.source, None)
            for i, p in enumerate(node.projections)
        ]
        apart = None if layered else _tensor(node.bias_map())

        def add(values: dict[str, Tensor]) -> None:
            parts = [values[s] if layer is None else layer(values[s]) for s, layer in terms]
            total = reduce(torch.add, parts)
            values[node.name] = total if apart is None else total + apart

        return add

    def _fire(self, node: Neuron) -> Step:
        source = self.program.by_name[node.source]
        if source.name in self.folded:
            return lambda v: v.update({node.name: _count(v[node.source], node)})
        theta = _tensor(column(self.thetas[node.name], len(source.shape)))
        return lambda v: v.update({node.name: _count(v[node.source] / theta, node)})

    def _pool(self, node: Pool) -> Step:
        if any(node.pads):
            raise UnsupportedModelError("no form of the network in PyTorch: padded pools")
        sizes = (node.kernel, node.strides)
        if node.kind == "max":
            return lambda v: v.update({node.name: max_pool2d(v[node.source], *sizes)})
        return lambda v: v.update(
            {node.name: avg_pool2d(v[node.source], *sizes, divisor_override=1)}
        )


def _count(u: Tensor, node: Neuron) -> Tensor:
    return u.round_().clamp_(0, node.D).reshape(-1, *node.shape)
