"""Training on the grid with attention, and the layer that it has in PyTorch."""

from __future__ import annotations

import cli_models
import numpy as np
import torch

import snncc
from snncc.ir.program import Attention
from snncc.nn import SpikeAttention


def test_the_layer_is_the_product_of_its_heads() -> None:
    q, k, v = (torch.randint(0, 5, s).float() for s in ((2, 6, 3, 4), (2, 6, 5), (2, 4, 5)))
    y = SpikeAttention(2)(q, k, v)
    by_head = (x.reshape(2, 2, -1, x[0, 0].numel()) for x in (q, k, v))
    expected = torch.einsum("bhin,bhim,bhjm->bhjn", *by_head).reshape(2, 4, 3, 4)
    assert torch.equal(y, expected)


def test_a_network_on_the_grid_compiles_without_a_changed_activation() -> None:
    torch.manual_seed(0)
    network = snncc.on_grid(cli_models.attending().eval(), weight_bits=8)
    for weight in (w for w in network.parameters() if w.requires_grad):
        with torch.no_grad():  # as if it had been trained
            weight += 0.8 * torch.randn_like(weight) * (weight.abs() > 1)
    pixels = np.random.default_rng(0).integers(0, 256, (64, 1, 6, 6)).astype(np.uint8)
    model = snncc.compile(network.eval(), calibration=pixels, weight_bits=8)
    assert [n.heads for n in model.program.nodes if isinstance(n, Attention)] == [2]
    assert model.report["changed"] == 0
    assert model.report["agreement"] == 1


def test_gradients_reach_q_k_and_v() -> None:
    torch.manual_seed(0)
    network = snncc.on_grid(cli_models.attending().eval(), weight_bits=8)
    network.train()(torch.randint(0, 256, (8, 1, 6, 6)).float()).sum().backward()
    reached = {name.split(".")[0] for name, p in network.named_parameters() if p.grad is not None}
    assert {"q", "k", "v"} <= reached
