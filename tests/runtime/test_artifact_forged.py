"""Files made by hand, consistent in all their hashes, and still no valid networks."""

import io
import json

import numpy as np
import onnx
import pytest
from artifact_files import forged

from snncc.errors import BadInputError
from snncc.runtime.artifact import load
from snncc.runtime.container import read_members, write_members
from snncc.runtime.session import Session


def edit_program(members, change):
    program = json.loads(members["program.json"])
    change(program)
    return {**members, "program.json": json.dumps(program).encode()}


def set_array(key, **fields):
    return lambda program: program["arrays"][key].update(fields)


def set_node(index, **fields):
    return lambda program: program["nodes"][index].update(fields)


WEIGHT = "fc:v.projections.0.weights.0"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_array(WEIGHT, offset=2**40), "not in the weights"),
        (set_array(WEIGHT, offset=-64), "malformed offset"),
        (set_array(WEIGHT, offset=1), "not in the weights"),
        (set_array(WEIGHT, offset=True), "malformed offset"),
        (set_array(WEIGHT, nbytes=8), "do not hold"),
        (set_array(WEIGHT, shape=[2**40, 2**40]), "do not hold"),
        (set_array(WEIGHT, shape=[-5, -144]), "malformed"),
        (set_array(WEIGHT, shape="abc"), "malformed"),
        (set_array(WEIGHT, dtype="object"), "dtype 'object'"),
        (set_array(WEIGHT, dtype=["int8"]), "dtype"),
        (set_array("fc:v.bias", dtype="int8", nbytes=5), "bias is not int64"),
        (lambda program: program["arrays"].pop(WEIGHT), "malformed entry"),
        (lambda program: program.pop("arrays"), "no arrays"),
        (lambda program: program.pop("nodes"), "malformed entry"),
        (lambda program: program.update(timesteps=0), "timesteps 0"),
        (lambda program: program.update(timesteps=10**9), "timesteps 1000000000"),
        (lambda program: program.update(timesteps=True), "True is not expected"),
        (lambda program: program.update(ticks=0), "ticks"),
        (set_node(0, payload=2.5), "2.5 is not expected"),
        (set_node(0, payload=None), "None is not expected"),
        (set_node(0, shape=[1, 6, 7]), "arrives as"),
        (set_node(0, type="pickle"), "malformed entry"),
        (set_node(0, name=["x"]), "not valid"),
        (set_node(1, low=0), "declared bounds"),
        (set_node(2, extra=1), "malformed entry"),
        (set_node(2, source="fc:v"), "does not come before"),
        (set_node(7, scale=float("nan")), "NaN is not JSON"),
        (set_node(7, scale=-1.0), "not positive"),
        (lambda program: program.update(delay=1), "no part of a program is named delay"),
    ],
)
def test_a_consistent_but_wrong_program_is_refused(members, tmp_path, change, message):
    with pytest.raises(BadInputError, match=message):
        load(forged(tmp_path / "a.snn", edit_program(members, change)))


def edit_manifest(members, **fields):
    manifest = {**json.loads(members["manifest.json"]), **fields}
    return {**members, "manifest.json": json.dumps(manifest).encode()}


CONTRACT = {"name": "x", "shape": [1, 6, 6], "dtype": "uint8"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"ticks": 3}, "ticks not as in the program"),
        ({"input": {**CONTRACT, "top": 254}}, r"input\.top not as in the program"),
        ({"outputs": []}, "outputs not as in the program"),
        ({"parts": {"exact": []}}, "parts"),
        ({"parts": {"exact": 1, "analog": [], "host": [], "approximate": []}}, "parts"),
        ({"input": None}, "input contract: malformed"),
        ({"input": {**CONTRACT, "shape": [6, 6]}}, r"input\.shape"),
        ({"input": {**CONTRACT, "shape": [1, -6, 6]}}, "input contract: shape"),
        ({"input": {**CONTRACT, "shape": 6}}, "input contract: shape|damaged"),
        ({"input": {**CONTRACT, "dtype": "object"}}, "input contract: dtype"),
        ({"input": {**CONTRACT, "timesteps": -1}}, "input contract: timesteps"),
        ({"input": {**CONTRACT, "timesteps": 3}}, "input.timesteps not as in the program"),
        ({"input": {**CONTRACT, "scale": 0}}, "not positive"),
        ({"input": {**CONTRACT, "scale": [1.0, 2.0]}}, "scale"),
        ({"input": {**CONTRACT, "offset": "1"}}, "offset"),
        ({"input": {**CONTRACT, "code": "x"}}, "malformed"),
    ],
)
def test_a_consistent_but_wrong_manifest_is_refused(members, tmp_path, fields, message):
    with pytest.raises(BadInputError, match=message):
        load(forged(tmp_path / "a.snn", edit_manifest(members, **fields)))


