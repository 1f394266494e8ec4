"""Networks of torchvision and LeNet, at a width that a table of a hundred rows can pay."""

from __future__ import annotations

from typing import Any

from torch import nn

__all__ = ["densenet", "lenet", "mobilenet_v2", "resnet18", "resnet50", "shufflenet", "squeezenet"]


def lenet() -> nn.Module:
    """LeNet-5 with ReLUs."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
    )  # fmt: skip


def squeezenet() -> nn.Module:
    """SqueezeNet 1.1 at its own width."""
    from torchvision import models

    return models.squeezenet1_1(num_classes=10)


def resnet18() -> nn.Module:
    """ResNet-18 of a quarter of the width."""
    from torchvision.models import resnet

    return _narrowed(resnet.ResNet(resnet.BasicBlock, [2, 2, 2, 2], num_classes=10))


def resnet50() -> nn.Module:
    """The bottleneck ResNet, two blocks a stage, of a quarter of the width."""
    from torchvision.models import resnet

    return _narrowed(resnet.ResNet(resnet.Bottleneck, [2, 2, 2, 2], num_classes=10))


def _narrowed(network: nn.Module, share: int = 4) -> nn.Module:
    """Every layer with a quarter of its channels."""
    for module in network.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.Conv2d):
                ins = child.in_channels if child.in_channels == 3 else child.in_channels // share
                outs, has_bias = child.out_channels // share, child.bias is not None
                kernel: Any = child.kernel_size
                more: Any = {"stride": child.stride, "padding": child.padding, "bias": has_bias}
                new: nn.Module = nn.Conv2d(ins, outs, kernel, **more)
            elif isinstance(child, nn.BatchNorm2d):
                new = nn.BatchNorm2d(child.num_features // share)
            elif isinstance(child, nn.Linear):
                new = nn.Linear(child.in_features // share, child.out_features)
            else:
                continue
            setattr(module, name, new)
    return network


def mobilenet_v2() -> nn.Module:
    """MobileNetV2 of width 0.25."""
    from torchvision import models

    return models.mobilenet_v2(num_classes=10, width_mult=0.25)


def vgg11(width: int = 16) -> nn.Module:
    """VGG-11 with batch norms, of a quarter of the width and without its last pool.

    So 112 pixels end in the 7x7 that 224 do; fewer are spread to as many, unevenly.
    """
    from torchvision.models import vgg

    cfg = [width, "M", 2 * width, "M", *[4 * width] * 2, "M", *[8 * width] * 2, "M",
           *[8 * width] * 2]  # fmt: skip
    network = vgg.VGG(vgg.make_layers(cfg, batch_norm=True), num_classes=10)
    network.classifier = nn.Sequential(
        nn.Linear(8 * width * 49, 256),
        nn.ReLU(),
        nn.Linear(256, 256),
        nn.ReLU(),
        nn.Linear(256, 10),
    )
    return network


def densenet() -> nn.Module:
    """DenseNet of three blocks of three layers."""
    from torchvision import models

    return models.DenseNet(8, (3, 3, 3), 16, num_classes=10)


def shufflenet() -> nn.Module:
    """ShuffleNetV2, two units a stage, of a quarter of the width."""
    from torchvision import models

    return models.ShuffleNetV2([2, 2, 2], [8, 16, 32, 64, 128], num_classes=10)
