"""What every import ends with: constants folded, names people know, short provenance."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from math import prod
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as common
import onnxscript.optimizer

from snncc.errors import BadInputError, Fault, UnsupportedModelError
from snncc.frontends.limits import FoldingBudget
from snncc.frontends.loops import STEP, gather_steps
from snncc.frontends.quantised_file import dequantise
from snncc.ir.graphs import (
    Edit,
    Provenance,
    attribute,
    constant,
    initializer,
    label,
    nodes,
    provenance,
    replace_value,
    set_provenance,
    static_shape,
)
from snncc.ir.lineage import Lineage
from snncc.ir.metadata import PREFIX
from snncc.ir.names import NEW, TRAINED
from snncc.ir.ops import DOMAIN, NEURONS
from snncc.ir.stages import forbidden, set_stage

__all__ = ["tidy", "users_line"]

#: What has no known shape stays without one; it is reported where one is needed.
_INFERENCE = common.ShapeInferencePass(check_type=False, strict_mode=False)
#: Weights that are computed, as by a quantiser of weights, are folded whatever their size.
_ANY_SIZE = 1 << 31
_INSIDE = re.compile(r"(^|/)torch/|snncc/(frontends|nn)/")
_FRAME = re.compile(r'File "([^"]+)", line (\d+)')


def tidy(model: ir.Model) -> ir.Model:
    """The model as stage ``imported``: constant-folded, inlined, named by module path.

    A batch axis of fixed size becomes free.

    Raises:
        BadInputError: A weight holds NaN or infinity, or a batch norm a variance that is not
            positive; all of them are listed. Or constants take too many bytes or too much time.
        UnsupportedModelError: The input is not float32 of a fixed shape per sample, or there are
            operators of foreign domains.
    """
    model = model.clone()  # plain onnx-ir values: the exporter's own overload operators
    for node in model.graph:
        set_provenance(node, _origin(node))
    _add_in_pairs(model)
    origins = {out.name: provenance(node) for node in model.graph for out in node.outputs}
    inputs = [v for v in model.graph.inputs if v.name not in model.graph.initializers]
    model.graph.inputs[:] = inputs  # older exporters list weights as inputs
    _check_input(inputs[0])
    _check_domains(model)
    _fold(model, origins)
    _drop_false_biases(model)
    if dequantise(model):  # what else is done to weights, as scaling them, is constant now
        _fold(model, origins)
    gather_steps(model)
    _free_batch(model)
    for out in model.graph.outputs:
        _check_result(out)
    _check_finite(model)
    _check_variances(model)
    _rename(model)
    _strip(model)
    set_stage(model, "imported")
    return model


def _add_in_pairs(model: ir.Model) -> None:
    """A Sum of many, as dense networks have it, is one Add after the other: passes know Add."""
    for node in nodes(model, "Sum"):
        edit, out = Edit(node, ""), node.outputs[0]
        first, *others = node.inputs
        total = edit.op("Identity", first, name=f"{out.name}{NEW}", dtype=out.dtype)
        for i, other in enumerate(others):
            total = edit.op("Add", total, other, name=f"{out.name}{NEW}{i}", dtype=out.dtype)
        total.shape = out.shape
        replace_value(out, total)


def _fold(model: ir.Model, origins: Mapping[str | None, Provenance]) -> None:
    onnxscript.optimizer.fold_constants(
        model,
        input_size_limit=_ANY_SIZE,
        output_size_limit=_ANY_SIZE,
        should_fold=FoldingBudget(model),
    )
    for step in (
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.IdentityEliminationPass(),
        common.RemoveUnusedNodesPass(),
        _INFERENCE,
    ):
        step(model)
    for node in model.graph:  # what folding put in place of a node has no origin of its own
        if provenance(node) == Provenance():
            set_provenance(node, origins.get(node.outputs[0].name, Provenance()))


def _drop_false_biases(model: ir.Model) -> None:
    """PyTorch's exporter gives a Conv3d without a bias one of zeros [outputs, 2]."""
    for node in nodes(model, "Conv"):
        bias = constant(node.inputs[2]) if len(node.inputs) > 2 else None
        if bias is not None and bias.ndim != 1 and not bias.any():
            node.replace_input_with(2, None)


def _origin(node: ir.Node) -> Provenance:
    known = provenance(node)
    scopes = node.metadata_props.get("pkg.torch.onnx.name_scopes")
    if scopes is None:
        return replace(known, module=known.module or _path_of_name(node.name or ""))
    paths = re.findall(r"'([^']*)'", scopes)
    module = paths[-2] if len(paths) > 1 and not paths[-2].startswith("_empty_nn") else ""
    trace = node.metadata_props.get("pkg.torch.onnx.stack_trace", "")
    return replace(known, module=module, source=users_line(trace))


def _path_of_name(name: str) -> str:
    """``layer1.0.conv`` of ``/layer1/layer1.0/conv/Conv``, as the older exporter names nodes."""
    if not name.startswith("/"):
        return ""
    path: list[str] = []
    for part in [p for p in name.split("/") if p][:-1]:
        if path and part.startswith(f"{path[-1]}."):  # a child of Sequential repeats its parent
            path.pop()
        path.append(part)
    return ".".join(path)


def users_line(trace: str) -> str:
    """``file:line`` of the innermost frame that is neither torch's nor this package's."""
    frames = [(f, n) for f, n in _FRAME.findall(trace) if not _INSIDE.search(f)]
    if not frames:
        return ""
    file, line = frames[-1]
    path = Path(file)
    try:
        short = path.relative_to(Path.cwd())
    except ValueError:
        short = Path(*path.parts[-2:])
    return f"{short}:{line}"


