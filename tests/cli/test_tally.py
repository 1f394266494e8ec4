"""Adding up batches gives what all samples give at once."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from networks import cases

from snncc.backends.base import Activity
from snncc.backends.clocked.engine import ClockedEngine
from snncc.cli.tally import Tally
from snncc.runtime.result import rates


@given(cases(), st.integers(1, 3))
def test_batches_add_up(case, size):
    program, x = case
    is_sequence = x.ndim > len(program.source.shape) + 1
    axis = int(is_sequence)
    cuts = range(size, x.shape[axis], size)
    engine, tally, parts = ClockedEngine(program), Tally(program), []
    for part in np.split(x, list(cuts), axis=axis):
        parts.append(engine.run(part))
        tally.add(parts[-1])
    whole = Activity.join(parts)
    expected, found = rates(whole, program), tally.rates()
    assert (found.samples, found.spikes, found.sops) == (
        expected.samples, expected.spikes, expected.sops,
    )  # fmt: skip
    for a, b in zip(found.populations, expected.populations, strict=True):
        assert (a.name, a.silent, a.spikes, a.sops) == (b.name, b.silent, b.spikes, b.sops)
        np.testing.assert_allclose(a.nsfr, b.nsfr)
        np.testing.assert_allclose([a.mean_count, a.saturated], [b.mean_count, b.saturated])
    for name, values in whole.readouts.items():
        np.testing.assert_array_equal(tally.readouts()[name], values)
