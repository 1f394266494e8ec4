import numpy as np
import onnx
import onnx_ir as ir
import pytest
from float_networks import Net, case_of, imported, lowered

from snncc.ir.fed import FedGraph, fed
from snncc.ir.graphs import to_proto
from snncc.ir.oracle import session

NET = Net((1, 8, 8), seed=5, rms=2.0).conv(16, pads=1).fire(4).flatten().linear(5)
CASE = case_of(NET, samples=2)
EXACT = ("quantised", "spiking")


@pytest.mark.parametrize("stage", ["imported", "integer", "quantised", "spiking"])
def test_a_graph_computes_the_same_with_its_weights_apart(stage: str) -> None:
    model = lowered(CASE).stages[stage]
    names = [str(v.name) for v in model.graph.outputs]
    feeds = {v.name: CASE.feeds[str(v.name)] for v in model.graph.inputs}
    expected = session(to_proto(model)).run(names, feeds)
    graph = fed(model)
    assert graph.weights
    got = session(graph.serialised()).run(names, {**feeds, **graph.weights})
    for a, b in zip(expected, got, strict=True):
        np.testing.assert_allclose(a, b, rtol=0 if stage in EXACT else 1e-5)


def test_weights_stay_where_they_are_and_the_model_as_it_is() -> None:
    model = lowered(CASE).stages["quantised"]
    before = to_proto(model).SerializeToString()
    graph = fed(model)
    for name, array in graph.weights.items():
        tensor = model.graph.initializers[name].const_value
        assert tensor is not None
        assert np.shares_memory(array, tensor.numpy())
    assert to_proto(model).SerializeToString() == before
    assert graph.proto.ByteSize() < min(len(before), sum(w.nbytes for w in graph.weights.values()))


def test_shapes_and_other_small_constants_stay_in_the_graph() -> None:
    model = ir.from_onnx_text("""<ir_version: 10, opset_import: ["" : 21]>
        n (float[N, 8, 8] x) => (float[N, M] y) <int64[2] to = {0, -1}> { y = Reshape (x, to) }""")
    graph = fed(model)
    assert not graph.weights
    assert [t.name for t in graph.proto.graph.initializer] == ["to"]


def test_a_graph_with_all_its_weights_is_a_fed_graph_of_none() -> None:
    proto = to_proto(imported(NET))
    assert onnx.ModelProto.FromString(FedGraph(proto).serialised()) == proto
