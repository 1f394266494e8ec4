"""A small network by hand: its Program, its quantised and spiking graphs, and its artefact."""

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
from networks import half_even_levels
from onnx import TensorProto, numpy_helper
from onnx.helper import make_tensor_value_info
from reports import MEASURED

from snncc.backends.integer import IntegerEngine
from snncc.ir.graphs import to_proto
from snncc.ir.ops import OPSET, VERSION, functions_of
from snncc.passes.spikes.lower_to_spikes import LowerToSpikes
from snncc.program import Accumulator, Neuron, Pool, Program, Projection, Readout, Source
from snncc.program.bounds import bounded
from snncc.runtime.artifact import CompiledModel, manifest_of
from snncc.runtime.contract import InputContract, by_timestep
from snncc.runtime.reference import Reference

D = 4

HEAD = f'<ir_version: 10, opset_import: ["": {OPSET}, "ai.snncc": {VERSION}]>\n'
CONV = "strides: ints = [1, 1], pads: ints = [1, 1, 1, 1], dilations: ints = [1, 1], group: int = 1"
POOL = "kernel_shape: ints = [2, 2], strides: ints = [2, 2], pads: ints = [0, 0, 0, 0]"
BODY = f"""
  c1 = ai.snncc.QConv <{CONV}> (x_q, conv1_w)
  "conv1:v" = ai.snncc.SliceSum <slice: int = 0, shift: int = 0> (conv1_b, c1)
  fire1 = ai.snncc.FireCount ("conv1:v", fire1_levels)
  pool1 = MaxPool <{POOL}> (fire1)
  c2 = ai.snncc.QConv <{CONV}> (pool1, conv2_w)
  "conv2:v" = ai.snncc.SliceSum <slice: int = 0, shift: int = 0> (conv2_b, c2)
  fire2 = ai.snncc.FireCount ("conv2:v", fire2_levels)
  flat = Reshape (fire2, rows)
  c3 = ai.snncc.QGemm (flat, fc_w)
  "fc:v" = ai.snncc.SliceSum <slice: int = 0, shift: int = 0> (fc_b, c3)
"""
SPIKING = f"""
  c1 = ai.snncc.QConv <{CONV}> (x_q, conv1_w)
  "conv1:v" = ai.snncc.SliceSum <slice: int = 0, shift: int = 0> (conv1_b, c1)
  "fire1:spikes" = ai.snncc.IFSoftReset ("conv1:v", fire1_levels)
  in1 = Reshape ("fire1:spikes", shape1)
  pool1 = MaxPool <{POOL}> (in1)
  c2 = ai.snncc.QConv <{CONV}> (pool1, conv2_w)
  t2 = Reshape (c2, shape2)
  s2 = ai.snncc.SpikeSum (t2)
  "conv2:v" = ai.snncc.SliceSum <slice: int = 0, shift: int = 0> (conv2_b, s2)
  "fire2:spikes" = ai.snncc.IFSoftReset ("conv2:v", fire2_levels)
  in3 = Reshape ("fire2:spikes", rows)
  c3 = ai.snncc.QGemm (in3, fc_w)
  t3 = Reshape (c3, shape3)
  s3 = ai.snncc.SpikeSum (t3)
  "fc:v" = ai.snncc.SliceSum <slice: int = 0, shift: int = 0> (fc_b, s3)
"""
#: Per sample, of every value: type and shape, as exporters write them.
VALUES = {
    "x_q": (TensorProto.UINT8, (1, 6, 6)),
    "c1": (TensorProto.INT32, (3, 6, 6)),
    "conv1:v": (TensorProto.INT64, (3, 6, 6)),
    "fire1": (TensorProto.UINT8, (3, 6, 6)),
    "pool1": (TensorProto.UINT8, (3, 3, 3)),
    "c2": (TensorProto.INT32, (16, 3, 3)),
    "conv2:v": (TensorProto.INT64, (16, 3, 3)),
    "fire2": (TensorProto.UINT8, (16, 3, 3)),
    "flat": (TensorProto.UINT8, (144,)),
    "c3": (TensorProto.INT32, (5,)),
}


def weights(seed=0):
    rng = np.random.default_rng(seed)
    return {  # the last channel of fire2 never fires
        "conv1_w": rng.integers(-127, 128, (3, 1, 3, 3), dtype=np.int8),
        "conv1_b": rng.integers(-3000, 3000, 3),
        "fire1_levels": half_even_levels(np.array([3001, 9001, 14001]), D),
        "conv2_w": rng.integers(-127, 128, (16, 3, 3, 3), dtype=np.int8),
        "conv2_b": rng.integers(-300, 300, 16),
        "fire2_levels": half_even_levels(np.array([101] * 15 + [10**6 + 1]), D),
        "fc_w": rng.integers(-127, 128, (5, 144), dtype=np.int8),
        "fc_b": rng.integers(-100, 100, 5),
    }


