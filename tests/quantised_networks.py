"""Quantised ONNX files as other tools write them: ONNX Runtime's quantiser, QCDQ, QONNX.

Tools fix the batch axis or leave it free: ``BATCH`` is what all builders here write.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
from onnx import TensorProto, helper, numpy_helper

from snncc.ir.oracle import session

__all__ = ["cnn", "normal", "parsed", "quantised", "run"]

Array = np.ndarray
SIZE = 8
#: Batch axis of the files: ``N`` is free.
BATCH: str | int = "N"


def normal(samples: int, seed: int = 1, shape: tuple[int, ...] = (1, SIZE, SIZE)) -> Array:
    """Inputs, float32."""
    return np.random.default_rng(seed).normal(0, 1, (samples, *shape)).astype(np.float32)


def run(model: onnx.ModelProto | str | Path, x: Array) -> Array:
    """The file itself in ONNX Runtime, optimisations off."""
    runner = session(str(model) if isinstance(model, Path) else model)
    size = runner.get_inputs()[0].shape[0]
    if not isinstance(size, int):
        return np.asarray(runner.run(None, {"x": x})[0])
    fill = np.repeat(x[:1], -len(x) % size, axis=0)
    batches = np.split(np.concatenate([x, fill]), (len(x) + len(fill)) // size)
    return np.concatenate([runner.run(None, {"x": part})[0] for part in batches])[: len(x)]


def cnn(seed: int = 0) -> onnx.ModelProto:
    """Conv, max-pool, a residual sum, flatten, linear; ReLUs."""
    rng = np.random.default_rng(seed)
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []

    def const(name: str, array: Array) -> str:
        weights.append(numpy_helper.from_array(array.astype(np.float32), name))
        return name

    def node(kind: str, *inputs: str, out: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, inputs, [out], name=f"/{out}/{kind}", **attributes))
        return out

    def conv(x: str, i: int, ins: int, outs: int, stride: int = 1) -> str:
        w = const(f"w{i}", rng.normal(0, (2 / (ins * 9)) ** 0.5, (outs, ins, 3, 3)))
        args = x, w, const(f"b{i}", rng.normal(0, 0.1, outs))
        node("Conv", *args, out=f"c{i}", kernel_shape=[3, 3], pads=[1] * 4, strides=[stride] * 2)
        return node("Relu", f"c{i}", out=f"r{i}")

    x = node("MaxPool", conv("x", 1, 1, 4), out="p", kernel_shape=[2, 2], strides=[2, 2])
    a = conv(x, 2, 4, 4)
    x = conv(node("Add", a, conv(a, 3, 4, 4), out="s"), 4, 4, 6, stride=2)
    args = (
        node("Flatten", x, out="f"),
        const("w", rng.normal(0, 0.2, (5, 24))),
        const("b", np.ones(5)),
    )
    node("Gemm", *args, out="y", transB=1)
    graph = helper.make_graph(
        nodes,
        "cnn",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [BATCH, 1, SIZE, SIZE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [BATCH, 5])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def quantised(
    path: Path, bits: int = 8, per_channel: bool = False, seed: int = 0, form: str = "QDQ"
) -> Path:
    """``cnn`` by ONNX Runtime's quantiser, calibrated on noise."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            samples = normal(16, seed + 1)
            batches = np.split(samples, len(samples) // (BATCH if isinstance(BATCH, int) else 16))
            self.samples: Iterator[dict[str, Array]] = iter([{"x": part} for part in batches])

        def get_next(self) -> dict[str, Array] | None:
            return next(self.samples, None)

    kinds = {8: (QuantType.QUInt8, QuantType.QInt8), 4: (QuantType.QUInt4, QuantType.QInt4)}
    activation, weight = kinds[bits]
    quantize_static(
        cnn(seed), path, Reader(), quant_format=QuantFormat[form], per_channel=per_channel,
        activation_type=activation, weight_type=weight,
    )  # fmt: skip
    return path


def parsed(body: str, result: str = "float[N,3] y", **constants: Array) -> onnx.ModelProto:
    """A model over x, float[N,2,4,4], from ONNX text; constants by name."""
    domains = '"": 21, "qonnx.custom_op.general": 1'
    head = f"<ir_version: 10, opset_import: [{domains}]>"
    ports = f"(float[N,2,4,4] x) => ({result})".replace("[N,", f"[{BATCH},")
    model = onnx.parser.parse_model(f"{head} g {ports} {{ {body} }}")
    arrays = [numpy_helper.from_array(np.asarray(a), k) for k, a in constants.items()]
    model.graph.initializer.extend(arrays)
    return model
