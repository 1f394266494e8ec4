"""From a PyTorch module or a ``.pt2`` program to the imported graph."""

from __future__ import annotations

import logging
import os
import re
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import onnx_ir as ir
import onnxscript.optimizer
import torch
from torch._dynamo.eval_frame import OptimizedModule
from torch._dynamo.exc import UserError, UserErrorType
from torch.utils._pytree import tree_unflatten

from snncc.errors import (
    BadInputError,
    Fault,
    Option,
    SnnccError,
    UnsupportedModelError,
    UsageError,
    Words,
)
from snncc.frontends.decomposed import decomposed
from snncc.frontends.leaves import Leaf, find_leaves, recorded, swapped
from snncc.frontends.loops import require_loops
from snncc.frontends.prober import found_text, own_neurons
from snncc.frontends.programs import faults_of, name_calls, prepare, take_numbers
from snncc.frontends.quantised_file import standardised
from snncc.frontends.results import flat_results, named_results
from snncc.frontends.sequences import STATIC, Frames
from snncc.frontends.sparse_leaves import holding, sparse_layers, taking_mask
from snncc.frontends.spiking_libraries import spiking_jelly  # noqa: F401 (registers leaves)
from snncc.frontends.tidy import tidy
from snncc.frontends.trial import require_described
from snncc.frontends.untouched import untouched
from snncc.frontends.whole_numbers import free_sizes
from snncc.ir.graphs import label, nodes, provenance, static_shape
from snncc.ir.metadata import FOUND_NEURONS, SEQUENCE
from snncc.ir.ops import OPSET, having, traits
from snncc.ir.results import name_results
from snncc.passes.recognise.advice import OPERATORS, OTHER
from snncc.system.damage import damaged, open_regular, require_whole_zip

__all__ = [
    "Exported",
    "export_module",
    "export_program",
    "import_module",
    "load_program",
    "unwrapped",
]

_PATCH_MASK = Option("patch_mask")


@dataclass(frozen=True, eq=False)
class Exported:
    """A network of PyTorch as a graph, and as the program that the graph was made from.

    Attributes:
        model: In stage ``imported``.
        program: Its nodes are those of the graph, by name: ``snncc.ir.lineage.TRAINED``.
        leaves: Neurons that both have as one node each.
    """

    model: ir.Model
    program: torch.export.ExportedProgram
    leaves: tuple[Leaf, ...] = ()


def import_module(
    module: torch.nn.Module,
    shape: Sequence[int],
    patches: tuple[int, int] | None = None,
    frames: Frames = STATIC,
) -> ir.Model:
    """The graph of ``export_module``."""
    return export_module(module, shape, patches, frames).model


def export_module(
    module: torch.nn.Module,
    shape: Sequence[int],
    patches: tuple[int, int] | None = None,
    frames: Frames = STATIC,
    probes: bool = False,
) -> Exported:
    """Export a module with every leaf as one node; the batch axis stays free.

    Args:
        module: In any mode; exported in eval mode, without the masks its layers may hold. It is as
            before afterwards.
        shape: One sample, (C, H, W) or (F,); of a sequence one timestep.
        patches: Let the graph take a second input, ``mask`` f32 [N, 1, *patches], which masks the
            first one and all sparse layers.
        frames: Whether the input is a sequence; the graph takes it as [N, T, ...].
        probes: Neurons of the module's own code are what experiments find them to be.

    Raises:
        BadInputError: The module does not run on an input of that shape.
        UnsupportedModelError: ``torch.export`` cannot follow the module, a neuron does not fire as
            it was described, or a network with a mask has neurons with memory.
        UsageError: The module has no sparse layer, or one that patches do not cover.
    """
    if patches is not None:
        _require_sparse_layers(module, frames)
    example = torch.zeros(2, *frames.sample(tuple(shape)))
    with (
        untouched(module),
        holding(module, None),
        frames.given_to(module),
        flat_results(module) as returned,
    ):
        model, program, leaves = _exported(module, example, patches, frames, probes)
    name_results(model, returned.names)
    model = tidy(model)
    take_numbers(model, program)
    require_loops(model, [leaf.path for leaf in leaves if leaf.keeps_its_membrane])
    if frames.timesteps:
        model.metadata_props[SEQUENCE] = str(frames.timesteps)
    if found := found_text(leaves):
        model.metadata_props[FOUND_NEURONS] = found
    if patches is not None:
        _name_masked_input(model)
        _check_masks(model, patches)
    return Exported(model, program, tuple(leaves))


