"""Digits of graded payloads: together they are the potential, whatever its sign."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

from snncc.ir.ops import DOMAIN, OPSET, VERSION, function_of
from snncc.ir.oracle import session
from snncc.passes.integers.payloads import digits_of

Array = np.ndarray
#: The largest that one digit holds, that two hold, and so on; and what looks as if they held it.
_BORDERS = [1, 127, 128, 255, 32639, 32640, 32767, 8355711, 8355712, 8388607, 2**40, 2**55]


def digit(values: Array, place: int) -> Array:
    """The operator's body, executed."""
    node = helper.make_node("PayloadDigit", ["V"], ["Y"], domain=DOMAIN, place=place)
    kinds = [helper.make_tensor_value_info(name, TensorProto.INT64, None) for name in "VY"]
    graph = helper.make_graph([node], "one", kinds[:1], kinds[1:])
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, VERSION)]
    functions = [function_of("PayloadDigit")]
    model = helper.make_model(graph, opset_imports=opsets, functions=functions, ir_version=10)
    return np.asarray(session(model, threads=1).run(["Y"], {"V": values})[0])


def made_up(values: Array, count: int) -> Array:
    """What so many digits come to."""
    digits = [digit(values, place) for place in range(count)]
    assert all(d.min() >= -128 and d.max() <= 127 for d in digits)
    return np.sum([d << (8 * place) for place, d in enumerate(digits)], axis=0)


@pytest.mark.parametrize("payload", _BORDERS)
def test_as_few_digits_as_can_make_up_every_payload(payload: int) -> None:
    near = payload - np.arange(min(payload, 300))
    values = np.concatenate([near, -near, near // 2, -near // 3])
    count = digits_of(payload)
    np.testing.assert_array_equal(made_up(values, count), values)
    assert count == 1 or (made_up(values, count - 1) != values).any()