def _check_input(x: ir.Value) -> None:
    if x.dtype != ir.DataType.FLOAT:
        kind = x.dtype.name.lower() if x.dtype is not None else "unknown"
        raise UnsupportedModelError(
            f"the input '{x.name}' is {kind}, float32 is expected; export the network in float32 "
            "(model.float()), without a cast of its input"
        )
    if static_shape(x) is None:
        raise UnsupportedModelError(
            f"the input '{x.name}' has a shape that varies after the batch axis: "
            f"{[str(d) for d in x.shape or ()][1:]}; export with a free batch axis alone"
        )


def _check_result(out: ir.Value) -> None:
    if out.shape is None or out.dtype is None:
        raise UnsupportedModelError(
            f"shape or type of the result '{out.name}' is not known: there is an operator on the "
            "way to it that cannot be followed; export at a fixed input shape"
        )


def _check_domains(model: ir.Model) -> None:
    faults = [
        Fault(
            f"operator of domain '{n.domain}', which is not ONNX's own",
            str(n.name), n.op_type, *_place(n), todo="export without custom operators",
        )
        for n in forbidden(model, "imported")
        if (n.domain, n.op_type) != (DOMAIN, STEP)
    ]  # fmt: skip
    if faults:
        raise UnsupportedModelError(f"{len(faults)} nodes have no known meaning", faults)


def _place(node: ir.Node) -> tuple[str, str]:
    origin = provenance(node)
    return origin.module, origin.source


def _free_batch(model: ir.Model) -> None:
    """Let the batch axis vary where the file fixes it: in the input and in reshapes."""
    x = model.graph.inputs[0]
    size = x.shape[0] if x.shape is not None else None
    if not isinstance(size, int):
        return
    for node in nodes(model, "Reshape"):
        _free_reshape(node, model.graph)
    for node in nodes(model):
        for out in node.outputs:
            out.shape = None
    x.shape = ir.Shape(["N", *x.shape[1:]])  # type: ignore[index]
    _INFERENCE(model)


def _free_reshape(node: ir.Node, graph: ir.Graph) -> None:
    """A reshape that regroups one sample says so: batch axis as it comes, the rest as it is."""
    x, out = node.inputs[0], node.outputs[0]
    before, after = static_shape(x) if x is not None else None, static_shape(out)
    if before is None or after is None or prod(before) != prod(after):
        return
    target = np.array([0, *after], dtype=np.int64)
    node.replace_input_with(1, initializer(graph, f"{out.name}.shape", target))
    node.attributes.pop("allowzero", None)


def _check_finite(model: ir.Model) -> None:
    faults = []
    for name, value in model.graph.initializers.items():
        tensor = value.const_value
        if tensor is None or not tensor.dtype.is_floating_point():
            continue
        bad = int(np.count_nonzero(~np.isfinite(tensor.numpy().astype(np.float32))))
        if bad:
            faults.append(Fault(f"{bad} of {tensor.size} values are NaN or infinite", node=name))
    if faults:
        raise BadInputError("weights are not finite", faults)


def _check_variances(model: ir.Model) -> None:
    """No trained network has a variance below 0; one of 0 without an epsilon ``diagnose`` names."""
    faults = []
    for node in nodes(model, "BatchNormalization"):
        variance = constant(node.inputs[4])
        if variance is None:
            continue
        bad = int(np.count_nonzero(~(variance + attribute(node, "epsilon", 1e-5) >= 0)))
        if bad:
            what = f"variance + epsilon is negative in {bad} of {variance.size} channels"
            name = str(node.inputs[4].name) if node.inputs[4] is not None else ""
            faults.append(Fault(what, name, node.op_type, *_place(node)))
    if faults:
        raise BadInputError("batch norms cannot be computed; train again", faults)


def _rename(model: ir.Model) -> None:
    """Name values by module path; a module's neuron, or else its last node, gets it plain.

    What belongs to no module keeps the name it has in the file.
    """
    ordered = sorted(model.graph, key=lambda node: node.op_type in NEURONS)
    last = {provenance(node).module: node for node in ordered}
    taken = {str(v.name) for v in model.graph.inputs} | set(model.graph.initializers)
    count: Counter[str] = Counter()
    lineage = Lineage.of(model)
    gathered = set(lineage.moves)
    for node in model.graph:
        module = provenance(node).module
        for out in node.outputs:
            base = "/".join(p for p in (module, node.op_type.lower()) if p)
            if not module and out.name:
                base = out.name
            elif last[module] is node and out is node.outputs[0]:
                base = module
            name = base
            while name in taken:
                count[base] += 1
                name = f"{base}:{count[base] + 1}"
            taken.add(name)
            old, out.name = out.name, name
            if old not in gathered:
                lineage.note(out.name, "same", f"{TRAINED}{old}")
            elif old != out.name:
                lineage.note(out.name, "same", str(old))
        node.name = node.outputs[0].name
    lineage.write(model)


def _strip(model: ir.Model) -> None:
    """Drop the exporter's own metadata: traces hold paths of the machine that exported."""
    for node in model.graph:
        for key in [k for k in node.metadata_props if not k.startswith(PREFIX)]:
            del node.metadata_props[key]
        node.doc_string = None
    for value in (*model.graph.inputs, *(v for n in model.graph for v in n.outputs)):
        value.metadata_props.clear()
    model.graph.metadata_props.clear()


def names(model: ir.Model) -> list[str]:
    """Labels of all nodes, for messages."""
    return [label(node) for node in model.graph]
