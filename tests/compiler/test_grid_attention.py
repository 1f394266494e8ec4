"""Training on the grid with attention, and the layer that it has in PyTorch."""

from __future__ import annotations

import cli_models
import numpy as np
import torch

import snncc
from snncc.frontends.zoo.e_spikeformer import TransformerBlock
from snncc.frontends.zoo.parts import Layers
from snncc.nn import SpikeAttention
from snncc.program import Attention


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
    assert model.report.changed == 0
    assert model.report.agreement == 1


def test_gradients_reach_q_k_and_v() -> None:
    torch.manual_seed(0)
    network = snncc.on_grid(cli_models.attending().eval(), weight_bits=8)
    network.train()(torch.randint(0, 256, (8, 1, 6, 6)).float()).sum().backward()
    reached = {name.split(".")[0] for name, p in network.named_parameters() if p.grad is not None}
    assert {"q", "k", "v"} <= reached


def test_an_attention_keeps_the_layers_within_its_module() -> None:
    torch.manual_seed(0)
    block = TransformerBlock(Layers(4), 8, heads=2, expand_v=1, mlp=2, scale=0.5)
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 8, 3, padding=1), block, Layers(4).fire())
    grid = snncc.on_grid(network.eval(), weight_bits=8, input_shape=(1, 6, 6))
    inside = {name.removeprefix("1.attn.").split(".")[0] for name, _ in grid.named_modules()}
    assert {"q_conv", "k_conv", "v_conv", "attention", "attn_spike", "proj_conv"} <= inside
    pixels = torch.randint(0, 256, (16, 1, 6, 6))
    model = snncc.compile(grid.eval(), calibration=pixels.numpy().astype(np.uint8), weight_bits=8)
    assert model.report.changed == 0
