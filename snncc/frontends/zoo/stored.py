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
from snncc.frontends.zoo.keys import Stored
from snncc.frontends.zoo.masked_autoencoder import MaskedShape

__all__ = ["base_shape", "large_shape", "masked_shape", "norm_shapes"]

_STEM = "downsample1_1.encode_conv.weight"
#: Of Spike-driven Transformer V2, whose other keys are much the same.
_OF_V2 = "ConvBlock1_1.0.Conv.pwconv1.weight"
_NORM = ".Norm"
_PRETRAINING = ("norm.", "pos_embed", "mask_token", "decoder_")


def _stored(tensors: Mapping[str, Any]) -> Stored:
    return Stored(tensors, (_STEM,), "E-SpikeFormer")


def norm_shapes(tensors: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Neuron, by module path -> shape of the norms that it has learnt."""
    shapes = _stored(tensors).shapes
    return {key.removesuffix(_NORM): size for key, size in shapes.items() if key.endswith(_NORM)}


def base_shape(tensors: Mapping[str, Any]) -> Shape:
    """Widths and depths of a base network.

    Raises:
        BadInputError: The tensors are not those of one.
    """
    stored = _stored(tensors)
    if _OF_V2 in stored:
        raise BadInputError(f"the checkpoint has {_OF_V2}, so it is no E-SpikeFormer")
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
    stored = _stored(tensors)
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
    encoder, stored = large_shape(tensors), _stored(tensors)
    if not any(key.startswith(_PRETRAINING) for key in stored.shapes):
        return MaskedShape(**vars(encoder), tokens=0, decoder=())
    blocks = stored.blocks("decoder_blocks")
    hidden = stored.rows("decoder_blocks.0.mlp.fc1.weight")
    decoder = (stored.rows("decoder_embed.weight"), blocks, hidden)
    tokens, last = _positions(stored, encoder.widths[-1])
    return MaskedShape(**vars(encoder), tokens=tokens, decoder=decoder, tokens_last=last)


def _positions(stored: Stored, width: int) -> tuple[int, bool]:
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
