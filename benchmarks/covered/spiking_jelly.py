"""SpikingJelly's examples and model zoo, as they are in the package."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from covered.subject import Network, Subject, calibrated, of_module

__all__ = ["NETWORKS"]

_T = 4
_SMALL = (3, 32, 32)


def _reset(network: nn.Module) -> None:
    from spikingjelly.activation_based import functional

    functional.reset_net(network)


def _neuron(name: str, **more: Any) -> dict[str, Any]:
    """The neuron's class and its arguments, as model functions take them."""
    from spikingjelly.activation_based import neuron

    return {"spiking_neuron": getattr(neuron, name), **more}


class _Repeated(nn.Module):
    """A network of multi-step modules that sees a picture in every timestep; the mean over T."""

    def __init__(self, network: nn.Module, mean: bool = True) -> None:
        from spikingjelly.activation_based import functional

        super().__init__()
        self.network, self.mean = network, mean
        functional.set_step_mode(network, "m")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.network(x.unsqueeze(0).repeat(_T, *(1,) * x.dim()))
        return out.mean(0) if self.mean else out


class _Looped(nn.Module):
    """A network of single-step modules, called once per timestep; the mean over T."""

    def __init__(self, network: nn.Module, T: int = _T) -> None:
        super().__init__()
        self.network, self.T = network, T

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.network(x)
        for _ in range(self.T - 1):
            out = out + self.network(x)
        return out / self.T


def _module(make: Callable[[], nn.Module], shape: tuple[int, ...] = _SMALL) -> Subject:
    torch.manual_seed(0)
    return of_module(make(), shape, _reset)


def _csnn() -> nn.Module:
    from spikingjelly.activation_based.examples.conv_fashion_mnist import CSNN

    return CSNN(_T, 16)


def _vgg(node: str) -> nn.Module:
    from spikingjelly.activation_based.model import spiking_vgg

    cfg = [16, "M", 32, "M", 32, 64]  # 7x7 before the classifier, as of 224 pixels
    network = spiking_vgg.SpikingVGG(
        cfg, batch_norm=True, norm_layer=_norm(), num_classes=10, **_neuron(node)
    )
    network.classifier = nn.Sequential(*_narrow(network.classifier, 64))
    return _Repeated(network)


def _narrow(classifier: nn.Sequential, width: int) -> list[nn.Module]:
    """Its linear layers with fewer features."""
    from spikingjelly.activation_based import layer

    found: list[nn.Module] = []
    for module in classifier:
        if isinstance(module, nn.Linear):
            ins = width * 49 if module.in_features > 5000 else width
            outs = width if module.out_features > 1000 else module.out_features
            module = layer.Linear(ins, outs)
        found.append(module)
    return found


def _norm() -> Any:
    from spikingjelly.activation_based import layer

    return layer.BatchNorm2d


def _fc(multi: bool) -> nn.Module:
    from spikingjelly.activation_based.examples.lif_fc_mnist import SNN

    network = SNN(tau=2.0)
    return _Repeated(network) if multi else _Looped(network)


def _converted(multi: bool) -> nn.Module:
    """The CNN of the conversion tutorial, converted on noise; T = 8."""
    from spikingjelly.activation_based import ann2snn, functional
    from spikingjelly.activation_based.ann2snn.sample_models import mnist_cnn

    ann = mnist_cnn.CNN()
    data = [(torch.rand(16, 1, 28, 28), torch.zeros(16)) for _ in range(2)]
    calibrated(ann, lambda: ann(data[0][0]))
    recipe = ann2snn.RateCodingRecipe(dataloader=data, mode="Max")
    snn = ann2snn.FXConverter(recipe=recipe, device="cpu").convert(ann)
    if not multi:
        return _Looped(snn, 8)
    functional.set_step_mode(snn, "m")
    return _Repeated(snn)


def _plif(name: str, node: str = "ParametricLIFNode") -> nn.Module:
    from spikingjelly.activation_based import layer
    from spikingjelly.activation_based.model import parametric_lif_net

    network = getattr(parametric_lif_net, name)(channels=8, **_neuron(node))
    for i, module in enumerate(network.conv_fc):
        if isinstance(module, nn.Linear):  # 2048 features of the published size
            ins, outs = module.in_features, module.out_features
            sizes = 64 if ins == 2048 else ins, 64 if outs == 2048 else outs
            network.conv_fc[i] = layer.Linear(*sizes)
    return _Repeated(network)


def _resnet(kind: str, block: str, node: str, **more: Any) -> nn.Module:
    """SpikingResNet or SEWResNet, one block per stage, 16 channels in each branch at first."""
    from spikingjelly.activation_based.model import sew_resnet, spiking_resnet

    home = sew_resnet if kind == "SEWResNet" else spiking_resnet
    made = getattr(home, kind)
    network = made(
        getattr(home, block), [1, 1, 1, 1], num_classes=10, **more,
        **_neuron(node, detach_reset=True),
    )  # fmt: skip
    return _Repeated(network)


def _sew_50() -> nn.Module:
    from spikingjelly.activation_based.model import sew_resnet

    return _Repeated(
        sew_resnet.SEWResNet(
            sew_resnet.Bottleneck, [2, 1, 1, 1], num_classes=10, cnf="ADD", **_neuron("IFNode")
        )
    )


