"""Which network a command line means: its options, their origins, and how it is read."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from snncc.cli.files import check_input_file
from snncc.cli.shared_options import PATH
from snncc.errors import MissingDependencyError, UsageError

if TYPE_CHECKING:
    from snncc.frontends.checkpoint import LoadReport, Weights

__all__ = [
    "Network",
    "Request",
    "json_object",
    "mean_option",
    "network_options",
    "numbers",
    "read_network",
    "sample_shape",
    "std_option",
]

_ALONE = (".onnx", ".pt2")  # files that hold the graph, too
_CONFIG = "the module's default_cfg"


# -- option types --------------------------------------------------------------------------


def numbers(value: str) -> tuple[float, ...]:
    """Finite real numbers with commas between."""
    try:
        found = tuple(float(part) for part in value.split(","))
    except ValueError:
        found = (math.nan,)
    if not all(map(math.isfinite, found)):
        raise click.BadParameter(f"'{value}' is not numbers with commas between")
    return found


def sample_shape(value: str) -> tuple[int, ...]:
    """Sizes of one sample, (C, H, W) or (F,); a leading batch of 1 is dropped."""
    try:
        sizes = tuple(int(part) for part in value.split(","))
    except ValueError:
        sizes = ()
    if len(sizes) in (2, 4) and sizes[0] == 1:
        sizes = sizes[1:]
    if len(sizes) not in (1, 3) or min(sizes) < 1:
        raise click.BadParameter(f"'{value}' is not C,H,W or F of one sample")
    return sizes


def patch_numbers(value: str) -> tuple[int, int]:
    """Numbers of patches, down and across."""
    parts = value.split(",")
    if len(parts) != 2 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise click.BadParameter(f"'{value}' is not H,W, the number of patches")
    return int(parts[0]), int(parts[1])


def result_names(value: str) -> tuple[str, ...]:
    """Names of results."""
    names = tuple(name.strip() for name in value.split(","))
    if not all(names):
        raise click.BadParameter(f"'{value}' is not A,B, names of results")
    return names


def json_object(value: str) -> dict[str, Any]:
    """A JSON object as a dict."""
    try:
        found = json.loads(value)
    except ValueError as e:
        raise click.BadParameter(f"not JSON ({e}): {value}") from e
    if not isinstance(found, dict):
        raise click.BadParameter(f'not a JSON object such as {{"D": 4}}: {value}')
    return found


def leaf(value: str) -> tuple[str, dict[str, Any] | None]:
    """A class and what its neurons do; ``auto`` alone has nothing to say."""
    name, is_given, fields = value.partition("=")
    if not is_given and name != "auto":
        raise click.BadParameter(f"'{value}' is neither auto nor Class={{...}}, a JSON object")
    return name.strip(), json_object(fields) if is_given else None


mean_option = click.option(
    "--mean", type=numbers, metavar="A,B,C", help="Of pixel / 255, per channel or one for all."
)
std_option = click.option(
    "--std", type=numbers, metavar="A,B,C", help="Likewise; folded into the first layer."
)

_OPTIONS = (
    click.argument("model", metavar="WEIGHTS|MODEL", type=PATH),
    click.option(
        "--arch",
        metavar="MODULE:FN|NAME",
        help="Constructor of the network: pkg.mod:fn or path/models.py:fn, whose code is run; or a "
        "published network by name: e-spikeformer-s.",
    ),
    click.option(
        "--arch-args",
        type=json_object,
        metavar="JSON",
        help='Its arguments, an object: {"D": 8}.',
    ),
    click.option(
        "--input-shape",
        type=sample_shape,
        metavar="C,H,W",
        help="One sample, or one timestep of it. Default: the module's default_cfg.",
    ),
    click.option(
        "--timesteps",
        type=click.IntRange(min=1),
        metavar="T",
        help="The module reads sequences [T, N, C, H, W]; data is (N, T, C, H, W).",
    ),
    click.option(
        "--batch-first",
        is_flag=True,
        help="It reads them as [N, T, C, H, W].",
    ),
    click.option(
        "--weights",
        type=click.Choice(["raw", "ema"]),
        help="Trained weights or their moving average. Default: raw.",
    ),
    click.option(
        "--trust-pickle", is_flag=True, help="Let the file run code: whole pickled modules, .pt2."
    ),
    click.option(
        "--allow-missing", is_flag=True, help="Leave weights as constructed that are not there."
    ),
    click.option(
        "--allow-unexpected", is_flag=True, help="Leave out weights that the network has not."
    ),
    click.option(
        "--patch-mask",
        type=patch_numbers,
        metavar="H,W",
        help="Of a network with sparse layers: let it take masks of so many patches.",
    ),
    click.option(
        "--leaf",
        "leaves",
        multiple=True,
        type=leaf,
        metavar="CLASS=JSON|auto",
        help='What a neuron of the network\'s own code does: MultiSpike={"D": 4, "decay": 0.25}; '
        "auto: what experiments find. Repeat for more.",
    ),
    click.option("--until", metavar="NODE", help="Only up to this node or module."),
    click.option(
        "--results",
        type=result_names,
        metavar="A,B",
        help="Only these of several results, in this order.",
    ),
    click.option(
        "--host",
        metavar="NODE",
        multiple=True,
        help="Let the host compute the last linear layer, which reads potentials; repeat for more.",
    ),
)


def network_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The argument and options that say which network is meant."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


# -- reading -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Request:
    """What the command line says about the network; fields as its options."""

    model: Path
    arch: str | None
    arch_args: dict[str, Any] | None
    input_shape: tuple[int, ...] | None
    timesteps: int | None
    batch_first: bool
    weights: str | None
    trust_pickle: bool
    allow_missing: bool
    allow_unexpected: bool
    patch_mask: tuple[int, int] | None
    leaves: tuple[tuple[str, dict[str, Any] | None], ...]
    until: str | None
    results: tuple[str, ...] | None
    host: tuple[str, ...]

    @property
    def described(self) -> dict[str, dict[str, Any]] | str | None:
        """Neurons as ``--leaf`` describes them, or ``auto``.

        Raises:
            UsageError: Both are given.
        """
        given = {name: fields for name, fields in self.leaves if fields is not None}
        if len(given) < len(self.leaves) and given:
            raise UsageError("--leaf auto finds all descriptions; give it alone, or not")
        return given or ("auto" if self.leaves else None)

    @property
    def is_checkpoint(self) -> bool:
        """Whether the file holds weights only."""
        return self.model.suffix not in _ALONE

    def check(self) -> None:
        """Fail at once on what cannot work.

        Raises:
            UsageError: Options are missing, or have no place here.
            BadInputError: There is no such file.
        """
        check_input_file(self.model)
        if self.is_checkpoint and self.arch is None:
            raise UsageError(
                f"{self.model}: a checkpoint needs its constructor, --arch pkg.mod:fn or --arch "
                "path/models.py:fn, or the name of a published network, --arch e-spikeformer-s; "
                f"{' and '.join(_ALONE)} files stand alone"
            )
        if not self.is_checkpoint and (extra := self._checkpoint_options()):
            raise UsageError(
                f"{self.model}: stands alone; {', '.join(extra)} belong to checkpoints"
            )

    def _checkpoint_options(self) -> list[str]:
        names = ("arch", "arch_args", "input_shape", "timesteps", "weights", "patch_mask")
        flags = ["batch_first", "allow_missing", "allow_unexpected"]
        flags += ["trust_pickle"] if self.model.suffix != ".pt2" else []
        given = [n for n in names if getattr(self, n) is not None]
        given += [n for n in flags if getattr(self, n)]
        given += ["leaf"] if self.leaves else []
        return [f"--{name.replace('_', '-')}" for name in given]


@dataclass(frozen=True)
class Network:
    """A network that has been read.

    Attributes:
        source: A module with weights, or the path of a file that stands alone.
        config: The module's default_cfg.
        origins: Option -> where its value comes from.
        checkpoint: What became of the checkpoint, plain data; empty if there is none.
        import_seconds: Spent on importing torch.
    """

    source: Any
    config: Mapping[str, Any] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    checkpoint: dict[str, Any] = field(default_factory=dict)
    import_seconds: float = 0.0


def read_network(request: Request) -> Network:
    """The network with its weights; ``sys.path`` is left as its code wants it.

    Within ``restored_paths``, which ends when the network's code runs no more.

    Raises:
        SnnccError: The file, the constructor or the weights are not what they should be.
    """
    seconds = 0.0 if request.model.suffix == ".onnx" else _import_torch()
    if not request.is_checkpoint:
        origins = {"input_shape": "the file"}
        return Network(str(request.model), origins=origins, import_seconds=seconds)
    return _read_checkpoint(request, seconds)


def _import_torch() -> float:
    """Seconds it took."""
    for name, extra in (("torch", "torch"), ("onnxscript", "compile")):
        if find_spec(name) is None:
            raise MissingDependencyError(f"this needs {name}: pip install 'snncc[{extra}]'")
    start = time.perf_counter()
    import_module("torch")
    return time.perf_counter() - start


def _read_checkpoint(request: Request, seconds: float) -> Network:
    from snncc.frontends.checkpoint import load_weights

    module, found, zoo = _constructed(request)
    loaded = load_weights(module, found, request.allow_missing, request.allow_unexpected)
    given = getattr(module, "default_cfg", None)
    config = given if isinstance(given, Mapping) else {}
    return Network(
        source=module,
        config=config,
        origins={
            "weights": "given" if request.weights else "default",
            "input_shape": "given" if request.input_shape else _CONFIG,
            **_frames_origin(request, config),
        },
        checkpoint=_checkpoint_json(request, found, loaded) | zoo,
        import_seconds=seconds,
    )


def _constructed(request: Request) -> tuple[Any, Weights, dict[str, Any]]:
    """The network, the checkpoint's weights, and what the zoo made of both, plain data."""
    from snncc.frontends.checkpoint import read_weights
    from snncc.frontends.constructor import construct, is_name
    from snncc.frontends.pytorch import unwrapped

    arch, arguments = str(request.arch), request.arch_args or {}
    which = request.weights or "raw"
    if not is_name(arch):
        module = unwrapped(construct(arch, arguments))
        return module, read_weights(request.model, which, request.trust_pickle), {}
    from snncc.frontends import zoo

    found = read_weights(request.model, which, request.trust_pickle)
    built = zoo.build(arch, arguments, found.tensors, found.told, request.timesteps)
    options = built.options | _given_size(request, built.options)
    told = {"name": arch, "options": options, "read": built.read, "left_out": built.left_out}
    return built.module, found, {"zoo": told}


