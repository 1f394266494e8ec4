"""What is saved in a run of all tests changes no graph and no number that was given."""

from __future__ import annotations

import economy
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch.onnx._internal.exporter._registration import ONNXRegistry
from torch_networks import small

from snncc.frontends.pytorch import import_module
from snncc.ir.graphs import to_proto
from snncc.nn import IntegerFire


def exported() -> bytes:
    torch.manual_seed(0)
    return to_proto(import_module(small(IntegerFire(4)).eval(), (2, 8, 8))).SerializeToString(
        deterministic=True
    )


def test_a_table_of_operators_that_is_kept_gives_the_same_graph(monkeypatch):
    kept, again = exported(), exported()
    fresh = ONNXRegistry.from_torchlib.__wrapped__
    monkeypatch.setattr(ONNXRegistry, "from_torchlib", staticmethod(fresh))
    assert kept == again == exported()


@pytest.mark.parametrize(("given", "taken"), [(0, 2), (1, 1), (3, 3)])
def test_sessions_take_their_share_of_threads_unless_told_otherwise(given, taken, monkeypatch):
    monkeypatch.setattr(onnxruntime, "InferenceSession", onnxruntime.InferenceSession)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    economy.limit_onnx_runtime()
    text = '<ir_version: 8, opset_import: ["": 17]> g (float[N] x) => (float[N] y) { y = Neg (x) }'
    model = onnx.parser.parse_model(text).SerializeToString()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = given
    made = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    assert made.get_session_options().intra_op_num_threads == taken
    assert made.run(None, {"x": np.float32([1, -2])})[0].tolist() == [-1, 2]
