"""What the tensors of an E-SpikeFormer checkpoint tell about the network, by key and shape.

Widths are read here and never taken from a class's defaults: published files differ from the code
published beside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from snncc.errors import BadInputError
from snncc.frontends.zoo.e_spikeformer import Shape
from snncc.frontends.zoo.e_spikeformer_large import LargeShape
from snncc.frontends.zoo.masked_autoencoder import MaskedShape

__all__ = ["base_shape", "large_shape", "masked_shape", "norm_shapes"]

_STEM = "downsample1_1.encode_conv.weight"
_NORM = ".Norm"
_PRETRAINING = ("norm.", "pos_embed", "mask_token", "decoder_")


class _Stored:
    """Shapes of tensors by key, without what wrappers put in front of all keys.

    Args:
        tensors: Of a checkpoint.

    Raises:
        BadInputError: They are not those of an E-SpikeFormer.
    """

    def __init__(self, tensors: Mapping[str, Any]) -> None:
        stem = next((key for key in tensors if key.endswith(_STEM)), None)
        if stem is None:
            raise BadInputError(f"the checkpoint has no {_STEM}, so it is no E-SpikeFormer")
        prefix = stem.removesuffix(_STEM)
        self.shapes = {
            key.removeprefix(prefix): tuple(tensor.shape) for key, tensor in tensors.items()
        }

    def __contains__(self, key: str) -> bool:
        return key in self.shapes

    def size(self, key: str, axis: int) -> int:
        """Size of an axis of a tensor.

        Raises:
            BadInputError: There is no such tensor, or it has fewer axes.
        """
        shape = self.shapes.get(key)
        if shape is None:
            raise BadInputError(f"the checkpoint has no {key}, so it is none of this family")
        if axis >= len(shape):
            raise BadInputError(f"{key} has shape {list(shape)}, so it is none of this family")
        return int(shape[axis])

    def rows(self, key: str) -> int:
        """Size of a tensor's first axis; see ``size``."""
        return self.size(key, 0)

    def rows_or_none(self, key: str) -> int:
        """Likewise; 0 if there is none."""
        return self.rows(key) if key in self else 0

    def blocks(self, stage: str) -> int:
        """How many blocks a list of blocks has."""
        numbers = {key.split(".")[1] for key in self.shapes if key.startswith(f"{stage}.")}
        return len(numbers)

    def channels(self) -> int:
        """Of the input."""
        shape = self.shapes[_STEM]
        if len(shape) != 4:
            raise BadInputError(f"{_STEM} has shape {list(shape)}, so it is no such convolution")
        return int(shape[1])


def norm_shapes(tensors: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Neuron, by module path -> shape of the norms that it has learnt."""
    shapes = _Stored(tensors).shapes
    return {key.removesuffix(_NORM): size for key, size in shapes.items() if key.endswith(_NORM)}


def base_shape(tensors: Mapping[str, Any]) -> Shape:
    """Widths and depths of a base network.

    Raises:
        BadInputError: The tensors are not those of one.
    """
    stored = _Stored(tensors)
    names = ("downsample1_2", "downsample2", "downsample3", "downsample4")
    first, second, third, fourth = (stored.rows(f"{name}.encode_conv.weight") for name in names)
    return Shape(
        widths=(first, second, third, fourth),
        blocks=(stored.blocks("block3"), stored.blocks("block4")),
        channels=stored.channels(),
        classes=stored.rows_or_none("head.weight"),
        layer_scale="block3.0.layer_scale1" in stored,
    )


def large_shape(tensors: Mapping[str, Any]) -> LargeShape:
    """Widths, depths and parts of a large network, fine-tuned or masked.

    Raises:
        BadInputError: The tensors are not those of one.
    """
    stored = _Stored(tensors)
    names = ("downsample1_2", "downsample2", "downsample3")
    first, second, third = (stored.rows(f"{name}.encode_conv.weight") for name in names)
    return LargeShape(
        widths=(first, second, third),
        blocks=stored.blocks("block3"),
        hidden=stored.rows("block3.0.attn.q_conv.0.conv1.0.weight"),
        rep_conv=stored.rows_or_none("block3.0.rep_conv.conv1.0.weight"),
        channels=stored.channels(),
        classes=stored.rows_or_none("head.weight"),
        distilled="head_kd.weight" in stored,
        layer_scale="block3.0.layer_scale1" in stored,
    )


def masked_shape(tensors: Mapping[str, Any]) -> MaskedShape:
    """The same of a masked autoencoder; its decoder may be missing as a whole.

    Raises:
        BadInputError: The tensors are not those of one.
    """
    encoder, stored = large_shape(tensors), _Stored(tensors)
    if not any(key.startswith(_PRETRAINING) for key in stored.shapes):
        return MaskedShape(**vars(encoder), tokens=0, decoder=())
    blocks = stored.blocks("decoder_blocks")
    hidden = stored.rows("decoder_blocks.0.mlp.fc1.weight")
    decoder = (stored.rows("decoder_embed.weight"), blocks, hidden)
    tokens, last = _positions(stored, encoder.widths[-1])
    return MaskedShape(**vars(encoder), tokens=tokens, decoder=decoder, tokens_last=last)


def _positions(stored: _Stored, width: int) -> tuple[int, bool]:
    """How many tokens ``pos_embed`` is for, and whether they are its last axis.

    Raises:
        BadInputError: Neither axis is as wide as the network.
    """
    one, two = stored.size("pos_embed", 1), stored.size("pos_embed", 2)
    if width not in (one, two):
        sizes = list(stored.shapes["pos_embed"])
        raise BadInputError(
            f"pos_embed has shape {sizes}, and the blocks have {width} channels; "
            f"[1, tokens, {width}] or [1, {width}, tokens] is expected"
        )
    return (one, False) if two == width else (two, True)