def _exported(
    module: torch.nn.Module,
    example: torch.Tensor,
    patches: tuple[int, int] | None,
    frames: Frames,
    probes: bool,
) -> tuple[ir.Model, torch.export.ExportedProgram, Sequence[Leaf]]:
    """The module as ONNX with every leaf as one node, which does what it was described to do."""
    leaves = find_leaves(module)
    with recorded(leaves) as record:
        _try_forward(module, example, frames)
    record.require_described()
    require_described(leaves, record.calls)
    leaves += own_neurons(module, leaves, example, probes)
    return *_converted(_captured(module, leaves, example, patches)), leaves


def _require_sparse_layers(module: torch.nn.Module, frames: Frames) -> None:
    """The module takes a patch mask, with one image a sample."""
    if not sparse_layers(module):
        told = (
            f"{type(module).__name__} has no layer that takes a patch mask; build it with "
            "SpikeSparseConv2d and SparseBatchNorm2d, or leave "
        )
        raise UsageError(Words(told, _PATCH_MASK, " out"))
    if frames.timesteps:
        told = " is for one image a sample; leave "
        raise UsageError(Words(_PATCH_MASK, told, Option("timesteps"), " out"))


#: Sizes on which conditions are tried that torch.export cannot prove.
_BATCHES = (*range(2, 258), 1000, 4095, 4096, 65521, 2**20)


def _captured(
    module: torch.nn.Module,
    leaves: list[Leaf],
    example: torch.Tensor,
    patches: tuple[int, int] | None,
) -> torch.export.ExportedProgram:
    batch = {0: torch.export.Dim("N", min=2)}  # 1 is a size of its own to torch.export
    if patches is None:
        return _capture(module, leaves, (example,), (batch,))
    with taking_mask(module):
        mask = torch.ones(2, 1, *patches)
        return _capture(module, leaves, (example, mask), (batch, batch))


def _capture(
    module: torch.nn.Module, leaves: list[Leaf], args: tuple[torch.Tensor, ...], shapes: Any
) -> torch.export.ExportedProgram:
    """The program of a module.

    Raises:
        UnsupportedModelError: Its Python code depends on values, or on the batch's size.
    """
    with _running(module) as running:
        try:
            with _quiet(), _with_its_hooks(module):
                return _export(module, leaves, args, shapes)
        except SnnccError:
            raise
        except Exception as e:
            raise _not_followed(e, running) from e


def _export(
    module: torch.nn.Module, leaves: list[Leaf], args: tuple[torch.Tensor, ...], shapes: Any
) -> torch.export.ExportedProgram:
    """The program, for all sizes of the batch.

    torch.export proves that its conditions hold for all of them. It gives up on some that do, as
    n * min(c, c * n) == c * n: then they are tried on many sizes, and one that does not hold for
    one of them is its refusal. The author's ``int(size)`` fixes no size then.
    """
    any_size = tuple({0: torch.export.Dim.AUTO} for _ in args)
    try:
        return _program(module, leaves, args, shapes)
    except UserError as refusal:
        if refusal.error_type is not UserErrorType.CONSTRAINT_VIOLATION:
            raise
        with free_sizes(module):
            program = _program(module, leaves, args, any_size)
        if not _holds_for_many_batches(program, args):
            raise
        return program