def _of_zoo(home: str, name: str, **more: Any) -> nn.Module:
    from importlib import import_module

    found = import_module(f"spikingjelly.activation_based.model.{home}")
    return getattr(found, name)(**more)


def _with_node(node: str, multi: bool = True) -> nn.Module:
    """A small convolutional network of any of its nodes."""
    from spikingjelly.activation_based import layer, neuron

    made = getattr(neuron, node)
    network = nn.Sequential(
        layer.Conv2d(3, 8, 3, padding=1, bias=False), layer.BatchNorm2d(8), made(),
        layer.AvgPool2d(4), layer.Conv2d(8, 16, 3, padding=1, bias=False),
        layer.BatchNorm2d(16), made(), layer.Flatten(), layer.Linear(16 * 64, 10),
    )  # fmt: skip
    return _Repeated(network) if multi else _Looped(network)


_TRANSFORMERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "Spikformer": ("spikformer", "Spikformer",
        {"img_size_h": 32, "img_size_w": 32, "patch_size": 16, "embed_dims": 64, "depths": 1}),
    "SpikeDrivenTransformer": ("spike_driven_transformer", "SpikeDrivenTransformer",
        {"embed_dims": 64, "depths": 1, "pooling_stat": "0011"}),
    "QKFormer": ("qkformer", "QKFormer",
        {"embed_dims": 64, "num_heads": (2, 2, 2), "depths": (1, 1, 1)}),
    "MaxFormer": ("maxformer", "MaxFormer",
        {"embed_dims": 64, "depths": (1, 1, 1), "cifar": True}),
}  # fmt: skip

_MAKERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "CSNN of its Fashion-MNIST example": (_csnn, (1, 28, 28)),
    **{f"SpikingVGG with batch norms, {node}": (partial(_vgg, node), (3, 28, 28))
       for node in ("IFNode", "LIFNode", "ParametricLIFNode", "ILIFNode")},
    "lif_fc, multi-step": (partial(_fc, True), (1, 28, 28)),
    "lif_fc, a loop": (partial(_fc, False), (1, 28, 28)),
    "ann2snn CNN, multi-step": (partial(_converted, True), (1, 28, 28)),
    "ann2snn CNN, a loop": (partial(_converted, False), (1, 28, 28)),
    "parametric_lif_net MNIST": (partial(_plif, "MNISTNet"), (1, 28, 28)),
    "parametric_lif_net Fashion-MNIST": (partial(_plif, "FashionMNISTNet"), (1, 28, 28)),
    "parametric_lif_net N-MNIST": (partial(_plif, "NMNISTNet"), (2, 34, 34)),
    "parametric_lif_net CIFAR-10": (partial(_plif, "CIFAR10Net"), _SMALL),
    "SpikingResNet, basic, IF": (partial(_resnet, "SpikingResNet", "BasicBlock", "IFNode"), _SMALL),
    "SpikingResNet, basic, LIF":
        (partial(_resnet, "SpikingResNet", "BasicBlock", "LIFNode"), _SMALL),
    "SpikingResNet, bottleneck":
        (partial(_resnet, "SpikingResNet", "Bottleneck", "IFNode"), _SMALL),
    "SEW-ResNet ADD, 18":
        (partial(_resnet, "SEWResNet", "BasicBlock", "IFNode", cnf="ADD"), _SMALL),
    "SEW-ResNet ADD, 50": (_sew_50, _SMALL),
    "SEW-ResNet AND": (partial(_resnet, "SEWResNet", "BasicBlock", "IFNode", cnf="AND"), _SMALL),
    "SEW-ResNet IAND": (partial(_resnet, "SEWResNet", "BasicBlock", "IFNode", cnf="IAND"), _SMALL),
    **{name: (partial(_of_zoo, home, cls, num_classes=10, T=_T, **more), _SMALL)
       for name, (home, cls, more) in _TRANSFORMERS.items()},
    "MS-ResNet": (partial(_of_zoo, "ms_resnet", "MSResNet", T=_T, num_classes=10,
                          layers=(1, 1, 1, 1), base_channels=16), _SMALL),
    "Max-ResNet": (partial(_of_zoo, "ms_resnet", "max_resnet18", T=_T), _SMALL),
    "MA-SNN": (partial(_of_zoo, "masnn", "MASNN", T=_T, channels=(16, 16, 16), fc_hidden=32,
                       reduction_t=2), (_T, 2, 32, 32)),
    "Att-MS-ResNet": (partial(_of_zoo, "masnn", "AttMSResNet", T=_T, num_classes=10,
                              layers=(1, 1, 1, 1), base_channels=16), _SMALL),
    "OTTT's LIF": (partial(_with_node, "OTTTLIFNode", False), _SMALL),
    "KLIF": (partial(_with_node, "KLIFNode"), _SMALL),
    "QIF": (partial(_with_node, "QIFNode"), _SMALL),
}  # fmt: skip


def _built(make: Callable[[], nn.Module], shape: tuple[int, ...]) -> Subject:
    if len(shape) == 4:
        torch.manual_seed(0)
        return of_module(make(), shape, _reset, batch_first=False, timesteps=shape[0])
    return _module(make, shape)


NETWORKS = {
    f"spikingjelly/{name}": Network(name, ("spikingjelly",), partial(_built, make, shape))
    for name, (make, shape) in _MAKERS.items()
}
