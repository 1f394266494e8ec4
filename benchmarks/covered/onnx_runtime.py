"""Float networks that ONNX Runtime's static quantiser has written as QDQ files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from covered import small
from covered.files import of_file
from covered.subject import Network, Subject, calibrated, folder, noise

__all__ = ["NETWORKS"]

Array = npt.NDArray[Any]


class _Reader:
    """Calibration samples, one after the other."""

    def __init__(self, samples: Array) -> None:
        self.left: Iterator[Array] = iter(np.split(samples, len(samples)))

    def get_next(self) -> dict[str, Array] | None:
        """The next one."""
        sample = next(self.left, None)
        return None if sample is None else {"x": sample}


def _exported(make: Callable[[], nn.Module], shape: tuple[int, ...], path: Path) -> None:
    torch.manual_seed(0)
    network = make()
    calibrated(network, lambda: network(torch.from_numpy(noise(shape, 3, 32))))
    torch.onnx.export(
        network, (torch.zeros(1, *shape),), path, input_names=["x"], output_names=["y"],
        dynamo=True, external_data=False, verbose=False,
    )  # fmt: skip


def _built(make: Callable[[], nn.Module], shape: tuple[int, ...], per_channel: bool) -> Subject:
    """u8 activations, s8 weights, after ONNX Runtime's own preparation of the file."""
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    home = folder()
    _exported(make, shape, home / "float.onnx")
    quant_pre_process(home / "float.onnx", home / "prepared.onnx")
    quantize_static(
        home / "prepared.onnx", home / "network.onnx", _Reader(noise(shape, 4, 32)),
        quant_format=QuantFormat.QDQ, per_channel=per_channel,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
    )  # fmt: skip
    return of_file(home / "network.onnx", noise(shape))


_MAKERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], bool]] = {
    "LeNet": (small.lenet, (1, 28, 28), False),
    "LeNet, per channel": (small.lenet, (1, 28, 28), True),
    "SqueezeNet": (small.squeezenet, (3, 64, 64), False),
    "ResNet-18": (small.resnet18, (3, 64, 64), False),
    "ResNet-18, per channel": (small.resnet18, (3, 64, 64), True),
    "MobileNetV2, per channel": (small.mobilenet_v2, (3, 64, 64), True),
    "VGG-11 at 112 pixels": (small.vgg11, (3, 112, 112), True),
}

NETWORKS = {
    f"onnxruntime/{name}": Network(
        f"{name}, static QDQ", ("torchvision",), partial(_built, make, shape, per_channel)
    )
    for name, (make, shape, per_channel) in _MAKERS.items()
}
