"""What cannot become spikes, and why: the one judge of ``compile`` and ``check``.

Every value is of a kind: ``source`` (the input, affinely mapped), ``spikes`` (counts of a neuron or
a gate, max-pooled or not), ``sums`` (averages and sums of these), ``potential`` (a linear layer's),
``attention``, ``tokens`` and ``product`` (of maps that were regrouped, see judge_tokens), ``shape``
(arithmetic on sizes) or ``real`` (anything else). A node that makes something real out of the rest
is a fault, and so is whatever stage ``integer`` does not allow.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf, prod

import onnx_ir as ir

from snncc.errors import Fault, Option, Words
from snncc.ir.graphs import attribute, constant, is_op, label, only_reader, provenance, static_shape
from snncc.ir.metadata import FOUND_NEURONS
from snncc.ir.ops import NEURONS, having, traits
from snncc.ir.results import results_of
from snncc.ir.stages import forbidden
from snncc.ir.standard_ops import ROUNDINGS
from snncc.ir.traits import Numbers
from snncc.passes.fold.no_neuron_between import GRADED, allows_payloads
from snncc.passes.integers.neurons import kind_of
from snncc.passes.integers.products import largest_count
from snncc.passes.judge.macs import macs_of, multiplying
from snncc.passes.judge.tokens import (
    LINEAR_ATTENTION,
    SHAPE,
    is_near_attention,
    is_of_shapes,
    judge_tokens,
    kind_of_followed,
    read_tokens,
)
from snncc.passes.reading import is_branch_sum, read_affine, read_linear
from snncc.passes.recognise.advice import (
    ADVICE,
    BORDER,
    BY_HAND,
    CONSTANT,
    COPIES,
    LINEAR,
    LOOP,
    LOOPED,
    MASKED_SHIFT,
    NEURON,
    NO_SPREAD,
    NORM_OF_BATCH,
    OPERATORS,
    OTHER,
    UNMASKED,
)
from snncc.passes.recognise.recognise_integer_fire import (
    clamp_of,
    is_part,
    quantiser_at,
    unclamped,
)
from snncc.passes.recognise.recognise_qdq import why_no_pair

__all__ = ["Diagnosis", "diagnose", "only"]


#: What lets layers read potentials.
_GRADED = Option("no_neuron_between", GRADED)
_LAYERS = having("imported", lambda t: t.weighs)


@dataclass(frozen=True)
class Diagnosis:
    """The verdict on a graph.

    Attributes:
        faults: Nodes that cannot become spikes, in topological order.
        near_misses: Those of the faults that are almost neurons.
        activations_found: Neurons and faulty activations together.
        activations_lowered: Neurons that can be lowered.
        macs, macs_lowerable: Multiply-accumulates of all linear layers, attention and products; of
            those whose input and output are of the right kind.
        until: Label of the last neuron with nothing faulty upstream, if there is any fault.
        results: Names of those of several results that have nothing faulty upstream, likewise.
        found_neurons: Those of the network's own code that were found by experiment, for people.
    """

    faults: tuple[Fault, ...]
    near_misses: tuple[Fault, ...]
    activations_found: int
    activations_lowered: int
    macs: int
    macs_lowerable: int
    until: str
    results: tuple[str, ...] = ()
    found_neurons: str = ""


def diagnose(model: ir.Model) -> Diagnosis:
    """Judge a graph after canonicalise, recognise-integer-fire, fold-batch-norm, merge-linear."""
    kinds = dict.fromkeys(model.graph.inputs, "source")
    graded = allows_payloads(model)
    tainted: set[ir.Value] = set()
    faults: list[Fault] = []
    near: list[Fault] = []
    calls: set[str] = set()
    until = ""
    names = _names_of_results(model)
    for node in model.graph:
        live = [v for v in node.inputs if v is not None and v in kinds]
        if not live:
            continue  # nothing that the network reads arrives there
        why = _named(node, _verdict(node, kinds, graded), names)
        bad = why is not None or any(v in tainted for v in live)
        for out in node.outputs:
            kinds[out] = "real" if why is not None else _kind(node, live, kinds)
            if bad:
                tainted.add(out)
        if why is not None:
            miss = _near_miss(node, kinds, why)
            near += [miss] if miss else []
            faults += [miss] if miss else _faults_of_call(node, why, calls)
        elif traits(node).fires and not bad:
            until = label(node)
    empty = _empty_results(model)
    tainted |= {*empty.values()}
    clean = _clean_results(model, tainted)
    left = _of_loops(faults) or _left_over(model)
    left += [_not_a_result(name, out, kinds, clean) for name, out in empty.items()]
    return replace(
        _summary(model, kinds, tainted, left, near, until, graded), results=clean if left else ()
    )


def _left_over(model: ir.Model) -> list[Fault]:
    """Where nothing was found, what the next stage does not allow all the same."""
    calls: set[str] = set()
    left = forbidden(model, "integer")
    return [f for n in left for f in _faults_of_call(n, ADVICE.get(n.op_type, OTHER), calls)]


# -- results -------------------------------------------------------------------------------


_RESULT = "the result is"


def _names_of_results(model: ir.Model) -> dict[ir.Value, str]:
    """Of each output the result that it is, where there are several."""
    outs, results = model.graph.outputs, results_of(model)
    named = {outs[place]: name for name, places in results.items() for place in places}
    return named if len(results) > 1 else {}


def _named(
    node: ir.Node, why: tuple[str, str] | None, names: dict[ir.Value, str]
) -> tuple[str, str] | None:
    """The verdict; one on a result says which."""
    name = next((names[out] for out in node.outputs if out in names), None)
    if why is None or name is None or not why[0].startswith(_RESULT):
        return why
    return why[0].replace(_RESULT, f"the result '{name}' is", 1), why[1]


def _empty_results(model: ir.Model) -> dict[str, ir.Value]:
    """Results that no layer and no neuron has a part in: there is nothing to spike for."""
    computed, outs = _computed(model), model.graph.outputs
    named = ((name, outs[p]) for name, places in results_of(model).items() for p in places)
    return {name: out for name, out in named if out not in computed}


def _computed(model: ir.Model) -> set[ir.Value]:
    """Values that layers or neurons have a part in, which read the input."""
    live, computed = {*model.graph.inputs}, set[ir.Value]()
    for node in model.graph:
        if not any(v in live for v in node.inputs):
            continue
        live |= {*node.outputs}
        works = traits(node).weighs or traits(node).fires or node.op_type == "MatMul"
        if works or any(v in computed for v in node.inputs):
            computed |= {*node.outputs}
    return computed


def _clean_results(model: ir.Model, tainted: set[ir.Value]) -> tuple[str, ...]:
    """Those of several that nothing faulty leads to; none where all are."""
    outs, places = model.graph.outputs, results_of(model)
    clean = [name for name, own in places.items() if not any(outs[p] in tainted for p in own)]
    return tuple(clean) if len(clean) < len(places) else ()


def only(names: tuple[str, ...]) -> Option:
    """The option that keeps these results alone."""
    return Option("results", names[0] if len(names) == 1 else names)


def _not_a_result(
    name: str, out: ir.Value, kinds: dict[ir.Value, str], clean: tuple[str, ...]
) -> Fault:
    of_input = "the result is the input, or computed from it without a layer"
    what = of_input if out in kinds else "the result is the same for every input"
    leave = Words("leave it out, with ", only(clean))
    return Fault(what, name, "result", todo=leave if clean else "return what the layers compute")


def _faults_of_call(node: ir.Node, why: tuple[str, str], calls: set[str]) -> list[Fault]:
    """The fault of a node; one for all nodes that a call of PyTorch became, where it is known."""
    origin = provenance(node)
    if origin.operator not in OPERATORS or why == NO_SPREAD:
        return [_fault(node, *why)]
    is_new = origin.call not in calls
    calls.add(origin.call)
    found = replace(_fault(node, *OPERATORS[origin.operator]), kind=origin.operator)
    return [found] if is_new else []


def _of_loops(faults: list[Fault]) -> list[Fault]:
    """What stands around a neuron written by hand is not wrong in itself."""
    if not any(fault.what == BY_HAND[0] for fault in faults):
        return faults
    what, todo = LOOP
    return [replace(f, what=what, todo=todo) if f.kind in LOOPED else f for f in faults]


def _kind(node: ir.Node, live: list[ir.Value], kinds: dict[ir.Value, str]) -> str:
    if (followed := kind_of_followed(node)) is not None:
        return followed
    if is_of_shapes(node, kinds):
        return SHAPE
    asked = traits(node)
    if asked.makes_counts:
        return "spikes"
    if asked.multiplies:
        return "attention"
    if asked.weighs or read_linear(node.outputs[0]) is not None:
        return "potential"
    kind = kinds[live[0]]
    adds = asked.averages or (asked.joins and asked.keeps_counts)
    return "sums" if adds and kind in ("source", "spikes") else kind


def _verdict(node: ir.Node, kinds: dict[ir.Value, str], graded: bool) -> tuple[str, str] | None:
    """Why the node cannot be lowered and what to do, or None if it can.

    Args:
        node: Which reads something live.
        kinds: Of all values before it.
        graded: Layers may read potentials.
    """
    if (found := judge_tokens(node, kinds)) is not None:
        return found.why
    return _judge(node, kinds, graded) or read_tokens(node, kinds)


def _judge(node: ir.Node, kinds: dict[ir.Value, str], graded: bool) -> tuple[str, str] | None:
    """The verdict on all that is no attention."""
    x = node.inputs[0]
    kind = kinds.get(x, "constant") if x is not None else "constant"
    kind, asked = "potential" if kind == "attention" else kind, traits(node)
    if asked.weighs:
        return _judge_linear(node, kind, graded)
    if asked.fires:
        return kind_of(node).fault(node)
    if read_linear(node.outputs[0]) is not None:
        return None
    if asked.begins_time or asked.ends_time:
        return _judge_time(node)
    if is_branch_sum(node):
        return _judge_sum(node, kinds)
    if (asked.joins and asked.keeps_counts) or (node.op_type == "OnGrid" and kind == "potential"):
        return None
    if _belongs_to_another(node) or _is_own_source(node):
        return None
    if node.op_type == "BatchNormalization" and read_affine(node) is None:
        return NORM_OF_BATCH if attribute(node, "training_mode", 0) else NO_SPREAD
    if node.op_type in ("Mul", "Add") and kind == "potential" and read_affine(node) is not None:
        return _judge_affine(node, graded)
    if kind == "real" and read_affine(node) is not None:
        return None  # innocent: what made the value real is reported
    if node.op_type == "Reshape":
        return _judge_reshape(node)
    if asked.takes_maximum:
        return _judge_max_pool(node, kind)
    if asked.averages:
        return _judge_average_pool(node)
    if asked.masks:
        is_masked_image = x is not None and x.is_graph_input()
        return None if kind in ("potential", "real") or is_masked_image else UNMASKED
    if node.op_type == "Pad":
        return BORDER if attribute(node, "mode", "constant") == "constant" else COPIES
    if any(constant(v) is not None for v in node.inputs):
        if node.op_type == "MatMul":
            return LINEAR
        if node.op_type in ("Add", "Mul"):
            return CONSTANT
    elif node.op_type == "Mul":
        return _judge_gate(node, kinds)
    return ADVICE.get(node.op_type, OTHER)


_FACTORS = {
    "source": "the input",
    "sums": "an average or sum of spikes",
    "potential": "a membrane potential",
    "attention": "a membrane potential",
}


def _judge_gate(node: ir.Node, kinds: dict[ir.Value, str]) -> tuple[str, str]:
    """No gate: says which of the factors are not spikes, and what they are."""
    what, todo = ADVICE["Mul"]
    factors = dict.fromkeys(x for x in node.inputs if x is not None)
    found = [(_known(x), _FACTORS.get(kinds.get(x, ""))) for x in factors]
    told = " and ".join(f"'{name}' is {kind}" for name, kind in found if kind)
    return (f"{what}: {told}" if told else what), todo


def _known(value: ir.Value) -> str:
    node = value.producer()
    return label(node) if node is not None else str(value.name)


def _judge_reshape(node: ir.Node) -> tuple[str, str] | None:
    out = node.outputs[0]
    x = node.inputs[0]
    size, before = static_shape(out), static_shape(x) if x is not None else None
    if size is None or before is None or prod(size) != prod(before):
        return "mixes the batch axis with others", "keep the batch axis first"
    if len(size) != 1 and out.uses():
        return "regroups channels, height and width", "flatten, or keep (C, H, W)"
    return None


def _judge_linear(node: ir.Node, kind: str, graded: bool) -> tuple[str, str] | None:
    if read_linear(node.outputs[0]) is None:
        if constant(node.inputs[1]) is None:
            return "its weights are not constant", "export in eval mode with fixed weights"
        return LINEAR
    if kind == "potential" and not graded:
        ends = node.op_type == "Gemm" and _is_the_end(node.outputs[0])
        # Where the mean was taken is not known any more: it waits for the end of the graph.
        mean = ", the mean over timesteps taken before it" if _ends_in_a_mean(node) else ""
        host = (", or give it to the host, ", Option("host", label(node)), mean) if ends else ()
        return (
            "follows a linear layer without a neuron between, and cannot be merged with it",
            Words("put a neuron between them, or compile with ", _GRADED, *host),
        )
    return None


def _is_the_end(value: ir.Value) -> bool:
    """Whether sums, factors and the sum over timesteps alone lead from a value to the result."""
    return all(
        (is_branch_sum(user) or read_affine(user) is not None or traits(user).ends_time)
        and _is_the_end(user.outputs[0])
        for user, _ in value.uses()
    )


def _ends_in_a_mean(node: ir.Node) -> bool:
    readers = [user for out in node.outputs for user, _ in out.uses()]
    return any(traits(user).ends_time or _ends_in_a_mean(user) for user in readers)


def _judge_sum(node: ir.Node, kinds: dict[ir.Value, str]) -> tuple[str, str] | None:
    """Branches may meet in membrane potentials of one shape."""
    left, right = node.inputs
    if left is None or right is None or static_shape(left) != static_shape(right):
        return "adds values of different shapes", "branches of one shape"
    found = {kinds.get(left, "real"), kinds.get(right, "real")}
    if "real" in found or found == {"potential"}:  # what is real is reported already
        return None
    if found <= {"spikes", "sums"}:
        return "a sum of spikes that no layer reads", "a layer or neuron after it"
    return "adds spikes to a potential of many features", "fewer features, or add after the neuron"


def _judge_affine(node: ir.Node, graded: bool) -> tuple[str, str] | None:
    """What no layer could take must end in the levels of neurons, or be the result."""
    ends, found = _ends(node.outputs[0]), read_affine(node)
    if "PatchMask" in ends and found is not None and found[1].shift.any():
        return MASKED_SHIFT
    scales = found is not None and not found[1].shift.any()
    layers = _LAYERS if graded and scales else ()
    if ends <= {*NEURONS, "output", "PatchMask", *layers}:
        return None
    return "scales a potential that other layers read as well", "a neuron right after it"


def _ends(value: ir.Value) -> set[str]:
    """Kinds of the readers after scales, shifts, averages and reshapes; masks on the way, too."""
    found = {"output"} if value.is_graph_output() else set()
    for user, _ in value.uses():
        asked, masks = traits(user), traits(user).masks
        regroups = asked.keeps_grid and (asked.regroups or asked.sums)
        passing = regroups or masks or read_affine(user) is not None
        found |= {user.op_type} if masks or not passing else set()
        found |= _ends(user.outputs[0]) if passing else set()
    return found


def _judge_max_pool(node: ir.Node, kind: str) -> tuple[str, str] | None:
    if (
        "ceil_mode" not in node.attributes
        or len(node.outputs) > 1
        or "dilations" in node.attributes
    ):
        return "dilated, indexed or ragged max-pool", "MaxPool2d with kernel, stride and padding"
    reader = only_reader(node.outputs[0])
    after = read_affine(reader) if kind == "potential" and reader is not None else None
    if after is not None and (after[1].scale <= 0).any():
        return "max-pool turned into a min-pool by a negative scale", "pool after the neuron"
    if kind == "spikes" and _graded(node.inputs[0]):
        return "max-pool of products of bursts", "max-pool what is multiplied"
    if kind == "sums" and not _only_neurons_read(node.outputs[0]):
        return "max-pool of averages or sums of spikes", "max-pool first, then average or add"
    return None


def _graded(value: ir.Value | None) -> bool:
    """Whether a product makes it whose maximum is no sum of the maxima of ticks."""
    node = value.producer() if value is not None else None
    if node is not None and traits(node).is_view:
        return _graded(node.inputs[0])
    return node is not None and traits(node).multiplies and largest_count(node.outputs[0]) > 1


def _only_neurons_read(value: ir.Value) -> bool:
    """Whether a max-pool that makes ``value`` can change places with its readers."""
    readers = [user for user, _ in value.uses()]
    return bool(readers) and all(
        traits(r).is_monotone or (traits(r).takes_maximum and _only_neurons_read(r.outputs[0]))
        for r in readers
    )


def _judge_time(node: ir.Node) -> tuple[str, str] | None:
    """Timesteps begin at the input; what is summed is the result."""
    x, out = node.inputs[0], node.outputs[0]
    ok = not out.uses() if traits(node).ends_time else x is not None and x.is_graph_input()
    return None if ok else ("mixes timesteps inside the network", "a final mean or sum over T")


def _judge_average_pool(node: ir.Node) -> tuple[str, str] | None:
    if attribute(node, "ceil_mode", 1) or not attribute(node, "count_include_pad", 0):
        return (
            "its divisor differs at the border",
            "AvgPool2d(count_include_pad=True, ceil_mode=False)",
        )
    return None


def _near_miss(node: ir.Node, kinds: dict[ir.Value, str], why: tuple[str, str]) -> Fault | None:
    """The node as a neuron, or attention, that just fails to be one."""
    if is_near_attention(node, kinds):
        return _fault(node, *why)
    if node.op_type in ROUNDINGS:
        found = quantiser_at(node) if node.op_type != "Ceil" else None
        what = found.fault if found is not None else f"{node.op_type.lower()} is no rounding rule"
        return _fault(node, what or "unreadable limits", "torch.round(x.clamp(0, D))")
    if node.op_type == "QuantizeLinear":
        return _fault(node, *why_no_pair(node))
    _, low, high = unclamped(node.outputs[0])
    if clamp_of(node) is None or high == inf:
        return None
    return _fault(node, f"has clamp({low:g}, {high:g}) but no round", "torch.round after it")


def _belongs_to_another(node: ir.Node) -> bool:
    """Whether a clamp is part of a quantiser or a chain that is judged at another node."""
    if is_op(node, "DequantizeLinear", "Clip") and _quantiser_ahead(node) is not None:
        return True
    if clamp_of(node) is not None and is_op(only_reader(node.outputs[0]), "QuantizeLinear"):
        return True
    return is_part(node)


def _quantiser_ahead(node: ir.Node | None) -> ir.Node | None:
    """The QuantizeLinear whose integers ``node`` clamps or dequantises."""
    while node is not None and node.op_type in ("Clip", "DequantizeLinear"):
        x = node.inputs[0]
        node = x.producer() if x is not None else None
    return node if is_op(node, "QuantizeLinear") else None


def _is_own_source(node: ir.Node) -> bool:
    """Whether ``node`` is part of the network's own input quantiser."""
    x = node.inputs[0]
    ahead = x.producer() if x is not None else None
    begins = traits(ahead).emits is Numbers.SOURCE
    return traits(node).emits is Numbers.SOURCE or (is_op(node, "Cast") and begins)


