"""A network that PyTorch's own PT2E quantiser has converted, as a .pt2 file."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch

from covered import small
from covered.subject import Network, Subject, folder, noise

__all__ = ["NETWORKS"]


def _converted() -> Subject:
    """LeNet, u8 activations and s8 weights, by the quantiser for x86."""
    from torchao.quantization.pt2e import quantize_pt2e
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    torch.manual_seed(0)
    network, x = small.lenet().eval(), torch.from_numpy(noise((1, 28, 28)))
    batch = {0: torch.export.Dim.AUTO}
    captured = torch.export.export(network, (x,), dynamic_shapes=(batch,)).module()
    quantiser = x86.X86InductorQuantizer().set_global(
        x86.get_default_x86_inductor_quantization_config()
    )
    prepared = quantize_pt2e.prepare_pt2e(captured, quantiser)
    for part in torch.from_numpy(noise((1, 28, 28), 4, 32)).split(8):
        prepared(part)
    converted = quantize_pt2e.convert_pt2e(prepared)
    path = folder() / "network.pt2"
    torch.export.save(torch.export.export(converted, (x,), dynamic_shapes=(batch,)), path)

    def framework(samples: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return np.asarray(converted(torch.from_numpy(samples)))

    return Subject(path, noise((1, 28, 28)), framework, {"trust_pickle": True})


NETWORKS = {
    "torchao/LeNet, PT2E": Network("LeNet, PT2E", ("torchao",), partial(_converted)),
}
