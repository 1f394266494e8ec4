"""The stages of a graph, each a table of allowed operators, and the check that runs after passes.

``imported`` -> ``integer`` -> ``quantised`` -> ``spiking``. The tables follow from what operators
say of themselves (``snncc.ir.traits``).
"""

from __future__ import annotations

import onnx
import onnx.checker
import onnx_ir as ir

from snncc.errors import Fault, SnnccError
from snncc.ir.graphs import provenance, to_proto
from snncc.ir.metadata import STAGE
from snncc.ir.ops import DOMAIN, OPS, allowed, register_schemas
from snncc.ir.traits import ORDER

__all__ = ["STAGES", "forbidden", "set_stage", "stage_of", "verify_stage"]

#: Stage -> allowed (domain, operator). ``imported`` allows every standard operator.
STAGES: dict[str, frozenset[tuple[str, str]] | None] = {
    stage: None if stage == ORDER[0] else allowed(stage) for stage in ORDER
}


def stage_of(model: ir.Model) -> str:
    """The stage a model says it is in."""
    return model.metadata_props.get(STAGE, "imported")


def set_stage(model: ir.Model, stage: str) -> None:
    """Mark a model as being in ``stage``."""
    model.metadata_props[STAGE] = stage


def forbidden(model: ir.Model, stage: str) -> list[ir.Node]:
    """Nodes that the stage's table does not allow."""
    allowed = STAGES[stage]
    if allowed is None:
        own = {(DOMAIN, name) for name in OPS}
        return [n for n in model.graph if n.domain and (n.domain, n.op_type) not in own]
    return [n for n in model.graph if (n.domain, n.op_type) not in allowed]


def verify_stage(model: ir.Model, stage: str) -> None:
    """Check a graph against its stage's table, the schemas and unique value names.

    Raises:
        SnnccError: The graph is not valid there (a compiler fault, exit code 1), listing nodes.
    """
    faults = [
        Fault(
            f"not allowed in stage '{stage}'",
            node=str(n.name),
            kind=n.op_type,
            module=provenance(n).module,
        )
        for n in forbidden(model, stage)
    ]
    if faults:
        raise SnnccError(f"graph does not fit stage '{stage}'", faults)
    register_schemas()
    try:
        onnx.checker.check_model(_light(model))
    except onnx.checker.ValidationError as e:
        raise SnnccError(f"graph of stage '{stage}' is not valid ONNX: {e}") from e


def _light(model: ir.Model) -> onnx.ModelProto:
    """The proto with its large initializers turned into inputs: the checker need not see them."""
    copy = model.clone()
    for name, value in list(copy.graph.initializers.items()):
        if value.const_value is not None and value.const_value.nbytes > 1024:
            del copy.graph.initializers[name]
            copy.graph.inputs.append(value)
    return to_proto(copy)


def describe(op_type: str) -> str:
    """One line on an operator of our domain."""
    return OPS[op_type].doc
