"""From a bare ``.onnx`` file to the imported graph."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
import onnx.checker
import onnx.external_data_helper
import onnx.numpy_helper
import onnx.shape_inference
import onnx.version_converter
import onnx_ir as ir
import onnx_ir.passes.common as common
from google.protobuf.message import DecodeError, Message

from snncc.errors import BadInputError, Fault, UnsupportedModelError
from snncc.frontends.limits import live, require_affordable, require_few_nodes
from snncc.frontends.operands import require_fitting
from snncc.frontends.quantised_file import require_qdq, standardised
from snncc.frontends.tidy import tidy
from snncc.ir.metadata import PREFIX
from snncc.ir.names import MARKS, TRAINED
from snncc.ir.ops import DOMAIN, OPSET, functions_of, register_schemas
from snncc.ir.results import name_results
from snncc.system.damage import damaged, open_regular

__all__ = ["at_opset", "import_onnx", "inlined", "read_onnx", "with_functions"]

#: A prime that no other axis has.
_BATCH = 7919


def import_onnx(path: str | Path) -> ir.Model:
    """Read an ONNX file, bring it to the compiler's opset and inline its functions.

    Raises:
        BadInputError: Not ONNX, damaged, its external data lies outside its folder, or it asks for
            more nodes, bytes or time than a network may.
        UnsupportedModelError: More than one input, no output, or an opset that cannot be converted.
    """
    path = Path(path)
    proto = read_onnx(path)
    _check_ports(proto)
    require_qdq(proto)
    model = ir.from_proto(_convert(proto, path))
    model.functions.clear()  # of our own operators, which stay one node each
    if len(model.graph.outputs) > 1:
        name_results(model, [str(value.name) for value in model.graph.outputs])
    return tidy(model)


def read_onnx(path: Path) -> onnx.ModelProto:
    """The file with its external data; weights that are inputs as well are weights alone.

    Nothing of it is run.

    Raises:
        BadInputError: Not ONNX, damaged, or its external data lies outside its folder.
    """
    try:
        with open_regular(path) as file:
            proto = onnx.load(file, load_external_data=False)
    except FileNotFoundError as e:
        raise BadInputError(f"{path}: no such file") from e
    except OSError as e:
        raise BadInputError(f"{path}: cannot be read ({e.strerror or e})") from e
    except (DecodeError, ValueError) as e:
        raise damaged(path, str(e), "not an ONNX file") from e
    _check_text(proto, path)
    if lacking := _lacking(proto):
        raise damaged(path, lacking, "not an ONNX file")
    _check_external(proto, path)
    try:
        onnx.external_data_helper.load_external_data_for_model(proto, str(path.parent))
    except (OSError, ValueError, onnx.checker.ValidationError) as e:
        raise damaged(path, str(e), "its external data are") from e
    _check_arrays(proto, path)
    _drop_listed_weights(proto)
    _drop_our_metadata(proto)
    _name_nodes_apart(proto)
    _name_values_apart(proto, path)
    return proto


def _lacking(proto: onnx.ModelProto) -> str:
    """What a file is without that ends too early, though protobuf can read it."""
    if not proto.graph.node:
        return "no nodes"
    known = {entry.domain or "ai.onnx" for entry in proto.opset_import}
    unknown = {node.domain or "ai.onnx" for node in proto.graph.node} - known
    return f"no opset of {', '.join(sorted(unknown))}" if unknown else ""


def _check_arrays(proto: onnx.ModelProto, path: Path) -> None:
    faults = []
    for tensor in onnx.external_data_helper._get_all_tensors(proto):
        try:
            onnx.numpy_helper.to_array(tensor)
        except Exception as e:  # whatever a damaged tensor provokes
            faults.append(Fault(f"its data do not fit its shape or type: {e}", tensor.name))
    if faults:
        raise BadInputError(f"{path}: damaged weights; copy or download it again", faults)


def _check_text(proto: onnx.ModelProto, path: Path) -> None:
    """Strings must be text: of a damaged file protobuf hands them out as bytes."""
    if not _is_text(proto):
        raise damaged(path, "names in it are not text")


def _is_text(message: Any) -> bool:
    for field, value in message.ListFields():
        if field.type == field.TYPE_STRING:
            texts = [value] if isinstance(value, (str, bytes)) else value
            if not all(isinstance(text, str) for text in texts):
                return False
        elif field.type == field.TYPE_MESSAGE:
            parts = [value] if isinstance(value, Message) else value
            if not all(_is_text(part) for part in parts):
                return False
    return True


def _check_external(proto: onnx.ModelProto, path: Path) -> None:
    """Refuse weights outside the file's own folder: they could be any file of the machine."""
    folder = path.parent.resolve()
    faults = []
    for tensor in onnx.external_data_helper._get_all_tensors(proto):
        where = {entry.key: entry.value for entry in tensor.external_data}.get("location")
        if where is None:
            continue
        try:
            target = (folder / where).resolve()
            is_file = os.path.isfile(target)
        except (OSError, ValueError, RuntimeError) as e:  # too long, NUL in it, a loop of links
            faults.append(Fault(f"external data {where[:80]!r} cannot be a file: {e}", tensor.name))
            continue
        if not target.is_relative_to(folder):
            faults.append(Fault(f"external data '{where}' points outside its folder", tensor.name))
        elif not is_file:
            faults.append(Fault(f"external data '{where}' is missing", tensor.name))
    if faults:
        raise BadInputError(f"{path}: bad external data", faults)


