"""Masked pretraining of the large E-SpikeFormers: a sparse encoder, and a decoder for training.

The encoder is what compiles. Its convolutions are SpikeSparseConv, which have the keys and shapes
of plain ones: without a mask both are the same function, and weights move over as they are.
Transformer blocks see all tokens, masked or not, as published.

Source: Yao et al., "Scaling Spike-driven Transformer with Efficient Spike Firing Approximation
Training", arXiv:2411.16061, and the keys of its checkpoints; sparse encoding after SparK, Tian et
al., arXiv:2301.03580, the decoder after He et al., arXiv:2111.06377.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from snncc.frontends.zoo.e_spikeformer_large import ConvStages, LargeBlock, LargeShape
from snncc.frontends.zoo.parts import Layers, through
from snncc.nn import apply_patch_mask, masked

__all__ = ["MaskedAutoencoder"]

_EPS = 1e-6


class MaskedAutoencoder(ConvStages):
    """Encoder and decoder; called with images it is the encoder alone, which the compiler reads.

    Args:
        shape: Of the encoder; its head, layer scale and distillation are not looked at.
        layers: Makes neurons and convolutions; the latter are made sparse.
        heads: Of every attention in the encoder.
        scale: Likewise.
        decoder: Width and number of the decoder's blocks; 0 blocks: no decoder.
        decoder_heads: Of its attention.
        patches: Patches of an image, down and across; each is 16 by 16 pixels.
    """

    def __init__(
        self,
        shape: LargeShape,
        layers: Layers,
        heads: int = 8,
        scale: float = 0.125,
        decoder: tuple[int, int] = (256, 4),
        decoder_heads: int = 4,
        patches: tuple[int, int] = (14, 14),
    ) -> None:
        super().__init__(replace(layers, sparse=True), shape)
        width, (inner, depth), tokens = shape.widths[-1], decoder, patches[0] * patches[1]
        self.patches = patches
        plain = replace(shape, layer_scale=False)
        self.block3 = nn.ModuleList(
            LargeBlock(layers, plain, heads, scale) for _ in range(shape.blocks)
        )
        self.norm = nn.BatchNorm1d(width)
        self.pos_embed = nn.Parameter(torch.zeros(1, tokens, width), requires_grad=False)
        if depth:
            self.decoder_embed = nn.Linear(width, inner)
            self.mask_token = nn.Parameter(torch.zeros(1, 1, inner))  # no token is left out
            position = _sines(inner, *patches)[None]
            self.decoder_pos_embed = nn.Parameter(position, requires_grad=False)
            self.decoder_blocks = nn.ModuleList(_Block(inner, decoder_heads) for _ in range(depth))
            self.decoder_norm = nn.LayerNorm(inner, _EPS)
            self.decoder_pred = nn.Linear(inner, 16 * 16 * shape.channels)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the last potentials ``[N, C, H / 16, W / 16]`` of normalised images.

        The batch norm ``norm`` is the decoder's: fine-tuning drops it.
        """
        return through(self.block3, self.embedded(x))

    def reconstruct(self, x: Tensor, mask: Tensor) -> Tensor:
        """Returns patches ``[N, patches, 256 * channels]`` as the decoder sees them behind a mask.

        Args:
            x: Normalised images ``[N, channels, H, W]``.
            mask: Zeros and ones ``[N, 1, *patches]``, 1 where the encoder sees the image.
        """
        with masked(self, mask):
            encoded = self(apply_patch_mask(x, mask))
        tokens = self.norm(encoded.flatten(2)).transpose(1, 2)
        y = self.decoder_embed(tokens) + self.decoder_pos_embed
        patches: Tensor = self.decoder_pred(self.decoder_norm(through(self.decoder_blocks, y)))
        return patches

    def loss(self, x: Tensor, mask: Tensor) -> Tensor:
        """Returns the mean squared error over masked patches, each standardised by itself."""
        wanted = _patches(x)
        spread = (wanted.var(-1, keepdim=True) + _EPS).sqrt()
        wanted = (wanted - wanted.mean(-1, keepdim=True)) / spread
        error = (self.reconstruct(x, mask) - wanted).square().mean(-1)
        hidden = 1 - mask.flatten(1)
        return (error * hidden).sum() / hidden.sum()


class _Block(nn.Module):
    """A plain transformer block: softmax attention and an MLP, each behind a layer norm."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, _EPS)
        self.attn = _SoftmaxAttention(width, heads)
        self.norm2 = nn.LayerNorm(width, _EPS)
        self.mlp = nn.ModuleDict(
            {"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)}
        )

    def forward(self, x: Tensor) -> Tensor:
        """Returns tokens of the shape of ``x``, ``[N, tokens, C]``."""
        x = x + self.attn(self.norm1(x))
        y = nn.functional.gelu(self.mlp["fc1"](self.norm2(x)))
        added: Tensor = self.mlp["fc2"](y)
        return x + added


class _SoftmaxAttention(nn.Module):
    """Queries, keys and values come of one linear layer without bias."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Returns tokens of the shape of ``x``, ``[N, tokens, C]``."""
        n, tokens, _ = x.shape
        q, k, v = self.qkv(x).reshape(n, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        y = nn.functional.scaled_dot_product_attention(q, k, v)
        added: Tensor = self.proj(y.transpose(1, 2).flatten(2))
        return added


def _patches(x: Tensor) -> Tensor:
    """Returns the pixels of 16 by 16 patches, channels last: ``[N, patches, 256 * channels]``."""
    n, channels, height, width = x.shape
    y = x.reshape(n, channels, height // 16, 16, width // 16, 16)
    return y.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)


def _sines(width: int, rows: int, columns: int) -> Tensor:
    """Returns embeddings of positions ``[rows * columns, width]``: a half of it for each axis."""
    column, row = torch.arange(columns).repeat(rows), torch.arange(rows).repeat_interleave(columns)
    return torch.cat([_waves(column, width // 2), _waves(row, width // 2)], 1)


def _waves(position: Tensor, width: int) -> Tensor:
    rates = 10000.0 ** (-torch.arange(width // 2) / (width / 2))
    angles = position[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], 1)
