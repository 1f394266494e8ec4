"""Brevitas' examples and small networks of its layers, exported as QCDQ and as QONNX."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from covered.files import of_file, pixels_of
from covered.subject import Network, Subject, calibrated, folder

__all__ = ["NETWORKS"]

_SMALL = (3, 32, 32)


class _Relu(nn.Module):
    """Convolutions and QuantReLU, perhaps with a residual sum and scales of each channel."""

    def __init__(self, bits: int, per_channel: bool = False, residual: bool = False) -> None:
        import brevitas.nn as qnn
        from brevitas.quant import Uint8ActPerTensorFloat

        super().__init__()
        self.residual = residual
        more: dict[str, Any] = {"weight_bit_width": 4}
        if per_channel:
            more["weight_scaling_per_output_channel"] = True
        relu = partial(qnn.QuantReLU, bit_width=bits, return_quant_tensor=True)
        self.inp = qnn.QuantIdentity(act_quant=Uint8ActPerTensorFloat, return_quant_tensor=True)
        self.conv1 = qnn.QuantConv2d(3, 8, 3, padding=1, bias=False, **more)
        self.norm1, self.relu1 = nn.BatchNorm2d(8), relu()
        self.conv2 = qnn.QuantConv2d(8, 8, 3, padding=1, bias=False, **more)
        self.norm2, self.relu2 = nn.BatchNorm2d(8), relu()
        self.pool = nn.MaxPool2d(4)
        self.fc = qnn.QuantLinear(8 * 64, 10, bias=True, weight_bit_width=4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = self.relu1(self.norm1(self.conv1(self.inp(x))))
        b = self.norm2(self.conv2(a))
        b = self.relu2(b + a if self.residual else b)
        return self.fc(self.pool(b).flatten(1))


def _example(name: str) -> nn.Module:
    """CNV, TFC or ResNet-18 of its examples, at their own size."""
    from brevitas_examples.bnn_pynq import models

    return getattr(models, name)(pretrained=False)


def _resnet() -> nn.Module:
    """Its ResNet-18 with 4 bits, a block per stage."""
    from brevitas_examples.bnn_pynq.models import resnet

    return resnet.QuantResNet(
        resnet.QuantBasicBlock, [1, 1, 1, 1], act_bit_width=4, weight_bit_width=4,
        round_average_pool=True,
    )  # fmt: skip


def _mobilenet() -> nn.Module:
    """Its MobileNetV1 with 4 bits, narrow, for 32 pixels."""
    from brevitas_examples.imagenet_classification.models.mobilenetv1 import MobileNet

    return MobileNet(
        [[8], [16], [32, 32], [64, 64], [64, 64]], False, 4, 4, last_layer_bit_width=4,
        avg_pool_kernel_size=2, num_classes=10,
    )  # fmt: skip


_QCDQ: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "QuantReLU, 2 bits": (partial(_Relu, 2), _SMALL),
    "QuantReLU, 4 bits": (partial(_Relu, 4), _SMALL),
    "QuantReLU, 8 bits": (partial(_Relu, 8), _SMALL),
    "weights per channel": (partial(_Relu, 4, per_channel=True), _SMALL),
    "residual sum": (partial(_Relu, 4, residual=True), _SMALL),
    "ResNet-18, 4 bits": (_resnet, _SMALL),
    "MobileNetV1, 4 bits": (_mobilenet, _SMALL),
    "CNV, 2w2a": (partial(_example, "cnv_2w2a"), _SMALL),
}
_QONNX: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    **_QCDQ,
    "CNV, 1w1a": (partial(_example, "cnv_1w1a"), _SMALL),
    "CNV, 1w2a": (partial(_example, "cnv_1w2a"), _SMALL),
    "TFC, 1w1a": (partial(_example, "tfc_1w1a"), (1, 28, 28)),
    "TFC, 1w2a": (partial(_example, "tfc_1w2a"), (1, 28, 28)),
    "TFC, 2w2a": (partial(_example, "tfc_2w2a"), (1, 28, 28)),
}


def _built(form: str, make: Callable[[], nn.Module], shape: tuple[int, ...]) -> Subject:
    """As its exporters write it by default, or, where that fails, with the exporter before it."""
    path = Path(folder()) / "network.onnx"
    try:
        _export(form, make, shape, path)
    except Exception:  # quantised biases and sums need the older one
        _export(form, make, shape, path, dynamo=False)
    return of_file(path, pixels_of(shape))


def _export(
    form: str, make: Callable[[], nn.Module], shape: tuple[int, ...], path: Path, **more: bool
) -> None:
    """Activations are calibrated by a few steps of training mode, batch norms after it."""
    from brevitas import export

    torch.manual_seed(0)
    network, x = make(), torch.from_numpy(pixels_of(shape, 32))
    network.train()
    with torch.no_grad():
        for _ in range(3):
            network(x)
    calibrated(network, lambda: network(x))
    write = export.export_qonnx if form == "qonnx" else export.export_onnx_qcdq
    write(network, torch.from_numpy(pixels_of(shape)[:1]), str(path), **more)


NETWORKS = {
    f"brevitas-{form}/{name}": Network(
        f"{name}, {form.upper()}", ("brevitas",), partial(_built, form, make, shape)
    )
    for form in ("qcdq", "qonnx")
    for name, (make, shape) in {"qcdq": _QCDQ, "qonnx": _QONNX}[form].items()
}