def _drop_listed_weights(proto: onnx.ModelProto) -> None:
    """Weights are no inputs, though IR version 3 demands them there; some are listed twice."""
    weights = {t.name for t in proto.graph.initializer}
    inputs = [v for v in proto.graph.input if v.name not in weights]
    del proto.graph.input[:]
    proto.graph.input.extend(inputs)
    proto.ir_version = max(proto.ir_version, 4)  # the first that lets them out


def _drop_our_metadata(proto: onnx.ModelProto) -> None:
    """What this compiler notes in graphs is believed; a file must not bring notes of its own."""
    for holder in (proto, proto.graph, *proto.graph.node):
        kept = [prop for prop in holder.metadata_props if not prop.key.startswith(PREFIX)]
        del holder.metadata_props[:]
        holder.metadata_props.extend(kept)


def _name_nodes_apart(proto: onnx.ModelProto) -> None:
    """Names of nodes mean nothing, but ONNX Runtime wants each once."""
    count = Counter(node.name for node in proto.graph.node)
    taken = set(count)
    for node in proto.graph.node:
        if not node.name or count[node.name] == 1:
            continue
        name = _free(node.name, "'", taken)
        taken.add(name)
        node.name = name


def _name_values_apart(proto: onnx.ModelProto, path: Path) -> None:
    """No value may have a name that this compiler could make of another's.

    Raises:
        BadInputError: The input or the result has one; users know them by it.
    """
    graph = proto.graph
    ports = {v.name for v in (*graph.input, *graph.output)}
    if reserved := sorted(name for name in ports if name.startswith(TRAINED)):
        raise BadInputError(
            f"{path}: inputs and outputs must not begin with '{TRAINED}': "
            f"{', '.join(reserved)}; rename them"
        )
    made = [name for node in graph.node for name in node.output if name and name not in ports]
    taken = {*ports, *made, *(t.name for t in graph.initializer)}
    names: dict[str, str] = {}
    for name in made:
        ahead = any(port.startswith(tuple(name + mark for mark in MARKS)) for port in ports)
        if ahead or name.startswith(TRAINED) or _is_derived(name, taken):
            names[name] = _free(re.sub(f"[{TRAINED}{MARKS}]", "_", name), "_", taken)
            taken.add(names[name])
    if names:
        _rename_values(graph, names)


def _is_derived(name: str, taken: set[str]) -> bool:
    """Whether a name is another's and more."""
    return any(mark in MARKS and name[:i] in taken for i, mark in enumerate(name))


def _free(name: str, more: str, taken: set[str]) -> str:
    while name in taken:
        name += more
    return name


