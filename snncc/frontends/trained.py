"""The trained network itself, run by PyTorch, with every value that its graph has a name for.

The program that PyTorch exported is run node by node. Where there is a module, eager PyTorch runs
that first: what its neurons and roundings did, call by call, takes the place of what the program
would make of them. So a program that is not the module shows, and no difference travels further.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch
from torch.export.graph_signature import InputKind, InputSpec, OutputKind
from torch.fx import Interpreter, Node
from torch.utils._python_dispatch import TorchDispatchMode

from snncc.errors import Fault, VerificationError
from snncc.frontends.leaves import Call, Record, recorded
from snncc.frontends.own_operators import compute
from snncc.frontends.pytorch import Exported
from snncc.frontends.results import flat_results
from snncc.frontends.sequences import STATIC, Frames
from snncc.frontends.sparse_leaves import holding
from snncc.frontends.untouched import untouched
from snncc.ir.float64 import in_float64
from snncc.ir.metadata import CALLS, PART
from snncc.ir.names import TRAINED
from snncc.ir.oracle import evaluate
from snncc.ir.standard_ops import ROUNDINGS
from snncc.nn import apply_patch_mask

__all__ = ["TrainedModule"]

Array = npt.NDArray[Any]

#: What makes integers of real values, whether in place or not.
_ROUNDINGS = {*map(str.lower, ROUNDINGS), "trunc"}


@dataclass(frozen=True, eq=False)
class TrainedModule:
    """A module, or a program that was saved without one, as it was exported.

    Attributes:
        exported: What was made of it.
        module: The module; none: the program alone is the network.
        frames: How the module takes its input.
    """

    exported: Exported
    module: torch.nn.Module | None = None
    frames: Frames = STATIC

    @property
    def words(self) -> str:
        """What computes the values, for people."""
        return "PyTorch" if self.module is not None else "the exported program in PyTorch"

    @cached_property
    def _wide(self) -> ir.Model:
        return in_float64(self.exported.model)

    @property
    def wide_names(self) -> frozenset[str]:
        """The values that are known in float64: those of the imported graph."""
        return frozenset(str(v.name) for node in self._wide.graph for v in node.outputs)

    def wide_values(self, feeds: Mapping[str, Array], wanted: Collection[str]) -> dict[str, Array]:
        """Values of the imported graph, computed in float64.

        Args:
            feeds: Its inputs by name, float64 (N, *shape).
            wanted: Names.
        """
        return evaluate(self._wide, feeds, wanted)

    def values(
        self, feeds: Mapping[str, Array], wanted: Collection[str] | None = None
    ) -> dict[str, Array]:
        """What PyTorch computes, float32, under names that begin with ``TRAINED``.

        Args:
            feeds: Inputs of the graph by name, float32 (N, *shape).
            wanted: Names; none: all that the program has.

        Raises:
            VerificationError: The program does not do what the module does; each call is named.
        """
        given = [feeds[str(value.name)] for value in self.exported.model.graph.inputs]
        tensors = [torch.from_numpy(np.ascontiguousarray(x)) for x in given]
        done = _Done() if self.module is None else self._run(self.module, tensors)
        with torch.no_grad():
            replay = _Replay(self.exported.program, done, wanted)
            replay.start(tensors)
        if replay.faults:
            what = "import: the exported program does not do what the module does"
            raise VerificationError(what, replay.faults)
        return replay.found

    def _run(self, module: torch.nn.Module, tensors: list[torch.Tensor]) -> _Done:
        """What eager PyTorch does; every tensor is a copy."""
        x, *masks = tensors
        mask = masks[0] if masks else None
        x = x.clone() if mask is None else apply_patch_mask(x, mask)
        leaves = list(self.exported.leaves)
        with (
            untouched(module),
            self.frames.given_to(module),
            flat_results(module),
            holding(module, mask),
            recorded(leaves) as record,
            _Roundings(record) as roundings,
        ):
            returned = module(x)
        results = returned if isinstance(returned, tuple) else (returned,)
        return _Done(record.calls, roundings.found, [r.detach().clone() for r in results])


@dataclass(frozen=True)
class _Rounding:
    """One rounding of the author's own: its operator, what it read and what it made."""

    name: str
    x: torch.Tensor
    y: torch.Tensor


@dataclass(frozen=True)
class _Done:
    """What eager PyTorch did: calls of neurons, roundings outside of these, the results."""

    calls: Sequence[Call] = ()
    roundings: Sequence[_Rounding] = ()
    results: Sequence[torch.Tensor] | None = None


def _rounding_of(func: Any) -> str:
    """The name of a rounding operator, or nothing."""
    namespace, _, name = str(getattr(func, "overloadpacket", "")).partition(".")
    name = name.rstrip("_")
    return name if namespace == "aten" and name in _ROUNDINGS else ""


