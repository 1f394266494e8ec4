"""Neurons that are called once per timestep: each chain of calls becomes one neuron over T.

A loop over timesteps hands a membrane on, ``spikes, membrane = neuron(x, membrane)``.
Every call was exported as a ``StatefulStep`` (X, V) -> (Y, V'), whose membrane keeps it apart from
the calls of other timesteps (``snncc.frontends.loop_leaves``). The StatefulFire that takes their
place reads what they read, gathered, and hands on what they fired, one by one.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import networkx as nx
import onnx_ir as ir

from snncc.errors import Fault, UnsupportedModelError
from snncc.ir.graphs import is_zero, label, nodes, provenance, static_shape
from snncc.ir.lineage import Lineage
from snncc.ir.metadata import CALLS
from snncc.ir.names import TRAINED
from snncc.ir.ops import DOMAIN

__all__ = ["STEP", "gather_steps", "require_loops"]

STEP = "StatefulStep"


def gather_steps(model: ir.Model) -> None:
    """Every chain of calls becomes one StatefulFire.

    Raises:
        UnsupportedModelError: A membrane is read by more than the next call, begins with something,
            or depends on spikes of earlier timesteps; all such calls are listed.
    """
    steps = list(nodes(model, STEP))
    if not steps:
        return
    _require_none([fault for step in steps for fault in _faults(step)])
    chains = [_chain(step) for step in steps if _last(step) is None]
    _require_none(_recurrent(model, chains))
    lineage = Lineage.of(model)
    for chain in chains:
        _gather(chain, lineage)
    lineage.write(model)
    model.graph.sort()


def require_loops(model: ir.Model, paths: Collection[str]) -> None:
    """Neurons that keep their membrane between calls are called more than once in the network.

    Args:
        model: Imported.
        paths: Of such neurons.

    Raises:
        UnsupportedModelError: Some are not: their loop is outside, and T is not known.
    """
    alone = [n for n in nodes(model, "StatefulFire") if label(n) in paths and not _is_loop_of(n)]
    _require_none(
        [_fault(n, "is called in one timestep only, its membrane never matters",
                "a module whose forward loops over the timesteps") for n in alone]
    )  # fmt: skip


def _is_loop_of(node: ir.Node) -> bool:
    """Whether a neuron stands for several calls."""
    return "," in node.metadata_props.get(CALLS, "")


def _require_none(faults: list[Fault]) -> None:
    if found := list(dict.fromkeys(faults)):  # a loop shows each as often as it runs
        raise UnsupportedModelError("calls of neurons are no timesteps of one neuron", found)


def _last(step: ir.Node) -> ir.Node | None:
    """The call whose membrane this one goes on with."""
    membrane = step.inputs[1] if len(step.inputs) > 1 else None
    maker = membrane.producer() if membrane is not None else None
    return maker if maker is not None and maker.op_type == STEP else None


def _next(step: ir.Node) -> ir.Node | None:
    readers = [node for node, _ in step.outputs[1].uses()]
    return readers[0] if readers else None


def _chain(step: ir.Node) -> list[ir.Node]:
    chain, following = [step], _next(step)
    while following is not None:
        chain.append(following)
        following = _next(following)
    return chain


def _faults(step: ir.Node) -> list[Fault]:
    """What keeps a call from being one timestep of a neuron."""
    membrane, state = step.inputs[1] if len(step.inputs) > 1 else None, step.outputs[1]
    found = []
    if _last(step) is None and membrane is not None and not is_zero(membrane):
        found.append(("begins with a membrane that is not empty", "begin with zeros, or none"))
    readers = [(node, index) for node, index in state.uses()]
    others = [n for n, index in readers if n.op_type != STEP or index != 1]
    if others or state.is_graph_output() or len(readers) > 1:
        found.append(
            ("hands its membrane to more than its next call",
             "let only spikes leave a neuron; return them, their mean or their sum over T")
        )  # fmt: skip
    elif readers and _settings(readers[0][0]) != _settings(step):
        found.append(("goes on as another neuron", "one neuron for all timesteps"))
    return [_fault(step, *texts) for texts in found]


def _settings(step: ir.Node) -> dict[str, Any]:
    return {k: a.value for k, a in step.attributes.items()}


def _recurrent(model: ir.Model, chains: list[list[ir.Node]]) -> list[Fault]:
    """Neurons that depend on spikes of an earlier timestep, their own included."""
    of = {step: i for i, chain in enumerate(chains) for step in chain}
    ahead: dict[ir.Value, set[int]] = {}
    graph = nx.DiGraph()
    for node in model.graph:
        inputs = node.inputs[:1] if node in of else node.inputs
        found = set().union(*(ahead.get(v, set()) for v in inputs if v is not None))
        if node in of:
            graph.add_edges_from((other, of[node]) for other in found)
            found = {of[node]}
        ahead.update(dict.fromkeys(node.outputs, found))
    loops = [part for part in nx.strongly_connected_components(graph) if _is_loop(graph, part)]
    return [
        _fault(chains[i][0], "reads spikes of an earlier timestep",
               "no recurrent connections; all layers see one timestep after the other")
        for i in sorted(i for loop in loops for i in loop)
    ]  # fmt: skip


def _is_loop(graph: Any, part: set[int]) -> bool:
    return len(part) > 1 or any(graph.has_edge(i, i) for i in part)


def _gather(chain: list[ir.Node], lineage: Lineage) -> None:
    """One neuron before the calls; they hand on what it fires."""
    first, T = chain[0], len(chain)
    x = first.inputs[0]
    assert x is not None
    sizes = static_shape(first.outputs[0]) or ()
    joined = _node("", "Concat", [step.inputs[0] for step in chain], {"axis": 0}, first)
    fire = _node(DOMAIN, "StatefulFire", joined.outputs, {"T": T, **_settings(first)}, first)
    fire.metadata_props[CALLS] = ",".join(step.metadata_props.get(CALLS, "") for step in chain)
    parts = _node("", "Split", fire.outputs, {"axis": 0, "num_outputs": T}, first, T)
    for value, steps in ((joined.outputs[0], "inputs"), (fire.outputs[0], "outputs")):
        names = [str(getattr(step, steps)[0].name) for step in chain]
        value.name, value.shape, value.type = f"{names[0]}:steps", ir.Shape([None, *sizes]), x.type
        lineage.note(value.name, "steps", *(f"{TRAINED}{name}" for name in names))
    graph = first.graph
    assert graph is not None
    graph.insert_before(first, (joined, fire, parts))
    for step, part in zip(chain, parts.outputs, strict=True):
        part.name, step.outputs[0].name = step.outputs[0].name, None
        part.shape, part.type = step.outputs[0].shape, x.type
        ir.convenience.replace_all_uses_with(step.outputs[0], part, replace_graph_outputs=True)
    graph.remove(chain, safe=True)


def _node(
    domain: str, kind: str, inputs: Any, attributes: dict[str, Any], like: ir.Node, outputs: int = 1
) -> ir.Node:
    made = ir.convenience.convert_attributes(attributes)
    node = ir.Node(domain, kind, inputs, made, num_outputs=outputs)
    node.metadata_props.update(like.metadata_props)
    return node


def _fault(step: ir.Node, what: str, todo: str) -> Fault:
    origin = provenance(step)
    return Fault(
        what, origin.module or str(step.name), "neuron", origin.module, origin.source, todo
    )
