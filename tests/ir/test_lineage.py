"""Laws of lineage: a value comes from others as its moves say."""

from __future__ import annotations

import numpy as np

from snncc.ir.lineage import Lineage


def test_marks_are_multiplied_as_numbers_are():
    """Units of quantised files are fractions of 2^25 and more; marks of ties are bytes."""
    lineage = Lineage()
    lineage.note("counts", "times", "spikes", factor=f"{2**25}/671089")
    marks = lineage.trace("counts", {"spikes": np.array([0, 1], np.int8)})
    assert (marks != 0).tolist() == [False, True]