def _given_size(
    request: Request, options: Mapping[str, tuple[Any, str]]
) -> dict[str, tuple[Any, str]]:
    """The input's height and width, where the command line gives them, as an option of the zoo.

    Raises:
        UsageError: They are given twice and differently.
    """
    if "size" not in options or request.input_shape is None:
        return {}
    sizes, (size, origin) = request.input_shape[1:], options["size"]
    if origin == "given" and {*sizes} != {size}:
        shape = ",".join(map(str, request.input_shape))
        told = f"size is given twice and differently: {size} by --arch-args, --input-shape {shape}"
        raise UsageError(f"--arch {request.arch}: {told}; give one")
    return {"size": (size if {*sizes} == {size} else sizes[0] if len({*sizes}) == 1 else sizes,
                     "given")}  # fmt: skip


def _frames_origin(request: Request, config: Mapping[str, Any]) -> dict[str, str]:
    if request.timesteps is None and not config.get("timesteps"):
        return {}
    return {"timesteps": "given" if request.timesteps else _CONFIG}


def _checkpoint_json(request: Request, found: Weights, loaded: LoadReport) -> dict[str, Any]:
    return {
        "file": request.model.name,
        "weights": found.which,
        "available": list(found.available),
        "container": found.container,
        "stripped": loaded.stripped,
        "parameters": loaded.parameters,
        "loaded": loaded.loaded,
        "missing": list(loaded.missing),
        "unexpected": list(loaded.unexpected),
        "states": list(loaded.states),
        "renamed": loaded.renamed,
    }