def edit_graph(members, change):
    graph = onnx.load_from_string(members["graphs/quantised.onnx"])
    change(graph)
    return {**members, "graphs/quantised.onnx": graph.SerializeToString()}


def relocate(tensor, **place):
    tensor.data_location = onnx.TensorProto.EXTERNAL
    del tensor.external_data[:]
    for key, value in place.items():
        tensor.external_data.add(key=key, value=value)


def weight(graph):
    return next(t for t in graph.graph.initializer if t.name == "conv2_w")


def in_a_constant(graph, tensor):
    tensor.name, tensor.data_type = "t", onnx.TensorProto.INT8
    tensor.dims.append(432)
    node = onnx.helper.make_node("Constant", [], ["stolen"], value=tensor)
    graph.functions[0].node.append(node)


INSIDE = {"location": "weights.bin", "offset": "0", "length": "432"}


@pytest.mark.parametrize(
    "place",
    [
        {**INSIDE, "location": "/etc/passwd"},
        {**INSIDE, "location": "../weights.bin"},
        {**INSIDE, "offset": "1000000000"},
        {**INSIDE, "offset": "-64"},
        {**INSIDE, "offset": "x"},
        {**INSIDE, "length": "431"},
        {"location": "weights.bin"},
        {},
    ],
)
def test_graphs_read_nothing_but_the_weights(members, tmp_path, place):
    def in_a_function(graph):
        tensor = onnx.TensorProto()
        relocate(tensor, **{**place, "location": place.get("location", "x") + "/.."})
        in_a_constant(graph, tensor)

    for change in (lambda graph: relocate(weight(graph), **place), in_a_function):
        model = load(forged(tmp_path / "a.snn", edit_graph(members, change)))
        with pytest.raises(BadInputError, match="graph 'quantised': weight"):
            model.onnx("quantised")
        with pytest.raises(BadInputError, match="graph 'quantised': weight"):
            model.graphs["quantised"]


def test_what_is_no_graph_is_refused_when_it_is_asked_for(members, tmp_path):
    path = tmp_path / "a.snn"
    garbage = load(forged(path, {**members, "graphs/quantised.onnx": b"\xff" * 99}))
    with pytest.raises(BadInputError, match="not an ONNX model"):
        Session(garbage, "integer")
    foreign = members["graphs/quantised.onnx"].replace(b"weights.bin", b"weights.\xff\xff\xff")
    binary = load(forged(path, {**members, "graphs/quantised.onnx": foreign}))
    with pytest.raises(BadInputError, match="not UTF-8"):
        Session(binary, "integer")
    empty = load(forged(path, {**members, "graphs/quantised.onnx": b""}))
    with pytest.raises(BadInputError, match="is not the network of program"):
        Session(empty, "integer")


def rewrite_reference(members, **changed):
    parts = read_members(io.BytesIO(members["reference.npz"]), "npz")
    stream = io.BytesIO()
    write_members(stream, {k: v for k, v in {**parts, **changed}.items() if v is not None})
    return {**members, "reference.npz": stream.getvalue()}


def npy(array):
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"x.npy": None}, "'x' is missing"),
        ({"x.npy": npy(np.zeros((5, 6, 6), np.uint8))}, "not for this network"),
        ({"x.npy": npy(np.array([{}], dtype=object))}, "do not hold|damaged"),
        ({"counts.fire1.npy": npy(np.zeros((1, 5, 3, 6, 6)))}, "counts of 'fire1'"),
        ({"counts.fire1.npy": None}, "missing"),
        ({"readouts.logits.npy": b"garbage"}, "damaged"),
        ({"digests.json": b"[]"}, "malformed digests"),
        ({"digests.json": b'{"fire1": {"sha256": 1, "spikes": 2, "size": 3}}'}, "malformed"),
        ({"digests.json": b'{"y": {"sha256": "", "spikes": 2, "size": 3}}'}, "digests are not"),
    ],
)
def test_references_that_are_not_of_the_network_are_refused(members, tmp_path, changed, message):
    with pytest.raises(BadInputError, match=message):
        load(forged(tmp_path / "a.snn", rewrite_reference(members, **changed)))