def _fault(node: ir.Node, what: str, todo: str) -> Fault:
    origin = provenance(node)
    return Fault(what, str(node.name), node.op_type, origin.module, origin.source, todo)


def _summary(
    model: ir.Model,
    kinds: dict[ir.Value, str],
    tainted: set[ir.Value],
    faults: list[Fault],
    near: list[Fault],
    until: str,
    graded: bool,
) -> Diagnosis:
    layers = multiplying(model)
    neurons = sum(traits(n).fires for n in model.graph)
    almost = [f for f in near if f.todo != LINEAR_ATTENTION]
    activations = sum(f in almost or ADVICE.get(f.kind, OTHER)[1] == NEURON for f in faults)
    good = [n for n in layers if _lowerable(n, kinds, graded)]
    return Diagnosis(
        faults=tuple(faults),
        near_misses=tuple(near),
        activations_found=neurons + activations,
        activations_lowered=neurons,
        macs=sum(macs_of(n) for n in layers),
        macs_lowerable=sum(macs_of(n) for n in good),
        until=until if faults else "",
        found_neurons=model.metadata_props.get(FOUND_NEURONS, ""),
    )


def _lowerable(node: ir.Node, kinds: dict[ir.Value, str], graded: bool) -> bool:
    """Whether integers come in and a neuron or the result takes what goes out."""
    out, read = node.outputs[0], {kinds.get(x) for x in node.inputs if x in kinds}
    if traits(node).multiplies:
        made = "spikes" if traits(node).makes_counts else "attention"
        is_read = made == "spikes" or _reaches_neuron(out)
        return read == {"spikes"} and kinds.get(out) == made and is_read
    taken = {"source", "spikes", "sums", *(("potential",) if graded else ())}
    is_layer = traits(node).weighs and read <= taken
    return is_layer and kinds.get(out) == "potential" and _reaches_neuron(out)


def _reaches_neuron(value: ir.Value) -> bool:
    if value.is_graph_output():
        return True
    return any(
        traits(user).fires or (_passes_on(user) and _reaches_neuron(user.outputs[0]))
        for user, _ in value.uses()
    )


def _passes_on(node: ir.Node) -> bool:
    return traits(node).keeps_grid or traits(node).takes_maximum or traits(node).weighs
