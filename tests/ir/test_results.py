"""What a graph says of its results is checked: it may come from a file."""

import pytest

from snncc.errors import BadInputError
from snncc.ir.results import places_of


def test_without_a_word_all_outputs_are_one_result():
    assert places_of(None, 2) == {"output": (0, 1)}
    assert places_of('{"a": [1], "b": [0, 1]}', 2) == {"a": (1,), "b": (0, 1)}


@pytest.mark.parametrize(
    "stored",
    [
        "",
        "[]",
        "[0, 1]",
        '{"a": 0}',
        '{"a": null}',
        '{"a": [0]}',
        '{"a": [0, 2]}',
        '{"a": [0, -1]}',
        '{"a": [0, true]}',
        '{"a": [0, 1.0]}',
        '{"a": [0, [1]]}',
    ],
)
def test_what_is_no_such_thing_is_refused(stored):
    with pytest.raises(BadInputError, match=r"graph: results"):
        places_of(stored, 2)
