"""What a user gives to the compiler: a network and options, read and checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snncc.compiler.options import InputOptions, Options, bits_of
from snncc.errors import Option, UsageError, Words

if TYPE_CHECKING:
    import torch  # noqa: TID251 (for annotations)

    from snncc.frontends.sequences import Frames

__all__ = ["Given", "frames_of", "merged", "read"]

_SHAPE = Option("input_shape", like="C,H,W")


@dataclass(frozen=True)
class Given:
    """A network and what was chosen for it.

    Attributes:
        network: A module, or the path of a file.
        options: All choices.
        name: Of the network.
        bits: Of weights, or ``auto``.
        patches: Of the patch mask (h, w), if the network is to take one.
        config: The module's ``default_cfg``; empty for a file.
    """

    network: Any
    options: Options
    name: str
    bits: int | str
    patches: tuple[int, int] | None
    config: Mapping[str, Any]

    @property
    def module(self) -> Any:
        """The module; None for a file, which stands alone."""
        return None if isinstance(self.network, (str, Path)) else self.network

    @property
    def dump_dir(self) -> Path | None:
        """Where the graph is written as text, if anywhere."""
        return Path(self.options.dump_ir) if self.options.dump_ir is not None else None

    @property
    def frames(self) -> Frames:
        """Whether the module reads sequences, and how.

        Raises:
            UsageError: Options or ``default_cfg`` make no sense.
        """
        return frames_of(self.options.timesteps, self.options.batch_first, self.config)

    @property
    def shape(self) -> tuple[int, ...]:
        """What the module takes: one sample, of a sequence one timestep.

        Raises:
            UsageError: Neither options nor ``default_cfg`` say so.
        """
        shape = self.options.input_shape or self.config.get("input_size")
        if shape is None:
            raise UsageError(Words("the input's shape is not known; give ", _SHAPE))
        try:
            return tuple(int(s) for s in shape)
        except (TypeError, ValueError) as e:
            told = f"the module's default_cfg has input_size {shape!r}; give "
            raise UsageError(Words(told, _SHAPE)) from e


def merged(options: Options | None, more: Mapping[str, Any]) -> Options:
    """The options, or those that keywords make.

    Raises:
        UsageError: Both are given, or a keyword is no field of Options, or of another type.
    """
    if options is not None and more:
        raise UsageError("give either options or keywords")
    try:
        found = options or Options(**more)
    except TypeError as e:
        raise UsageError(f"compile: {e}") from e
    if not isinstance(found.input, InputOptions):
        told = "input=snncc.InputOptions(mean=..., std=...) is expected"
        raise UsageError(f"compile: input is a {type(found.input).__name__}; {told}")
    return found


def read(network: torch.nn.Module | str | Path, options: Options) -> Given:
    """The network and the options, as far as they can be checked before any work.

    Raises:
        UsageError: An option makes no sense.
    """
    is_path = isinstance(network, (str, Path))
    network = network if is_path else _unwrapped(network)
    bits = bits_of(options)
    config = getattr(network, "default_cfg", None)  # the user's: it may be anything
    default = Path(str(network)).stem if is_path else type(network).__name__.lower()
    patches = patches_of(options.patch_mask)
    for limit in ("verify_samples", "calibration_limit"):
        count = getattr(options, limit)
        if count is not None and count < 1:
            raise UsageError(Words(Option(limit, count), " is not positive"))
    if isinstance(options.leaves, str) and options.leaves != "auto":
        told = ' is neither "auto" nor descriptions by class, {"MultiSpike": {"D": 4}}'
        raise UsageError(Words(Option("leaves", options.leaves), told))
    if options.no_neuron_between != Options.no_neuron_between:
        _require_form(options.no_neuron_between)
    known = config if isinstance(config, Mapping) else {}
    return Given(network, options, options.name or default, bits, patches, known)


def _require_form(name: str) -> None:
    from snncc.passes.fold.no_neuron_between import require_form

    require_form(name)


def frames_of(timesteps: int | None, batch_first: bool | None, config: Mapping[str, Any]) -> Frames:
    """Whether a module reads sequences, and how: as given, else as its ``default_cfg`` says."""
    from snncc.frontends.sequences import Frames

    T = config.get("timesteps", 0) if timesteps is None else timesteps
    if type(T) is not int or T < 0 or timesteps == 0:
        raise UsageError(Words(Option("timesteps", T), ": a positive integer is expected"))
    if batch_first and not T:
        raise UsageError(
            Words(
                Option("batch_first"), " belongs to sequences: give ", Option("timesteps"), ", too"
            )
        )
    first = config.get("batch_first", False) if batch_first is None else batch_first
    return Frames(T, bool(first))


def patches_of(given: Sequence[int] | None) -> tuple[int, int] | None:
    """The number of patches, of two positive integers."""
    if given is None:
        return None
    sizes = tuple(given) if isinstance(given, Sequence) else ()
    if len(sizes) != 2 or not all(type(n) is int and n > 0 for n in sizes):
        told = ": H,W is expected, the number of patches"
        raise UsageError(Words(Option("patch_mask", given), told))
    return sizes[0], sizes[1]


def _unwrapped(module: Any) -> Any:
    from snncc.frontends.pytorch import unwrapped

    return unwrapped(module)
