"""Every pass on a network of a few nodes: what it reads here, what it makes in ``golden``."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import onnx.parser
import onnx.shape_inference
import onnx_ir as ir
import pytest

from snncc.ir.ops import register_schemas
from snncc.ir.stages import set_stage, verify_stage
from snncc.ir.text import dump
from snncc.passes import Pass, PassManager, pipeline
from snncc.passes.integers.quantise_input import QuantiseInput

HEAD = '<ir_version: 10, opset_import: ["": 21, "ai.snncc": 1]>'
#: Metadata of a model that says where values come from, and where the graph is: in no golden.
UNSEEN = ("snncc.lineage", "snncc.stage")
IMAGE = (3, 1, 4, 4)
#: ``FIRE D / norm`` in a text.
FIRE = (
    r"FIRE (\d+) / (\d+)",
    r'ai.snncc.IntegerFire <D: int = \1, norm: float = \2.0, rounding: string = "half-even">',
)
LINEAR = "Gemm <alpha: float = 1.0, beta: float = 1.0, transA: int = 0, transB: int = 1>"

#: Of each pass: shape of its input for three samples, and the graph.
TEXTS: Mapping[str, tuple[tuple[int, ...], str]] = {
    # one image, shown in two timesteps; its layer and neuron see [T, N, ...] as [T*N, ...]
    "fold-time": ((3, 2), """
        net (float[N,2] x) => (float[N,2] y)
        <float[2,2] w = {1, 2, 3, 4}, int64[1] zero = {0}, int64[3] times = {2, 1, 1},
         int64[2] rows = {-1, 2}, int64[3] apart = {2, -1, 2}, float[M,2] s> {
          one = Unsqueeze (x, zero)
          two = Expand (one, times)
          flat = Reshape (two, rows)
          u = Gemm (flat, w)
          s = ai.snncc.StatefulFire <T: int = 2, D: int = 1, decay: floats = [0.5],
              gain: float = 1.0, threshold: float = 1.0, norm: float = 1.0, rule: string = ">=",
              reset: string = "soft", current: floats = [0.0]> (u)
          each = Reshape (s, apart)
          y = ReduceMean <keepdims: int = 0> (each, zero)
        }"""),
    # implicit attributes, a global mean and a product with weights in the other order
    "canonicalise": (IMAGE, """
        net (float[N,1,4,4] x) => (float[N,3] y)
        <float[2,1,3,3] w = {1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0},
         float[2,3] v = {1, 2, 3, 4, 5, 6}, float[3] b = {1, 2, 3}> {
          u = Conv <auto_pad: string = "SAME_UPPER"> (x, w)
          mean = GlobalAveragePool (u)
          flat = Flatten (mean)
          product = MatMul (flat, v)
          y = Add (product, b)
        }"""),
    "recognise-qdq": ((3, 2), """
        net (float[N,2] x) => (float[N,2] y)
        <float[2,2] w = {1, 2, 3, 4}, float step = {0.25}, uint8 zero = {0}> {
          u = LINEAR (x, w)
          r = Relu (u)
          q = QuantizeLinear (r, step, zero)
          y = DequantizeLinear (q, step, zero)
        }"""),
    "recognise-integer-fire": ((3, 2), """
        net (float[N,2] x) => (float[N,2] y)
        <float half = {0.5}, float low = {0.0}, float high = {4.0}> {
          shifted = Add (x, half)
          whole = Floor (shifted)
          count = Clip (whole, low, high)
          y = Div (count, high)
        }"""),
    # one map as q, k and v, its positions as tokens
    "recognise-attention": ((3, 4, 2, 2), """
        net (float[N,4,2,2] x) => (float[N,4,2,2] y)
        <int64[3] flat = {0, 4, 4}, int64[4] map = {0, 4, 2, 2}, float[N,4,2,2] a,
         float[N,4,2,2] y> {
          a = FIRE 2 / 1 (x)
          k = Reshape (a, flat)
          q = Transpose <perm: ints = [0, 2, 1]> (k)
          weights = MatMul (q, k)
          mixed = MatMul (k, weights)
          u = Reshape (mixed, map)
          y = FIRE 2 / 1 (u)
        }"""),
    # two votes of two neurons each
    "recognise-fixed-map": ((3, 4), """
        net (float[N,4] x) => (float[N,2] y)
        <int64[3] groups = {0, 2, 2}, int64[1] last = {2}, float[N,4] a> {
          a = FIRE 2 / 1 (x)
          r = Reshape (a, groups)
          y = ReduceMean <keepdims: int = 0> (r, last)
        }"""),
    # the product of two trains, and of one with what the other does not fire
    "recognise-gate": ((3, 2), """
        net (float[N,2] x) => (float[N,2] y)
        <float[2] two = {2, 2}, float three = {3}, float[N,2] a, float[N,2] c> {
          a = FIRE 2 / 1 (x)
          u = Mul (x, two)
          c = FIRE 3 / 1 (u)
          rest = Sub (three, c)
          both = Mul (a, c)
          left = Mul (rest, a)
          y = Add (both, left)
        }"""),
    # one stream of three trains, which a layer reads
    "recognise-sum": ((3, 2), """
        net (float[N,2] x) => (float[N,3] y)
        <float[2] two = {2, 2}, float[3,2] w = {1, 2, 3, 4, 5, 6}, float[3] b = {1, 2, 3},
         float[N,2] a, float[N,2] c> {
          a = FIRE 4 / 1 (x)
          u = Mul (x, two)
          c = FIRE 4 / 1 (u)
          sum = Add (a, c)
          more = Add (sum, c)
          y = LINEAR (more, w, b)
        }"""),
    "distribute-linear": ((3, 2), """
        net (float[N,2] x) => (float[N,3] y)
        <float[2] two = {2, 2}, float[3,2] w = {1, 2, 3, 4, 5, 6}, float[3] b = {1, 2, 3},
         float[N,2] a, float[N,2] c> {
          a = FIRE 2 / 1 (x)
          u = Mul (x, two)
          c = FIRE 4 / 1 (u)
          sum = Add (a, c)
          y = LINEAR (sum, w, b)
        }"""),
    # RepConv: the border is what a batch norm makes of zeros
    "fold-padding": ((3, 1, 2, 2), """
        net (float[N,1,2,2] x) => (float[N,1,2,2] y)
        <float[1] scale = {2}, float[1] bias = {3}, float[1] mean = {1}, float[1] var = {0.99999},
         int64[8] pads = {0, 0, 1, 1, 0, 0, 1, 1}, float border = {1.0},
         float[1,1,3,3] w = {0, 1, 0, 1, 1, 1, 0, 1, 0}> {
          n = BatchNormalization (x, scale, bias, mean, var)
          p = Pad (n, pads, border)
          y = Conv <kernel_shape: ints = [3, 3], strides: ints = [1, 1], pads: ints = [0, 0, 0, 0],
                    dilations: ints = [1, 1], group: int = 1> (p, w)
        }"""),
    "fold-batch-norm": ((3, 1, 2, 2), """
        net (float[N,1,2,2] x) => (float[N,2,2,2] y)
        <float[2,1,1,1] w = {1, 2}, float[2] scale = {2, 4}, float[2] bias = {3, 1},
         float[2] mean = {1, 0}, float[2] var = {0.99999, 3.99999}> {
          u = Conv <kernel_shape: ints = [1, 1], strides: ints = [1, 1], pads: ints = [0, 0, 0, 0],
                    dilations: ints = [1, 1], group: int = 1> (x, w)
          y = BatchNormalization (u, scale, bias, mean, var)
        }"""),
    "merge-linear": ((3, 2), """
        net (float[N,2] x) => (float[N,1] y)
        <float[2,2] w = {1, 2, 3, 4}, float[2] b = {1, 2}, float[2] scale = {2, 3},
         float[1,2] v = {1, 1}> {
          u = LINEAR (x, w, b)
          s = Mul (u, scale)
          y = LINEAR (s, v)
        }"""),
    "keep-mask": (IMAGE, """
        net (float[N,1,4,4] x, float[N,1,2,2] mask) => (float[N,1,4,4] y)
        <float[1,1,1,1] w = {2}, float[1] b = {1}, float[1] shift = {3}, float[N,1,4,4] u> {
          u = ai.snncc.SpikeSparseConv <strides: ints = [1, 1], pads: ints = [0, 0, 0, 0],
              dilations: ints = [1, 1], group: int = 1> (x, w, b, mask)
          s = Add (u, shift)
          y = ai.snncc.PatchMask (s, mask)
        }"""),
    "sparse-to-vanilla-conv": (IMAGE, """
        net (float[N,1,4,4] x, float[N,1,2,2] mask) => (float[N,1,4,4] y)
        <float[1,1,1,1] w = {2}, float[1] b = {1}, float[N,1,4,4] u, float[N,1,4,4] m> {
          m = ai.snncc.PatchMask (x, mask)
          y = ai.snncc.SpikeSparseConv <strides: ints = [1, 1], pads: ints = [0, 0, 0, 0],
              dilations: ints = [1, 1], group: int = 1> (m, w, b, mask)
        }"""),
    "require-integer": ((3, 2), """
        net (float[N,2] x) => (float[N,2] y)
        <float[2,2] w = {1, 2, 3, 4}, float[N,2] y> {
          u = LINEAR (x, w)
          y = FIRE 4 / 4 (u)
        }"""),
    # one pool that a neuron reads, and one whose maxima are the result
    "commute-max-pool": ((3, 1, 2, 2), """
        net (float[N,1,2,2] x) => (float[N,1,1,1] y, float[N,1,1,1] z)
        <float[1,1,1,1] w = {2}, float[N,1,1,1] y> {
          u = Conv <kernel_shape: ints = [1, 1], strides: ints = [1, 1], pads: ints = [0, 0, 0, 0],
                    dilations: ints = [1, 1], group: int = 1> (x, w)
          m = MaxPool <kernel_shape: ints = [2, 2], strides: ints = [2, 2],
                       pads: ints = [0, 0, 0, 0], ceil_mode: int = 0> (u)
          y = FIRE 4 / 4 (m)
          z = MaxPool <kernel_shape: ints = [2, 2], strides: ints = [2, 2],
                       pads: ints = [0, 0, 0, 0], ceil_mode: int = 0> (u)
        }"""),
    # zeros that pad a normalised image are no zeros of the raw one: a bias map
    "quantise-input": ((3, 1, 3, 3), """
        net (float[N,1,3,3] x) => (float[N,1,3,3] y)
        <float[1,1,3,3] w = {0, 1, 0, 1, 1, 1, 0, 1, 0}> {
          y = Conv <kernel_shape: ints = [3, 3], strides: ints = [1, 1], pads: ints = [1, 1, 1, 1],
                    dilations: ints = [1, 1], group: int = 1> (x, w)
        }"""),
    "fold-scale": ((3, 1, 2, 2), """
        net (float[N,1,2,2] x) => (float[N,2] y)
        <float[2,1] w = {1, 2}, float[2] b = {1, 1}, int64[2] rows = {-1, 1}, float[N,1,2,2] a> {
          a = FIRE 4 / 4 (x)
          m = AveragePool <kernel_shape: ints = [2, 2], strides: ints = [2, 2],
                           pads: ints = [0, 0, 0, 0], ceil_mode: int = 0,
                           count_include_pad: int = 1> (a)
          f = Reshape (m, rows)
          y = LINEAR (f, w, b)
        }"""),
    # of 8 bits little is left beside a weight of 1, and the neuron has many levels
    "choose-bits": ((3, 2), """
        net (uint8[N,2] x) => (float[N,1] y)
        <float[2,2] w = {1.0, 0.3337, 0.0093, 0.7}, float[1,2] v = {0.5, 1}, float[N,2] a> {
          q = Cast <to: int = 1> (x)
          u = LINEAR (q, w)
          a = FIRE 255 / 1 (u)
          y = LINEAR (a, v)
        }"""),
    "quantise-weights": ((3, 2), """
        net (uint8[N,2] x) => (float[N,1] y)
        <float[2,2] w = {1, 2, 3, 4}, float[2] b = {1, 2}, float[1,2] v = {0.5, 1}, float[N,2] a> {
          q = Cast <to: int = 1> (x)
          u = LINEAR (q, w, b)
          a = FIRE 2 / 1 (u)
          y = LINEAR (a, v)
        }"""),
    "lower-to-spikes": ((3, 2), """
        net (uint8[N,2] x) => (int64[N,1] v)
        <int8[2,2] w = {1, 2, 3, 4}, int64[1,2] b = {1, 2}, int64[1,2] levels = {3, 9},
         int8[1,2] k = {1, 1}, int64[1,1] none = {0}, int32[N,2] i, int64[N,2] u, uint8[N,2] a,
         int32[N,1] j> {
          i = ai.snncc.QGemm (x, w)
          u = ai.snncc.SliceSum <slice: int = 0, shift: int = 0> (b, i)
          a = ai.snncc.FireCount (u, levels)
          j = ai.snncc.QGemm (a, k)
          v = ai.snncc.SliceSum <slice: int = 0, shift: int = 0> (none, j)
        }"""),
}  # fmt: skip


def passes() -> dict[str, Pass]:
    """Every pass of any pipeline, by name."""
    rng = np.random.default_rng(0)
    feeds = {"x": rng.integers(0, 256, (256, 2), dtype=np.uint8)}
    source = QuantiseInput((0.5,), (-1.0,))
    both = [pipeline(source, "auto", feeds, masked=masked) for masked in (False, True)]
    return {p.name: p for each in both for p in each}


def model_of(text: str, stage: str) -> ir.Model:
    """The graph with all shapes, in the stage."""
    register_schemas()
    whole = re.sub(*FIRE, text.replace("LINEAR", LINEAR))
    proto = onnx.parser.parse_model(f"{HEAD}\n{whole}")
    model = ir.from_proto(onnx.shape_inference.infer_shapes(proto))
    set_stage(model, stage)
    verify_stage(model, stage)
    return model


def feeds_of(model: ir.Model, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Of inputs of any type, and of the integers that a pixel is."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, shape, dtype=np.uint8)
    real = {"x": (0.5 * pixels - 1).astype(np.float32), "x:u8": pixels}
    masks = rng.integers(0, 2, (shape[0], 1, 2, 2)).astype(np.float32)
    is_integer = model.graph.inputs[0].dtype == ir.DataType.UINT8
    return real | {"mask": masks} | ({"x": pixels} if is_integer else {})


def notes_of(model: ir.Model) -> str:
    """What the pass left in the model's metadata."""
    kept = {k: v for k, v in model.metadata_props.items() if k not in UNSEEN}
    return "".join(f"note {key} {value}\n" for key, value in sorted(kept.items()))


def test_every_pass_has_one():
    assert set(TEXTS) == set(passes())


@pytest.mark.parametrize("name", TEXTS)
def test_what_a_pass_makes(name, golden):
    step, (shape, text) = passes()[name], TEXTS[name]
    model = model_of(text, step.stage_in)
    feeds = feeds_of(model, shape)
    if name == "sparse-to-vanilla-conv":  # which is for whole images: the pass has their mask
        del feeds["mask"]
    made = PassManager((step,), feeds=feeds).run(model)
    assert dump(made) + notes_of(made) == golden