def _rename_values(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Rename values wherever they stand, in the bodies of branches and loops as well."""
    for value in graph.value_info:
        value.name = names.get(value.name, value.name)
    for node in graph.node:
        for ends in (node.input, node.output):
            ends[:] = [names.get(name, name) for name in ends]
        for held in node.attribute:
            for body in (held.g, *held.graphs) if held.HasField("g") else held.graphs:
                _rename_values(body, names)
                for out in body.output:
                    out.name = names.get(out.name, out.name)


def _check_ports(proto: onnx.ModelProto) -> None:
    inputs = [v.name for v in proto.graph.input]
    outputs = [v.name for v in proto.graph.output]
    if len(inputs) != 1 or not outputs:
        raise UnsupportedModelError(
            f"one input and at least one output are expected; the graph has inputs {inputs} and "
            f"outputs {outputs}; cut it with onnx.utils.extract_model"
        )


def _fix_batch(proto: onnx.ModelProto) -> None:
    """Give a free batch axis a size, so that shape arithmetic folds; tidy frees it again."""
    sizes = proto.graph.input[0].type.tensor_type.shape.dim
    if sizes and not sizes[0].HasField("dim_value"):
        sizes[0].dim_value = _BATCH
        del proto.graph.value_info[:]
        for out in proto.graph.output:
            for size in out.type.tensor_type.shape.dim:
                size.ClearField("dim_param")


def with_functions(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The file with the bodies of our operators, where it uses them; a file's own do not count."""
    register_schemas()
    inner = [n for f in proto.functions for n in f.node if f.domain != DOMAIN]
    used = {n.op_type for n in (*proto.graph.node, *inner) if n.domain == DOMAIN}
    others = [f for f in proto.functions if f.domain != DOMAIN]
    del proto.functions[:]
    proto.functions.extend([*others, *functions_of(used)])
    return proto


def inlined(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The file with the bodies of its own functions in place of their calls; ours stay calls.

    What no result needs is left out.

    Raises:
        BadInputError: There would be too many nodes.
    """
    require_few_nodes(proto)
    own = [f for f in proto.functions if f.domain == DOMAIN]
    if len(own) == len(proto.functions):
        return _live(proto)
    model = ir.from_proto(proto)
    for f in own:
        del model.functions[f.domain, f.name, f.overload]
    common.InlinePass()(model)
    proto = ir.to_proto(model)
    proto.functions.extend(own)
    return _live(proto)


def _live(proto: onnx.ModelProto) -> onnx.ModelProto:
    needed = live(proto)
    del proto.graph.node[:]
    proto.graph.node.extend(needed)
    return proto


def at_opset(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The file at the compiler's opset.

    Raises:
        UnsupportedModelError: ONNX has no way there for one of its operators.
    """
    opset = next((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), 0)
    if opset == OPSET:
        return proto
    todo = f"export it at opset {OPSET}"
    newest = onnx.defs.onnx_opset_version()
    if not 1 <= opset <= newest:
        raise UnsupportedModelError(
            f"opset {opset}: the installed ONNX knows 1 to {newest}; {todo}"
        )
    try:
        return onnx.version_converter.convert_version(proto, OPSET)
    except Exception as e:  # a bare RuntimeError, and whatever a damaged file provokes
        why = re.sub(r"^\S+:\d+: \w+: Assertion .* failed:? ?", "", " ".join(str(e).split()))
        raise UnsupportedModelError(
            f"opset {opset} cannot be brought to {OPSET}: {why}; {todo}"
        ) from e


def _convert(proto: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    try:
        proto = standardised(at_opset(inlined(with_functions(proto))))
        _fix_batch(proto)
        require_affordable(proto)
        proto = onnx.shape_inference.infer_shapes(proto, data_prop=True)
        onnx.checker.check_model(proto)
        onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True)
        require_fitting(proto)
        return proto
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as e:
        raise BadInputError(f"{path}: not valid ONNX: {' '.join(str(e).split())}") from e
    except (BadInputError, UnsupportedModelError) as e:
        raise e.within(f"{path}: ") from e
    except Exception as e:  # onnx raises nearly anything on a damaged file
        raise BadInputError(f"{path}: not valid ONNX: {' '.join(str(e).split())}") from e
