"""What a user can choose when a network is compiled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from snncc.backends.chip.chips import CHIPS, chip
from snncc.errors import Option, UsageError, Words

__all__ = ["DEFAULT_BITS", "InputOptions", "Options", "bits_of"]

#: Weight bits where neither the user nor a target says how many.
DEFAULT_BITS = 16


@dataclass(frozen=True)
class InputOptions:
    """How the input becomes integers.

    Attributes:
        mode: ``u8``: raw pixels, exact; ``f32``: real values on a grid of 256 steps; none: ``u8``
            if a normalisation is known, else ``f32``.
        mean, std: Of x / 255, per channel or one for all; default: the module's ``default_cfg``.
        range: (low, high) of an f32 input; default: that of the calibration data.
    """

    mode: str | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    range: tuple[float, float] | None = None


@dataclass(frozen=True)
class Options:
    """What a user can choose; the defaults are good.

    Attributes:
        name: Of the network; default: the file's or class's.
        input_shape: One sample; default: the module's ``default_cfg``, or the graph's.
        timesteps: T of a module whose input is a sequence of such; default: ``default_cfg``.
        batch_first: The module reads sequences as [N, T, ...], not [T, N, ...]; default likewise.
        target: What to compile for, ``loihi2``: weights and potentials fit its bits; default: any
            engine.
        weight_bits: 4 to 24; or ``auto``: 8, and 16 where calibration shows most changes. Default:
            16, or the most that the target takes.
        rounding: Of weights: ``nearest`` (where pixels are read: so that errors cancel over
            neighbours), or ``data``: least error on the calibration data.
        bias_correction: Take each channel's mean error on the calibration data off its bias;
            default: with rounding ``data``. Where calibration data chooses anything, its first
            half does that and changes are measured on the second; bits beside weights or biases
            are judged on the second half of that first half, which has not chosen the others.
        no_neuron_between: What becomes of two layers with no neuron between: ``merge``: one, with
            the product of their weights; what cannot be merged exactly is refused. ``graded``: the
            second reads the first one's potential, a signed integer. ``auto``: whichever takes less
            bytes times time, and the second form where the first is not exact.
        input: See InputOptions.
        patch_mask: Patches (h, w) of the patch mask that networks with sparse layers then take as
            second input; None: they run on whole images. Image and sparse layers are masked, as
            ``with snncc.nn.masked(net, mask): net(apply_patch_mask(x, mask))`` does.
        until: Compile only up to this node or module; its value is the result.
        results: Of a network that returns several, the names of those to compile, in their order;
            default: all.
        host: The network's last linear layer or layers, where one reads potentials without a neuron
            before it: the host computes them, and what is affine after them. The engines'
            results, bit-equal, are what that reads.
        leaves: Neurons of the network's own code, by the name of their class: fields of an
            IntegerFireSpec or StatefulFireSpec, as ``{"MultiSpike": {"D": 4}}``; or ``auto``: those
            that experiments find. Both are proved.
        verify_samples: Compare engines on so many samples, as far as there are; default: 32, of
            large networks fewer.
        keep_stages: Store earlier graphs with their weights.
        dump_ir: Write the graph's text after every pass there.
        trust_pickle: Let a ``.pt2`` file run code, which its reader cannot be kept from.
        calibration_limit: Use only so many calibration samples, from the first.
        origins: Option -> where its value came from, for the report.
        checkpoint: What became of the checkpoint that the network was read from, for the report.
    """

    name: str | None = None
    input_shape: Sequence[int] | None = None
    timesteps: int | None = None
    batch_first: bool | None = None
    target: str | None = None
    weight_bits: int | str | None = None
    rounding: str = "nearest"
    bias_correction: bool | None = None
    no_neuron_between: str = "auto"
    input: InputOptions = field(default_factory=InputOptions)
    patch_mask: Sequence[int] | None = None
    until: str | None = None
    results: str | Sequence[str] | None = None
    host: str | Sequence[str] | None = None
    leaves: Mapping[str, Mapping[str, Any]] | str | None = None
    verify_samples: int | None = None
    keep_stages: bool = False
    dump_ir: str | Path | None = None
    trust_pickle: bool = False
    calibration_limit: int | None = None
    origins: Mapping[str, str] = field(default_factory=dict)
    checkpoint: Mapping[str, Any] | None = None


def bits_of(options: Options) -> int | str:
    """Weight bits as chosen, else the target's, else 16; or ``auto``.

    Raises:
        UsageError: There is no such target, or it does not take as many.
    """
    given = options.weight_bits
    if options.target is None:
        return DEFAULT_BITS if given is None else given
    target = Option("target", options.target)
    if options.target not in CHIPS:
        raise UsageError(Words(target, f": no such target; there are {', '.join(CHIPS)}"))
    most = chip(options.target).weight_bits
    if given is None:
        return most
    if isinstance(given, str) or given > most:
        told = f" takes weights of up to {most} bits, not {given}; leave "
        raise UsageError(Words(target, told, Option("weight_bits"), " out"))
    return given
