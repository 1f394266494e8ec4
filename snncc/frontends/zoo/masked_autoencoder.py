"""Masked pretraining of the large E-SpikeFormers: a sparse encoder, and a decoder for training.

The encoder is what compiles. Its convolutions are SpikeSparseConv, which have the keys and shapes
of plain ones: without a mask both are the same function, and weights move over as they are.
Transformer blocks see all tokens, masked or not, as published.

Source: Yao et al., "Scaling Spike-driven Transformer with Efficient Spike Firing Approximation
Training", arXiv:2411.16061, and the keys of its checkpoints; sparse encoding after SparK, Tian et
al., arXiv:2301.03580, the decoder after He et al., arXiv:2111.06377.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isqrt

import torch
from torch import Tensor, nn

from snncc.frontends.zoo.e_spikeformer_large import ConvStages, LargeBlock, LargeShape
from snncc.frontends.zoo.parts import Layers, through
from snncc.nn import apply_patch_mask, masked

__all__ = ["MaskedAutoencoder", "MaskedShape"]

PATCH = 16  # pixels of a patch, down and across
_TOKENS = 196  # of ImageNet's pictures
_EPS = 1e-6


@dataclass(frozen=True)
class MaskedShape(LargeShape):
    """What the weights of a masked autoencoder tell about it.

    Head, layer scale and distillation of a LargeShape are not looked at.

    Attributes:
        tokens: Patches of an image; 0: nothing tells how many, as where the encoder stands alone.
        decoder: Width of the decoder, how many blocks it has, and channels inside their MLP; ():
            the encoder stands alone.
        tokens_last: ``pos_embed`` is [1, width, tokens], not [1, tokens, width]: both are
            published.
    """

    tokens: int = _TOKENS
    decoder: tuple[int, int, int] | tuple[()] = (256, 4, 1024)
    tokens_last: bool = False

    @property
    def square(self) -> tuple[int, int] | None:
        """Patches down and across of a square image; none if there is none of so many."""
        tokens = self.tokens or _TOKENS
        side = isqrt(tokens)
        return (side, side) if side * side == tokens else None


class MaskedAutoencoder(ConvStages):
    """Encoder and decoder; called with images it is the encoder alone, which the compiler reads.

    Args:
        shape: Of encoder and decoder.
        layers: Makes neurons and convolutions; the latter are made sparse.
        heads: Of every attention in the encoder.
        scale: Likewise.
        patches: Patches of an image, down and across; default: as many.
        decoder_heads: Of the decoder's attention.

    Raises:
        ValueError: There are not as many patches as tokens.
    """

    def __init__(
        self,
        shape: MaskedShape,
        layers: Layers,
        heads: int = 8,
        scale: float = 0.125,
        patches: tuple[int, int] | None = None,
        decoder_heads: int = 4,
    ) -> None:
        super().__init__(replace(layers, sparse=True), shape)
        grid = patches or shape.square
        if grid is None or shape.tokens not in (0, grid[0] * grid[1]):
            raise ValueError(f"patches {grid} are not {shape.tokens}")
        self.patches = grid
        if self.default_cfg:
            sides = (shape.channels, PATCH * grid[0], PATCH * grid[1])
            self.default_cfg = {**self.default_cfg, "input_size": sides}
        plain = replace(shape, layer_scale=False)
        self.block3 = nn.ModuleList(
            LargeBlock(layers, plain, heads, scale) for _ in range(shape.blocks)
        )
        if shape.decoder:
            self._add_decoder(shape, *shape.decoder, decoder_heads)

    def _add_decoder(
        self, shape: MaskedShape, inner: int, depth: int, hidden: int, heads: int
    ) -> None:
        width = shape.widths[-1]
        self.norm = nn.BatchNorm1d(width)
        sizes = (width, shape.tokens) if shape.tokens_last else (shape.tokens, width)
        self.pos_embed = nn.Parameter(torch.zeros(1, *sizes), requires_grad=False)
        self.decoder_embed = nn.Linear(width, inner)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, inner))  # no token is left out
        position = _sines(inner, *self.patches)[None]
        self.decoder_pos_embed = nn.Parameter(position, requires_grad=False)
        self.decoder_blocks = nn.ModuleList(_Block(inner, hidden, heads) for _ in range(depth))
        self.decoder_norm = nn.LayerNorm(inner, _EPS)
        self.decoder_pred = nn.Linear(inner, PATCH * PATCH * shape.channels)

    @property
    def left_out(self) -> tuple[str, ...]:
        """Parameters and modules that compiled networks do not have: pretraining alone reads them.

        The batch norm ``norm`` is the decoder's: fine-tuning drops it.
        """
        alone = ("norm", "pos_embed", "mask_token")
        own = dict.fromkeys(key.split(".")[0] for key, _ in self.named_parameters())
        return tuple(name for name in own if name in alone or name.startswith("decoder_"))

    def forward(self, x: Tensor) -> Tensor:
        """Returns the last potentials ``[N, C, H / 16, W / 16]`` of normalised images."""
        return through(self.block3, self.embedded(x))

    def reconstruct(self, x: Tensor, mask: Tensor) -> Tensor:
        """Returns patches ``[N, patches, 256 * channels]`` as the decoder sees them after a mask.

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
    """A plain transformer block: softmax attention and an MLP, each after a layer norm."""

    def __init__(self, width: int, hidden: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, _EPS)
        self.attn = _SoftmaxAttention(width, heads)
        self.norm2 = nn.LayerNorm(width, _EPS)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, hidden), "fc2": nn.Linear(hidden, width)})

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
    y = x.reshape(n, channels, height // PATCH, PATCH, width // PATCH, PATCH)
    return y.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)


def _sines(width: int, rows: int, columns: int) -> Tensor:
    """Returns embeddings of positions ``[rows * columns, width]``: a half of it for each axis."""
    column, row = torch.arange(columns).repeat(rows), torch.arange(rows).repeat_interleave(columns)
    return torch.cat([_waves(column, width // 2), _waves(row, width // 2)], 1)


def _waves(position: Tensor, width: int) -> Tensor:
    rates = 10000.0 ** (-torch.arange(width // 2) / (width / 2))
    angles = position[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], 1)