class _Roundings(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Within this context roundings outside of leaves are kept, in their order."""

    def __init__(self, record: Record) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.record = record
        self.found: list[_Rounding] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operator; keep copies of what it read and made."""
        name = "" if self.record.inside else _rounding_of(func)
        x = args[0].detach().clone() if name else None
        out = func(*args, **(kwargs or {}))
        if x is not None and x.is_floating_point():
            self.found.append(_Rounding(name, x, out.detach().clone()))
        return out


class _Replay(Interpreter):
    """Runs a program with what eager PyTorch did in the places of its neurons and roundings.

    Attributes:
        found: Values by name.
        faults: Where the program is not what eager PyTorch did.
    """

    def __init__(
        self,
        program: torch.export.ExportedProgram,
        done: _Done,
        wanted: Collection[str] | None,
    ) -> None:
        super().__init__(program.graph_module)
        self.program, self.done, self.wanted = program, done, wanted
        self.left = deque(done.roundings)
        self.found: dict[str, Array] = {}
        self.faults: list[Fault] = []

    def start(self, inputs: Sequence[torch.Tensor]) -> None:
        """Run it on the network's inputs."""
        given = iter(inputs)
        signature = self.program.graph_signature
        self.run(*(self._constant(spec, given) for spec in signature.input_specs))
        outs = [s.arg.name for s in signature.output_specs if s.kind == OutputKind.USER_OUTPUT]
        for name, result in zip(outs, self.done.results or (), strict=False):
            self._keep(name, result)

    def _constant(self, spec: InputSpec, given: Iterator[torch.Tensor]) -> Any:
        if spec.kind == InputKind.USER_INPUT:
            return next(given)
        name = str(spec.target)
        held: Mapping[str, Any] = self.program.state_dict
        return held[name] if name in held else self.program.constants[name]

    def run_node(self, n: Node) -> Any:
        """Run one node, or take what eager PyTorch did there; its value is kept."""
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        if n.op == "call_function" and "onnx_symbolic" in str(n.target):
            value = self._own(n, args[0], _settings(args, kwargs))
        elif n.op == "call_function" and self.done.results is not None and _rounding_of(n.target):
            value = self._rounded(n, args[0], super().run_node(n))
        else:
            value = super().run_node(n)
        self._keep(n.name, value)
        return value

    def _keep(self, name: str, value: Any) -> None:
        name = f"{TRAINED}{name}"
        if isinstance(value, torch.Tensor) and (self.wanted is None or name in self.wanted):
            self.found[name] = value.detach().numpy()

    def _own(self, n: Node, inputs: list[torch.Tensor], settings: dict[str, Any]) -> Any:
        """One of our operators: a neuron, whose call has been made, or a masked layer."""
        if CALLS not in settings:
            return compute(settings["kind"], inputs, settings)
        number, drive = int(settings[CALLS]), n.args[0][0]  # type: ignore[index]
        call = self.done.calls[number] if number < len(self.done.calls) else None
        if call is None or call.drive.numel() != inputs[0].numel():
            self._fault(n, "PyTorch makes no such call of this neuron")
            return self._several(n, torch.zeros_like(inputs[0]))
        x, spikes = call.over_time()
        first, *others = call.parts
        if others and not torch.equal(sum(others, first), spikes):
            self._fault(n, "no spikes of its memories add up to those of PyTorch")
        self._keep(str(drive), x.reshape(inputs[0].shape))  # as the module computed it
        own = call.parts[int(settings.get(PART, 0))]
        return self._several(n, own.reshape(inputs[0].shape))

    @staticmethod
    def _several(n: Node, spikes: torch.Tensor) -> Any:
        """As the operator returns it: spikes, and a membrane that only the next call reads."""
        return [spikes, torch.zeros_like(spikes)] if "multi_out" in str(n.target) else spikes

    def _rounded(self, n: Node, x: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
        """What eager PyTorch rounded here; what it rounded in vain is left out."""
        name = _rounding_of(n.target)
        alike = [r for r in self.left if r.name == name and r.y.shape == own.shape]
        found = next((r for r in alike if torch.equal(r.y, own)), next(iter(alike), None))
        if found is None:
            self._fault(n, "PyTorch does not round here")
            return own
        while self.left.popleft() is not found:
            pass
        self._keep(str(n.args[0]), found.x)
        return found.y

    def _fault(self, n: Node, what: str) -> None:
        stack = list(n.meta.get("nn_module_stack", {}).values())
        path = str(stack[-1][0]) if stack else ""
        self.faults.append(Fault(what, n.name, _rounding_of(n.target), path))


def _settings(args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Kind, attributes and metadata of a node of ours; ``torch.onnx.ops.symbolic`` packs them."""
    found = dict(zip(kwargs["metadata_props_keys"], kwargs["metadata_props_values"], strict=True))
    values = {"i": kwargs["attr_ints"], "f": kwargs["attr_floats"], "s": kwargs["attr_strs"]}
    packed = zip(kwargs["attr_keys"], kwargs["attr_types"], kwargs["attr_pos"], strict=True)
    for key, kind, (start, stop) in packed:
        part = values[kind[0]][start:stop]
        found[key] = part if kind.endswith("s") and kind != "s" else part[0]
    return {"kind": args[1], **found}
