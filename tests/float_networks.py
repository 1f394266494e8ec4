"""Float networks as trained ones are exported, built as ONNX directly, layer by layer.

Weights are scaled so that activations span their levels.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from neuron_spellings import SPELLINGS
from onnx import TensorProto, helper, numpy_helper

from snncc.frontends.tidy import tidy
from snncc.ir.metadata import SEQUENCE
from snncc.ir.ops import DOMAIN, OPSET, VERSION, register_schemas
from snncc.ir.oracle import values_of
from snncc.passes import FRONT, PassManager, QuantiseInput, RequireInteger, pipeline
from snncc.passes.fold.merge_linear import MergeLinear
from snncc.passes.fold.no_neuron_between import AUTO

__all__ = [
    "Case",
    "Net",
    "case_of",
    "examples",
    "front",
    "imported",
    "lowered",
    "shared_values",
]

Array = np.ndarray


class Net:
    """A chain of ONNX nodes under construction; ``x`` is the value that the next one reads.

    Args:
        shape: Per sample; per timestep where ``timesteps`` is set, T of sequences [N, T, ...].
        seed: Of all numbers.
        ties: Draw powers of two, so that drives meet rounding borders.
        rms: Typical size of the input's values.
    """

    def __init__(
        self, shape: tuple[int, ...], seed: int = 0, ties: bool = False, rms: float = 1.0
    ) -> None:
        self.rng = np.random.default_rng(seed)
        self.ties, self.rms = ties, rms
        self.input = shape
        self.timesteps = 0
        self.shape, self.x = shape, "x"
        self.nodes: list[onnx.NodeProto] = []
        self.known: list[onnx.ValueInfoProto] = []
        self.fired: dict[str, tuple[int, ...]] = {}
        self.weights: list[onnx.TensorProto] = []
        self.count = 0

    # -- plumbing --------------------------------------------------------------------------

    def const(self, array: Any, dtype: Any = np.float32) -> str:
        """A new initializer."""
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(array, dtype), name))
        return name

    def node(
        self, kind: str, *inputs: str, module: str = "", domain: str = "", **attributes: Any
    ) -> str:
        """A new node; its only output."""
        out = f"t{len(self.nodes)}"
        name = f"/{module}/{kind}" if module else out
        made = helper.make_node(kind, list(inputs), [out], name=name, domain=domain, **attributes)
        self.nodes.append(made)
        return out

    def then(self, kind: str, *inputs: str, **rest: Any) -> Net:
        """Append a node that reads the current value first."""
        self.x = self.node(kind, self.x, *inputs, **rest)
        return self

    def label(self, kind: str) -> str:
        """A module name that no other layer has."""
        self.count += 1
        return f"{kind}{self.count}"

    def proto(self, opset: int = OPSET, batch: Any = "N", dtype: int = TensorProto.FLOAT) -> Any:
        """The network as a model; its result is the current value."""
        sample = (self.timesteps, *self.input) if self.timesteps else self.input
        graph = helper.make_graph(
            self.nodes,
            "net",
            [helper.make_tensor_value_info("x", dtype, [batch, *sample])],
            [helper.make_tensor_value_info(self.x, TensorProto.FLOAT, [batch, *self.shape])],
            self.weights,
            value_info=self.known,
        )
        opsets = [helper.make_opsetid("", opset), helper.make_opsetid(DOMAIN, VERSION)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)

    # -- numbers ---------------------------------------------------------------------------

    def weight(self, shape: tuple[int, ...], D: float) -> Array:
        """Weights with which the current value drives neurons of D levels."""
        size = D / 2 / (self.rms * np.sqrt(prod(shape[1:])))
        if self.ties:
            steps = 2.0 ** self.rng.integers(-1, 2, shape) * self.rng.choice([-1, 0, 1, 1], shape)
            return np.asarray(2.0 ** np.round(np.log2(size)) * steps)
        return self.rng.normal(0.1 * size, size, shape)

    def bias(self, size: int, D: float) -> Array:
        """Biases of half the drive, multiples of 1/2 where ties are wanted."""
        b = self.rng.normal(0.3 * D, 0.2 * D, size)
        return np.round(2 * b) / 2 if self.ties else b

    # -- layers ----------------------------------------------------------------------------

    def conv(
        self,
        out: int,
        kernel: Any = 3,
        stride: Any = 1,
        pads: Any = 0,
        group: int = 1,
        dilation: Any = 1,
        bias: bool = True,
        D: float = 4,
    ) -> Net:
        """Conv2d with random weights."""
        kh, kw = _pair(kernel)
        channels = self.shape[0]
        w = self.weight((out, channels // group, kh, kw), D)
        args = [self.const(w)] + ([self.const(self.bias(out, D))] if bias else [])
        pads = [pads] * 4 if isinstance(pads, int) else list(pads)
        strides, dilations = _pair(stride), _pair(dilation)
        self.then(
            "Conv", *args, module=self.label("conv"), kernel_shape=[kh, kw],
            strides=strides, pads=pads, dilations=dilations, group=group,
        )  # fmt: skip
        size = [
            (n + pads[i] + pads[i + 2] - dilations[i] * (k - 1) - 1) // strides[i] + 1
            for i, (n, k) in enumerate(zip(self.shape[1:], (kh, kw), strict=True))
        ]
        self.shape, self.rms = (out, *size), D / 2
        return self

    def linear(self, out: int, bias: bool = True, matmul: bool = False, D: float = 4) -> Net:
        """Linear as Gemm, or as MatMul and Add."""
        w, b = self.weight((out, self.shape[0]), D), self.bias(out, D)
        name = self.label("fc")
        if matmul:
            self.then("MatMul", self.const(w.T), module=name)
            if bias:
                self.then("Add", self.const(b), module=name)
        else:
            args = [self.const(w)] + ([self.const(b)] if bias else [])
            self.then("Gemm", *args, module=name, transB=1)
        self.shape, self.rms = (out,), D / 2
        return self

    def batch_norm(self, negative: bool = True) -> Net:
        """BatchNorm of random statistics."""
        c, name = self.shape[0], self.label("bn")
        gamma = self.rng.uniform(0.5, 1.5, c) * (self.rng.choice([-1, 1, 1], c) if negative else 1)
        mean, var = self.rng.normal(0, 0.3 * self.rms, c), self.rng.uniform(0.5, 2, c)
        beta = self.rng.normal(0.3 * self.rms, 0.2, c)
        args = [self.const(v) for v in (gamma, beta, mean, var)]
        return self.then("BatchNormalization", *args, module=name, epsilon=1e-5)

    def affine(self, kind: str, values: Any, per_channel: bool = False) -> Net:
        """Mul, Div, Add or Sub with a constant."""
        array = np.asarray(values, np.float32)
        if per_channel:
            array = array.reshape(-1, *(1,) * (len(self.shape) - 1))
        return self.then(kind, self.const(array), module=self.label(kind.lower()))

    def fire(
        self, D: int = 4, norm: float = 1.0, rounding: str = "half-even", spelling: str = "leaf"
    ) -> Net:
        """A neuron in one of ``SPELLINGS``."""
        SPELLINGS[spelling](self, D, rounding, self.label("fire"))
        if norm != 1.0 and spelling == "leaf":
            self.nodes[-1].attribute[1].f = norm
        elif norm != 1.0:
            self.affine("Div", norm)
        self.rms = D / 2 / norm
        return self

    def pool(self, kind: str, kernel: Any = 2, stride: Any = 2, pads: Any = 0) -> Net:
        """MaxPool or AveragePool (padding counted)."""
        k, s = _pair(kernel), _pair(stride)
        pads = [pads] * 4 if isinstance(pads, int) else list(pads)
        more = {"count_include_pad": 1} if kind == "AveragePool" else {}
        self.then(
            kind, module=self.label("pool"), kernel_shape=k, strides=s, pads=pads, **more
        )  # fmt: skip
        size = [(n + pads[i] + pads[i + 2] - k[i]) // s[i] + 1 for i, n in
                enumerate(self.shape[1:])]  # fmt: skip
        self.shape = (self.shape[0], *size)
        return self

    def mean(self, keep: bool = False) -> Net:
        """Global average over height and width."""
        name = self.label("mean")
        if keep:
            self.then("GlobalAveragePool", module=name)
            self.shape = (self.shape[0], 1, 1)
        else:
            self.then("ReduceMean", self.const([2, 3], np.int64), module=name, keepdims=0)
            self.shape = self.shape[:1]
        return self

    def add(self, other: str) -> Net:
        """The current value plus another of its shape."""
        return self.then("Add", other, module=self.label("add"))

    def gate(self, other: str, most: float = 0) -> Net:
        """The current value times another; with ``most`` times what that does not fire of it."""
        name = self.label("gate")
        if most:
            other = self.node("Sub", self.const(most), other, module=name)
        return self.then("Mul", other, module=name)

    def concat(self, other: str, channels: int) -> Net:
        """The current value and another of ``channels`` channels."""
        self.then("Concat", other, module=self.label("cat"), axis=1)
        self.shape = (self.shape[0] + channels, *self.shape[1:])
        return self

    def flatten(self) -> Net:
        """(C, H, W) -> (F,)."""
        self.then("Flatten", module=self.label("flatten"), axis=1)
        self.shape = (prod(self.shape),)
        return self


def _pair(value: Any) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value)


# -- compiling -----------------------------------------------------------------------------


def imported(net: Net | onnx.ModelProto) -> ir.Model:
    """The network in stage ``imported``."""
    register_schemas()
    proto = net.proto() if isinstance(net, Net) else net
    model = tidy(ir.from_proto(onnx.shape_inference.infer_shapes(proto, data_prop=True)))
    if isinstance(net, Net) and net.timesteps:
        model.metadata_props[SEQUENCE] = str(net.timesteps)
    return model


def front(net: Net, feeds: dict[str, Array] | None = None) -> ir.Model:
    """The network in stage ``integer``."""
    return PassManager((*FRONT, RequireInteger()), feeds=feeds).run(imported(net))


@dataclass(frozen=True)
class Case:
    """A network, what its input means, and samples."""

    net: Net
    source: QuantiseInput
    q: Array

    @property
    def x(self) -> Array:
        """The samples as the float network reads them."""
        tail = (1,) * (len(self.net.input) - 1)
        scale, offset = (
            np.array(v, np.float64).reshape(-1, *tail)
            for v in (self.source.scale, self.source.offset)
        )
        return np.asarray(self.q * scale + offset, np.float32)

    @property
    def feeds(self) -> dict[str, Array]:
        """Inputs under the names of all stages."""
        return {"x": self.x, "x:u8": self.q}


def lowered(case: Case, bits: int = 8, check: bool = True, form: str = AUTO) -> PassManager:
    """All passes, validated; ``form``: of layers with no neuron between."""
    passes = pipeline(case.source, bits, merge=MergeLinear(form, bits))
    manager = PassManager(passes, feeds=case.feeds if check else None)
    manager.run(imported(case.net))
    return manager


def case_of(net: Net, scale: float = 1 / 64, offset: float = 0.0, samples: int = 2) -> Case:
    """A network by hand with random pixels."""
    q = np.random.default_rng(0).integers(0, 256, (samples, *net.input))
    return Case(net, QuantiseInput((scale,), (offset,)), q.astype(np.uint8))


def examples(quick: int) -> int:
    """Networks to draw: ``quick``, or as many as SNNCC_EXAMPLES says."""
    return int(os.environ.get("SNNCC_EXAMPLES", quick))


def shared_values(before: ir.Model, after: ir.Model) -> list[str]:
    """Names of the computed values that both graphs have, in the order of ``after``."""
    known = values_of(before)
    return [name for name in values_of(after) if name in known]
