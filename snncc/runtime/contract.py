"""What a compiled network takes and gives: the input contract and the outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from snncc.errors import BadInputError
from snncc.program import Accumulator, Program, Readout, Shape
from snncc.program.nodes.readout import joined
from snncc.runtime.coding import check_input, normalise, pieces
from snncc.runtime.masks import MASK, check_mask, with_planes

__all__ = [
    "InputContract",
    "Output",
    "Result",
    "by_timestep",
    "class_result",
    "class_scores",
    "outputs_of",
    "results_of",
]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class InputContract:
    """How samples become the integers of the source.

    Attributes:
        name: The input's name, the key of the feed.
        shape: Per sample; of a sequence per timestep.
        dtype: ``uint8``: raw, taken as they are; ``float32``: put on the grid of 256 steps.
        mean, std: What is folded into the first layer, in units of x / 255; for people.
        scale, offset: Of the grid: integer = clip(rint((x - offset) / scale) + zero_point, 0,
            top). One number, or one per channel.
        zero_point, top: Likewise, integers; as the network's own input quantiser has them.
        patches: (h, w) of the patch mask, which is a second input named ``mask``; (): none.
        timesteps: T of samples that are sequences (T, *shape); 0: a sample is static, the same in
            every timestep.
    """

    name: str
    shape: Shape
    dtype: str = "uint8"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    scale: float | tuple[float, ...] = 1.0
    offset: float | tuple[float, ...] = 0.0
    zero_point: int = 0
    top: int = 255
    patches: tuple[int, int] | tuple[()] = ()
    timesteps: int = 0

    @property
    def sample(self) -> Shape:
        """Shape of one sample: (T, *shape) of a sequence."""
        return (self.timesteps, *self.shape) if self.timesteps else self.shape

    @property
    def source_shape(self) -> Shape:
        """Per sample, of the integers of the source: with a mask there are planes for it."""
        return (2 * self.shape[0], *self.shape[1:]) if self.patches else self.shape

    @property
    def low(self) -> tuple[float, ...]:
        """The real value of integer 0, per channel or one for all."""
        scale, offset = np.broadcast_arrays(np.atleast_1d(self.scale), np.atleast_1d(self.offset))
        return tuple((offset - self.zero_point * scale).tolist())

    def to_json(self) -> dict[str, Any]:
        """Plain data; ``patches`` and ``timesteps`` only where there are some."""
        data = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        return {k: v for k, v in data.items() if v or k not in ("patches", "timesteps")}

    @staticmethod
    def from_json(data: Any) -> InputContract:
        """The contract of ``to_json``, checked.

        Raises:
            BadInputError: Not a valid contract.
        """
        try:
            fields: dict[str, Any] = {
                k: tuple(v) if isinstance(v, list) else v for k, v in dict(data).items()
            }
            contract = InputContract(**fields)
        except (TypeError, ValueError) as e:
            raise BadInputError(f"input contract: malformed: {e}") from e
        contract.validate()
        return contract

    def validate(self) -> None:
        """Check the types and ranges of all fields.

        Raises:
            BadInputError: Naming the first field that is wrong.
        """
        sizes_ok = all(type(n) is int and n > 0 for n in self.shape)
        grid = {"scale": self.scale, "offset": self.offset}
        faults = {
            "name": not isinstance(self.name, str),
            "shape": not (isinstance(self.shape, tuple) and self.shape and sizes_ok),
            "dtype": self.dtype not in ("uint8", "float32"),
            "zero_point": type(self.zero_point) is not int or not 0 <= self.zero_point <= 255,
            "top": type(self.top) is not int or not 1 <= self.top <= 255,
            "timesteps": type(self.timesteps) is not int or self.timesteps < 0,
            **{k: not _are_finite(v) for k, v in {"mean": self.mean, "std": self.std}.items()},
            **{k: not _fits_channels(v, self.shape) for k, v in grid.items()},
            "patches": not _are_patches(self.patches, self.shape, self.dtype)
            or (self.patches != () and self.timesteps != 0),
        }
        if wrong := [name for name, is_wrong in faults.items() if is_wrong]:
            raise BadInputError(f"input contract: {wrong[0]} = {getattr(self, wrong[0])!r}")
        if not (np.asarray(self.scale) > 0).all():
            raise BadInputError(f"input contract: scale {self.scale} is not positive")

    def encode(self, x: Array, mask: Array | None = None, where: str = "") -> npt.NDArray[np.uint8]:
        """Samples as integers of the source, exactly as the graph's QuantizeInput makes them.

        Args:
            x: ``[N, *shape]`` of the contract's dtype; sequences ``[N, T, *shape]``.
            mask: Zeros and ones ``[N, 1, h, w]`` or ``[N, h, w]``, 1 for an active patch; default:
                all are active.
            where: What they are, for messages: a file.

        Returns:
            uint8 of the same shape; with patches ``[N, *source_shape]``.

        Raises:
            BadInputError: See ``check``.
        """
        checked, whole = self.check(x, mask, where)
        if whole is not None:
            return with_planes(checked, whole)
        return checked if self.dtype == "uint8" else self._quantise(checked)

    def check(
        self, x: Array, mask: Array | None = None, where: str = ""
    ) -> tuple[Array, npt.NDArray[np.uint8] | None]:
        """Samples of the contract's dtype, and masks if the network takes some; see ``encode``.

        Raises:
            BadInputError: Wrong shape or dtype, NaN or infinity; a mask that does not fit the
                samples, or that the network does not take.
        """
        mask_name = f"{where}: {MASK}" if where else MASK
        if mask is not None and not self.patches:
            hint = "the network was compiled for whole images; leave it out"
            raise BadInputError(f"{mask_name}: {hint}")
        checked = check_input(x, self.sample, self.dtype, where or "input")
        if not self.patches:
            return checked, None
        return checked, check_mask(mask, len(checked), self.patches, mask_name)

    def normalised(self, x: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Raw samples as the trained network takes them; pixels as they are, where it takes those.

        Args:
            x: uint8 ``[N, *shape]``; sequences ``[N, T, *shape]``.
        """
        if np.all(np.equal(self.scale, 1.0)) and not np.any(self.offset):
            return x.astype(np.float32)  # dividing by 255 and again by 1 / 255 would not be exact
        frames = x.reshape(-1, *self.shape)
        return np.asarray(normalise(frames, self.mean, self.std)).reshape(x.shape)

    def exactly(self, x: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        """What raw samples stand for, before float32 rounds it; of the shape of ``normalised``."""
        frames = x.reshape(-1, *self.shape).astype(np.float64)
        tail = (1,) * (len(self.shape) - 1)
        scale, offset = (np.reshape(v, (-1, *tail)) for v in (self.scale, self.offset))
        return np.asarray(frames * scale + offset).reshape(x.shape)

    def _quantise(self, x: Array) -> npt.NDArray[np.uint8]:
        tail = (1,) * (len(self.shape) - 1)
        scale, offset = (
            np.asarray(value, dtype=np.float32).reshape(-1, *tail)
            for value in (self.scale, self.offset)
        )
        out, at = np.empty(x.shape, np.uint8), 0
        with np.errstate(over="ignore"):
            for part in pieces(x):
                steps = np.rint((part - offset) / scale) + np.float32(self.zero_point)
                out[at : at + len(part)] = np.clip(steps, 0, self.top)
                at += len(part)
        return out


def by_timestep(x: Array, shape: Shape) -> Array:
    """Samples as engines take them: sequences ``[N, T, *shape]`` become ``[T, N, *shape]``."""
    return x.swapaxes(0, 1) if x.ndim == len(shape) + 2 else x


def _are_finite(values: object) -> bool:
    numbers = isinstance(values, tuple) and all(type(v) in (int, float) for v in values)
    return numbers and bool(np.isfinite(np.asarray(values, dtype=np.float64)).all())


def _fits_channels(value: object, shape: Sequence[int]) -> bool:
    if isinstance(value, tuple):
        return len(value) == shape[0] and _are_finite(value)
    return _are_finite((value,))


def _are_patches(value: object, shape: Shape, dtype: str) -> bool:
    """Whether patches cover images of raw pixels."""
    if not isinstance(value, tuple) or not value:
        return value == ()
    numbers = len(value) == 2 and all(type(n) is int and n > 0 for n in value)
    planes = zip(shape[1:], value, strict=False)
    whole = numbers and len(shape) == 3 and not any(size % n for size, n in planes)
    return whole and dtype == "uint8"


@dataclass(frozen=True)
class Output:
    """What engines return of one node: the integers of ``source`` times ``scale``.

    Attributes:
        name: As in the model.
        shape: Per sample.
        source: The node of the Program that is read.
        scale: Real value of one integer unit.
        kind: ``potential`` of an accumulator, or spike ``counts``.
        over_time: ``each``: a result per timestep; ``sum``: one, the integers summed over T.
        host: Linear layer that the host computes of the real values, by its module path.
        weight, bias: Of that layer, float32.
    """

    name: str
    shape: Shape
    source: str
    scale: float
    kind: str
    over_time: str = "each"
    host: str = ""
    weight: Array | None = field(default=None, repr=False, compare=False)
    bias: Array | None = field(default=None, repr=False, compare=False)

    @property
    def real_shape(self) -> Shape:
        """Of a result per sample, after what the host computes."""
        return self.shape if self.weight is None else self.weight.shape[:1]

    def to_json(self) -> dict[str, Any]:
        """Plain data; ``over_time`` and ``host`` only where they say something."""
        names = ("name", "source", "scale", "kind", "over_time", "host")
        data = {**{name: getattr(self, name) for name in names}, "shape": list(self.shape)}
        unsaid = (("over_time", "each"), ("host", ""))
        return {k: v for k, v in data.items() if (k, v) not in unsaid}

    def real(self, integers: Array) -> npt.NDArray[np.float32]:
        """Integers (T, N, ...) as the network's result: (N, ...), or (T, N, ...) if one for each.

        With T = 1 there is no axis of timesteps.
        """
        whole = integers.sum(axis=0, keepdims=True) if self.over_time == "sum" else integers
        values: npt.NDArray[np.float32] = (whole * self.scale).astype(np.float32)
        if self.weight is not None:
            values = values @ self.weight.T + self.bias
        return values[0] if len(values) == 1 else values


@dataclass(frozen=True)
class Result:
    """What the network computes: an output, or the sum of several that the host joins.

    Attributes:
        name: A key, attribute or position in what the network returns; ``output``: all of it.
        parts: What it is a sum of, all of one shape after what the host computes.
    """

    name: str
    parts: tuple[Output, ...]

    @property
    def shape(self) -> Shape:
        """Per sample, after what the host computes."""
        return self.parts[0].real_shape

    @property
    def over_time(self) -> str:
        """``each``: a result per timestep; ``sum``: one."""
        return self.parts[0].over_time

    @property
    def hosts(self) -> tuple[str, ...]:
        """Layers that the host computes, by module path."""
        return tuple(part.host for part in self.parts if part.host)

    @property
    def kind(self) -> str:
        """``potential`` or ``counts``; ``host``: what the host computes of such."""
        return "host" if self.hosts or len(self.parts) > 1 else self.parts[0].kind

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        head = {"name": self.name, "shape": list(self.shape), "kind": self.kind}
        return {**head, "over_time": self.over_time, "sources": [p.source for p in self.parts]}

    def real(self, integers: Mapping[str, Array]) -> npt.NDArray[np.float32]:
        """The outputs' integers (T, N, ...) as real values; see ``Output.real``."""
        values = [part.real(integers[part.name]) for part in self.parts]
        return np.asarray(sum(values[1:], start=values[0]))


def results_of(program: Program) -> tuple[Result, ...]:
    """The results of a Program, in the order of the network's."""
    outputs = {output.name: output for output in outputs_of(program)}
    found = joined(program.readouts)
    return tuple(Result(name, tuple(outputs[r.name] for r in rs)) for name, rs in found.items())


def class_result(results: Sequence[Result]) -> Result | None:
    """The result whose largest number is the class: the first of one axis; None: all are maps."""
    return next((result for result in results if len(result.shape) == 1), None)


def class_scores(result: Result, integers: Mapping[str, Array]) -> Array:
    """Scores of each sample [N, classes], summed over timesteps; integers where they say it all.

    Args:
        result: Of ``class_result``.
        integers: Output name -> integers (T, N, *shape).
    """
    first = result.parts[0]
    return result.real(integers) if result.hosts else integers[first.name].sum(axis=0)


def outputs_of(program: Program) -> tuple[Output, ...]:
    """What engines return of a Program, in the model's order."""
    return tuple(_output(r, program.by_name) for r in program.readouts)


def _output(readout: Readout, by_name: Mapping[str, Any]) -> Output:
    is_potential = isinstance(by_name[readout.source], Accumulator)
    kind = "potential" if is_potential else "counts"
    shape, scale = tuple(readout.shape), float(readout.scale)
    host = (readout.host, readout.weight, readout.bias)
    return Output(readout.name, shape, readout.source, scale, kind, readout.over_time, *host)