def _program(
    module: torch.nn.Module, leaves: list[Leaf], args: tuple[torch.Tensor, ...], shapes: Any
) -> torch.export.ExportedProgram:
    with swapped(leaves):
        return torch.export.export(module, args, dynamic_shapes=shapes, strict=False)


def _holds_for_many_batches(
    program: torch.export.ExportedProgram, args: Sequence[torch.Tensor]
) -> bool:
    read = [n.meta["val"] for n in program.graph.nodes if n.op == "placeholder"][-len(args) :]
    if any(isinstance(value.shape[0], int) for value in read):
        return False
    conditions = getattr(program.module(), "_guards_fn", None)
    if conditions is None:
        return False
    try:
        for size in _BATCHES:
            conditions(*(torch.empty(size, *arg.shape[1:], device="meta") for arg in args))
    except AssertionError:
        return False
    return True


@contextmanager
def _with_its_hooks(module: torch.nn.Module) -> Iterator[None]:
    """Within this context a module made of a graph is a plain one that does the same.

    torch.export interprets the graph of such a module, and calls no hook of it.
    """
    own: Any = type(module)
    if not isinstance(module, torch.fx.GraphModule):
        yield
        return
    module.__class__ = type(own.__name__, (torch.nn.Module,), {"forward": own.forward})
    try:
        yield
    finally:
        module.__class__ = own


@contextmanager
def _running(module: torch.nn.Module) -> Iterator[list[str]]:
    """Within this context the paths of the modules that are running, the innermost last."""
    running: list[str] = []

    def ends(*_: Any) -> None:  # what a hook returns would take the place of the result
        running.pop()

    hooks = []
    for path, part in module.named_modules():
        hooks.append(part.register_forward_pre_hook(lambda *_, path=path: running.append(path)))
        hooks.append(part.register_forward_hook(ends))
    try:
        yield running
    finally:
        for hook in hooks:
            hook.remove()


def _not_followed(e: Exception, running: Sequence[str]) -> UnsupportedModelError:
    """What torch.export says, and the module in which it stopped."""
    text = _explain(_root(e))
    path, told = (running or [""])[-1], "torch.export cannot follow the network"
    if isinstance(e, UserError) and e.error_type is UserErrorType.CONSTRAINT_VIOLATION:
        what = (
            ": its code fixes how many samples there are, or takes timesteps for samples; T comes "
        )
        return UnsupportedModelError(
            Words(
                told, what, "first in [T, N, ...], or ", Option("batch_first", True), " is needed"
            )
        )
    if not path:
        return UnsupportedModelError(f"{told}: {text}")
    known = next((OPERATORS[name] for name in OPERATORS if name in text), None)
    what, todo = known or (text, "let it not depend on values or on the batch's size")
    return UnsupportedModelError(told, [Fault(what, kind="module", module=path, todo=todo)])


def _check_masks(model: ir.Model, patches: tuple[int, int]) -> None:
    if memory := [label(node) for node in nodes(model, *having("imported", lambda t: t.remembers))]:
        told = f"a patch mask and neurons with memory ({', '.join(memory)}) do not go together yet"
        raise UnsupportedModelError(Words(told, "; leave ", _PATCH_MASK, " out"))
    h, w = patches
    faults = []
    for node in nodes(model, *having("imported", lambda t: t.masks)):
        size = static_shape(node.outputs[0]) or ()
        if len(size) != 3 or size[1] % h or size[2] % w:
            origin = provenance(node)
            where = (str(node.name), node.op_type, origin.module, origin.source)
            faults.append(Fault(f"one sample is [{_csv(size)}]", *where))
    if faults:
        told = ": the numbers of patches must divide height and width of all that is masked"
        raise UsageError(Words(Option("patch_mask", patches), told), faults)


