"""The network as a graph in stage ``imported``, and the law that the graph is the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from snncc.compiler.given import Given
from snncc.errors import Option, UnsupportedModelError, UsageError, VerificationError, Words

if TYPE_CHECKING:
    import onnx_ir as ir

    from snncc.frontends.import_law import ImportLaw
    from snncc.passes.cut.host_head import HostPart
    from snncc.runtime.measure import Trained

__all__ = ["Imported", "import_network", "require_import_law"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Imported:
    """A network that was imported.

    Attributes:
        model: The graph in stage ``imported``, without what is not compiled.
        trained: The network itself, which computes what the graph is compared with.
        host: What the host computes after the graph, by the name of the result.
    """

    model: ir.Model
    trained: Trained
    host: Mapping[str, HostPart]


def import_network(given: Given) -> Imported:
    """The graph, cut at ``until``, or of some results, or without what the host computes.

    Raises:
        BadInputError: It cannot be read.
        UnsupportedModelError: It has no graph.
        UsageError: An option does not go with the network.
    """
    from snncc.passes.cut.host_head import split_off
    from snncc.passes.cut.some_results import keep_results
    from snncc.passes.cut.until import cut

    model, trained = _of_module(given) if given.module is not None else _of_file(given)
    until, host, wanted = given.options.until, given.options.host, given.options.results
    for name, value in (("host", host), ("results", wanted)):
        if until and value:
            told = (Option(name), " is the network's end, and ", Option("until"))
            raise UsageError(Words(*told, " leaves it out; give one"))
    if wanted:
        keep_results(model, (wanted,) if isinstance(wanted, str) else wanted)
    parts = split_off(model, host) if host else {}
    return Imported(cut(model, until) if until else model, trained, parts)


def _of_module(given: Given) -> tuple[ir.Model, Trained]:
    from snncc.frontends.leaves import declared
    from snncc.frontends.pytorch import export_module
    from snncc.frontends.trained import TrainedModule

    leaves, frames = given.options.leaves or {}, given.frames
    is_auto = isinstance(leaves, str)
    with declared(given.module, {} if isinstance(leaves, str) else leaves):
        found = export_module(given.module, given.shape, given.patches, frames, is_auto)
    return found.model, TrainedModule(found, given.module, frames)


def _of_file(given: Given) -> tuple[ir.Model, Trained]:
    options = given.options
    modules_own = {
        "patch_mask": given.patches, "timesteps": options.timesteps, "leaves": options.leaves
    }  # fmt: skip
    for name, value in modules_own.items():
        if value is not None:
            told = " needs the network's module: a checkpoint and "
            raise UsageError(Words(Option(name), told, Option("arch")))
    path = Path(str(given.network))
    if path.suffix == ".onnx":
        from snncc.frontends.onnx_file import import_onnx
        from snncc.frontends.trained_file import TrainedFile

        return import_onnx(path), TrainedFile(path)
    if path.suffix == ".pt2":
        from snncc.frontends.pytorch import export_program, load_program
        from snncc.frontends.trained import TrainedModule

        found = export_program(load_program(path, given.options.trust_pickle))
        return found.model, TrainedModule(found)
    told = f"{path}: .onnx and .pt2 files stand alone; a checkpoint needs "
    raise UsageError(Words(told, Option("arch")))


def require_import_law(
    given: Given, imported: Imported, feeds: Mapping[str, Array], neurons: Sequence[list[str]]
) -> ImportLaw:
    """The graph computes what the network itself computes.

    Args:
        given: The network.
        imported: Its graph.
        feeds: Samples under all names of the input.
        neurons: Of each activation that becomes a neuron, the values of the graph that it is.

    Raises:
        VerificationError: It does not.
        UnsupportedModelError: An activation cannot be compared; or the network does not compute the
            same each time.
    """
    from snncc.frontends.import_law import check_import

    model, trained = imported.model, imported.trained
    taken = {str(value.name): feeds[str(value.name)] for value in model.graph.inputs}
    try:
        return check_import(model, taken, trained.values(taken), list(neurons), trained.words)
    except (VerificationError, UnsupportedModelError):
        _require_one_network(given, taken[str(model.graph.inputs[0].name)])
        raise


def _require_one_network(given: Given, x: Array) -> None:
    """Refuse a module of which the comparison failed because it is not the same each time."""
    if given.module is None:
        return
    from snncc.frontends.varying import require_one_network

    require_one_network(given.module, given.frames, x)