def accumulator(name, shape, source, kind, w, bias, payload, module):
    pads = (1, 1, 1, 1) if kind == "conv" else (0, 0, 0, 0)
    node = Accumulator(
        name, shape, (Projection(source, kind, (w,), payload, pads=pads),), bias, 0, 0, module
    )
    return bounded(node, {source: Source(source, (1,), payload)})


def program(seed=0, timesteps=1):
    w = weights(seed)
    fc = accumulator("fc:v", (5,), "fire2", "linear", w["fc_w"], w["fc_b"], D, "fc")
    return Program(
        "small",
        (
            Source("x_q", (1, 6, 6), 255),
            accumulator(
                "conv1:v", (3, 6, 6), "x_q", "conv", w["conv1_w"], w["conv1_b"], 255, "net.conv1"
            ),
            Neuron("fire1", (3, 6, 6), "conv1:v", w["fire1_levels"], 0, module="net.act1"),
            Pool("pool1", (3, 3, 3), "fire1", "max", (2, 2), (2, 2), (0, 0, 0, 0), D),
            accumulator(
                "conv2:v", (16, 3, 3), "pool1", "conv", w["conv2_w"], w["conv2_b"], D, "net.conv2"
            ),
            Neuron("fire2", (16, 3, 3), "conv2:v", w["fire2_levels"], 1, module="net.act2"),
            fc,
            Readout("logits", (5,), "fc:v", 0.125, "fc"),
        ),
        timesteps=timesteps,
        ticks=D,
    )


def graph(body, seed=0, real_input=False):
    arrays = {
        **weights(seed),
        "rows": np.array([-1, 144]),
        "shape1": np.array([-1, 3, 6, 6]),
        "shape2": np.array([D, -1, 16, 3, 3]),
        "shape3": np.array([D, -1, 5]),
        "scale": np.float32(0.5),
        "offset": np.float32(-3.0),
    }
    arrays["conv1_b"], arrays["conv2_b"] = (
        arrays[name].reshape(1, -1, 1, 1) for name in ("conv1_b", "conv2_b")
    )
    first = (
        "x_q = ai.snncc.QuantizeInput <zero_point: int = 0, top: int = 255> (x, scale, offset)\n"
        if real_input
        else ""
    )
    given = "float[N,1,6,6] x" if real_input else "uint8[N,1,6,6] x_q"
    text = f'{HEAD}small ({given}) => (int64[N,5] "fc:v") {{ {first}{body} }}'
    model = onnx.parser.parse_model(text)
    used = {node.op_type for node in model.graph.node}
    model.functions.extend(functions_of(used))
    if body == BODY:
        _say_shapes(model.graph)
    read = {name for node in model.graph.node for name in node.input}
    for name, array in arrays.items():
        if name in read:
            model.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    return model


def _say_shapes(graph):
    for name in (name for node in graph.node for name in node.output if name in VALUES):
        kind, shape = VALUES[name]
        graph.value_info.append(make_tensor_value_info(name, kind, ("N", *shape)))


def lowered(quantised):
    """The spiking graph of a quantised one, as the compiler writes it."""
    model = ir.from_proto(quantised)
    LowerToSpikes().run(model)
    return to_proto(model)


def samples(n=5, seed=1):
    return np.random.default_rng(seed).integers(0, 256, (n, 1, 6, 6), dtype=np.uint8)


def compiled(seed=0, real_input=False, timesteps=1, sequence=False, **more):
    net = program(seed, timesteps)
    quantised = graph(BODY, seed, real_input)
    x = samples()
    steps = timesteps if sequence else 0
    if sequence:
        x = np.stack([x] * timesteps, axis=1)
    grid = {"dtype": "float32", "scale": 0.5, "offset": -3.0} if real_input else {}
    contract = InputContract("x", (1, 6, 6), timesteps=steps, **grid)
    fed = by_timestep(x, contract.shape)
    activity = IntegerEngine(quantised, net, threads=1).run(fed)
    return CompiledModel(
        program=net,
        manifest=manifest_of(net, contract),
        graphs={"quantised": quantised, "spiking": lowered(quantised), "integer": quantised},
        reported=MEASURED,
        reference=Reference.of(x, activity),
        **more,
    )