def _name_masked_input(model: ir.Model) -> None:
    """It belongs to no module, and has a name of the exporter's."""
    x = model.graph.inputs[0]
    for user, _ in x.uses():
        if traits(user).masks:
            user.name = user.outputs[0].name = f"{x.name}/masked"


def _try_forward(module: torch.nn.Module, example: torch.Tensor, frames: Frames) -> None:
    try:
        with _quiet():
            out = module(example)
    except SnnccError:
        raise
    except Exception as e:
        if others := _other_types(module):
            raise BadInputError(
                f"the network is not float32, but in part {others}; give it as net.float()"
            ) from e
        axes = ["T", "N"] if frames.timesteps and not frames.batch_first else ["N"]
        axes += ["T"] if frames.timesteps and frames.batch_first else []
        steps = f" of T = {frames.timesteps}" if frames.timesteps else ""
        sizes = example.shape[2 if frames.timesteps else 1 :]
        told = f"the network does not run on an input of shape [{_csv([*axes, *sizes])}]{steps}: "
        hint = ("; give the right ", Option("input_shape"), ", and ", Option("timesteps"))
        more = "; leave that out if it reads one picture" if steps else ""
        text = Words(told, _first_line(e), *hint, f" if it reads sequences{more}")
        raise BadInputError(text) from e
    if out == ():
        raise UnsupportedModelError(
            "the network returns no tensor, alone or in tuples, lists, dicts, named tuples or "
            "dataclasses; wrap it in a module that returns the results you want"
        )


def _other_types(module: torch.nn.Module) -> str:
    """The real types of parameters and buffers besides float32, with the first that has each."""
    held = [*module.named_parameters(), *module.named_buffers()]
    real = [(name, t.dtype) for name, t in held if t.is_floating_point()]
    found = {dtype: name for name, dtype in reversed(real) if dtype != torch.float32}
    return ", ".join(f"{str(d).removeprefix('torch.')} ('{name}')" for d, name in found.items())


def unwrapped(module: Any) -> Any:
    """What ``torch.compile``, ``DataParallel`` and ``DistributedDataParallel`` wrap."""
    wrappers = (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)
    while isinstance(module, (OptimizedModule, *wrappers)):
        module = module._orig_mod if isinstance(module, OptimizedModule) else module.module
    return module


def load_program(path: str | Path, trust_pickle: bool = False) -> torch.export.ExportedProgram:
    """Read a program saved by ``torch.export.save``.

    Args:
        path: The file.
        trust_pickle: Let it run code. PyTorch's reader unpickles sample inputs, weights and
            constants, evaluates expressions and loads compiled libraries, and cannot be kept from
            it.

    Raises:
        BadInputError: It is not trusted, or not such a file.
        UnsupportedModelError: It calls operators that nobody has registered here.
    """
    if not os.path.exists(path):
        raise BadInputError(f"{path}: no such file")
    if not trust_pickle:
        told = f"{path}: PyTorch's reader of such files runs code that they may hold; pass "
        hint = " if you trust whoever made the file, or give a checkpoint with "
        trust, arch = Option("trust_pickle", True), Option("arch")
        raise BadInputError(Words(told, trust, hint, arch, ", or an .onnx file"))
    try:
        with open_regular(path) as file:
            require_whole_zip(file, path)
        with _quiet():
            import torch.ao.quantization.fx._decomposed  # the operators of quantised programs

            return torch.export.load(path)
    except SnnccError:
        raise
    except OSError as e:
        raise BadInputError(f"{path}: cannot be read ({e.strerror or e})") from e
    except Exception as e:
        if unknown := _unknown_operators(path):
            raise UnsupportedModelError(
                f"{path}: uses operators that PyTorch does not know here: {', '.join(unknown)}; "
                "export the network without custom operators"
            ) from e
        save = "torch.export.save(torch.export.export(model, args), path)"
        raise damaged(path, _first_line(e), f"not written by {save}") from e


