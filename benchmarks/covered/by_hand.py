"""ReLU networks in which somebody has put an integer activation of four levels for each ReLU."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from covered import small
from covered.subject import Network, Subject, of_module

__all__ = ["NETWORKS"]


def _replaced(network: nn.Module) -> nn.Module:
    """Every ReLU is an IntegerFire of four levels."""
    from snncc.nn import IntegerFire

    for module in network.modules():
        for name, child in module.named_children():
            if isinstance(child, (nn.ReLU, nn.ReLU6)):
                setattr(module, name, IntegerFire(4))
    return network


class _Dense(nn.Module):
    """DenseNet with the neuron of its classifier as a module: torchvision calls F.relu there."""

    def __init__(self) -> None:
        super().__init__()
        self.net: Any = small.densenet()
        self.relu = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = self.relu(self.net.features(x))
        return self.net.classifier(features.mean((2, 3)))


_MAKERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "LeNet": (small.lenet, (1, 28, 28)),
    "VGG-11": (partial(small.vgg11, 8), (3, 32, 32)),
    "SqueezeNet": (small.squeezenet, (3, 64, 64)),
    "ResNet-18": (small.resnet18, (3, 64, 64)),
    "ResNet-50": (small.resnet50, (3, 64, 64)),
    "MobileNetV2": (small.mobilenet_v2, (3, 64, 64)),
    "DenseNet": (_Dense, (3, 64, 64)),
    "ShuffleNet": (small.shufflenet, (3, 64, 64)),
}


def _built(make: Callable[[], nn.Module], shape: tuple[int, ...]) -> Subject:
    torch.manual_seed(0)
    return of_module(_replaced(make()), shape)


NETWORKS = {
    f"by-hand/{name}": Network(
        f"{name} with IntegerFire(4)", ("torchvision",), partial(_built, make, shape)
    )
    for name, (make, shape) in _MAKERS.items()
}