def _unknown_operators(path: str | Path) -> list[str]:
    """Operators that a saved program calls and nobody has registered; none if it is damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [n for n in archive.namelist() if n.endswith("models/model.json")]
            text = "".join(archive.read(n).decode() for n in names)
    except Exception:  # zipfile raises nearly anything on damaged bytes
        return []
    called = sorted(set(re.findall(r'"target": "torch\.ops\.(\w+\.\w+)', text)))
    return [name for name in called if not _is_registered(*name.split("."))]


def _is_registered(namespace: str, operator: str) -> bool:
    return hasattr(getattr(torch.ops, namespace), operator)


def export_program(program: torch.export.ExportedProgram) -> Exported:
    """The graph of a program.

    Raises:
        UnsupportedModelError: It has an operator without an ONNX form.
    """
    names = _names_of(program)
    model, program = _converted(program)
    name_results(model, names)
    model = tidy(_standardised(model))
    take_numbers(model, program)
    return Exported(model, program)


def _names_of(program: torch.export.ExportedProgram) -> list[str]:
    """Names of what a program returns."""
    returned, returns = program.graph_signature.user_outputs, program.call_spec.out_spec
    marks = [torch.empty(0) if isinstance(name, str) else None for name in returned]
    return [*named_results(tree_unflatten(marks, returns))]


def _standardised(model: ir.Model) -> ir.Model:
    """Quantised weights as the numbers that they stand for, as in quantised files."""
    if not any(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in model.graph):
        return model
    onnxscript.optimizer.fold_constants(model)  # of scales and zero points, other types are stored
    return ir.from_proto(standardised(ir.to_proto(model)))


def _converted(
    program: torch.export.ExportedProgram,
) -> tuple[ir.Model, torch.export.ExportedProgram]:
    """The program as ONNX, beside the program of which each node is one of its values."""
    prepare(program)
    ready = decomposed(program)
    try:
        with _quiet():
            found = torch.onnx.export(
                ready,
                (),
                dynamo=True,
                opset_version=OPSET,
                optimize=False,
                verbose=False,
            )
    except Exception as e:
        raise _not_converted(_root(e), program) from e
    assert found is not None
    assert found.exported_program is not None
    name_calls(found.model, found.exported_program)
    if found.exported_program is ready:
        return found.model, program
    return found.model, found.exported_program


def _not_converted(
    e: BaseException, program: torch.export.ExportedProgram
) -> UnsupportedModelError:
    """Calls of the operator that has no ONNX form, where it is named."""
    faults = []
    for name in dict.fromkeys(re.findall(r"op='aten\.(\w+)'", str(e))):
        what = OPERATORS.get(name.lstrip("_"), ("has no ONNX form", OTHER[1]))
        faults += faults_of(program, (name, name.lstrip("_")), *what)
    if faults:
        return UnsupportedModelError("parts of the network have no ONNX form", faults)
    return UnsupportedModelError(f"the network has no ONNX form: {_explain(e)}")


def _root(e: BaseException) -> BaseException:
    """What an error began with."""
    while e.__cause__ is not None:
        e = e.__cause__
    return e


def _explain(e: BaseException) -> str:
    lines = [line.strip() for line in str(e).splitlines() if line.strip()]
    place = re.findall(r'File "([^"]+)", line (\d+)', str(e))
    users = [f"{Path(f).name}:{n}" for f, n in place if "/torch/" not in f]
    return " ".join([lines[0] if lines else type(e).__name__, *(f"(at {u})" for u in users[-1:])])


def _first_line(e: BaseException) -> str:
    return (str(e).splitlines() or [type(e).__name__])[0]


def _csv(sizes: Sequence[int | str]) -> str:
    return ", ".join(str(s) for s in sizes)


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter's warnings concern its own internals, not the user's network."""
    logging.disable(logging.CRITICAL)
    try:
        hidden = StringIO()
        with warnings.catch_warnings(), redirect_stdout(hidden), redirect_stderr(hidden):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
