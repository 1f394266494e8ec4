"""Objects show themselves in a few lines, in notebooks, and as pictures."""

import io
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import small_model

from snncc.errors import UsageError
from snncc.program import Neuron
from snncc.runtime import plots
from snncc.runtime.session import Session
from snncc.runtime.summary import Summary


@pytest.fixture(scope="module")
def session():
    return Session(small_model.compiled(), engine="event")


@pytest.fixture(scope="module")
def profile(session):
    return session.profile(small_model.samples())


def drawn(picture, kind="png"):
    file = io.BytesIO()
    plots.save_picture(picture, file, kind)
    return file.getvalue()


def shown(session):
    x = small_model.samples()
    return [session.model, session, session.trace(x), session.profile(x)]


def test_what_is_shown_is_short(session):
    for thing in shown(session):
        text = repr(thing)
        assert len(text.splitlines()) <= 20
        assert len(text) < 3000
        assert "net.act1" in text or "45nm-int8" in text


def test_many_populations_are_counted():
    rows = [(f"p{i}", str(i)) for i in range(105)]
    summary = Summary("title", ("name", "number"), rows)
    assert len(summary.text().splitlines()) <= 20
    assert summary.text().endswith("and 89 more")
    assert "and 89 more" in summary.html()


def test_an_engines_activity_is_short(session):
    found = session._engine.run(small_model.samples())
    assert repr(found) == (
        "<Activity of 5 samples: 2 counts, 1 readouts, 2 tick_spikes, 0 spikes, 0 potentials>"
    )


def renamed(model, name):
    """The network with a module of that name."""
    nodes = (replace(n, module=name) if isinstance(n, Neuron) else n for n in model.program.nodes)
    model.program = replace(model.program, nodes=tuple(nodes))
    return model


def test_names_are_escaped():
    evil = "<script>alert(1)</script>"
    session = Session(renamed(small_model.compiled(), evil), engine="event")
    for thing in shown(session)[:3]:
        html = thing._repr_html_()
        assert "<script" not in html
        assert "&lt;script&gt;" in html


def test_html_is_a_table(session):
    for thing in shown(session):
        html = thing._repr_html_()
        assert html.count("<table>") == html.count("</table>") == 1
        assert html.startswith("<div>")


def test_pictures_are_the_same_each_time(session):
    trace = session.trace(small_model.samples())
    once = drawn(trace.plot_raster(), "svg")
    assert once == drawn(trace.plot_raster(), "svg")
    assert b"net.act1" in once


def test_every_picture_can_be_drawn(session, profile):
    trace = session.trace(small_model.samples())
    assert b"net.act2" in drawn(trace.plot_nsfr(), "svg")
    assert b"45nm-int8+memory" in drawn(profile.plot_energy(), "svg")
    assert drawn(profile.plot_nsfr())[:8] == b"\x89PNG\r\n\x1a\n"
    assert trace.plot_raster()._repr_png_()[:4] == b"\x89PNG"
    assert drawn(trace.plot_raster(), "pdf")[:4] == b"%PDF"


def test_a_raster_has_a_dot_for_each_spike(session):
    program = session.model.program
    counts = {n.name: np.zeros((1, 2, *n.shape), np.uint8) for n in program.neurons}
    counts["fire2"][0, 1].flat[:3] = (4, 0, 1)
    (axes,) = plots.raster(program, counts, 1).axes
    dots = np.concatenate([c.get_offsets() for c in axes.collections])
    window = program.by_name["fire2"].depth * program.ticks
    ticks = sorted(dots[:, 0].astype(int) - window)
    assert ticks[:1] == [0]
    assert set(ticks) <= {0, 1, 2, 3}
    assert len(plots.raster(program, counts, 0).axes[0].collections[1].get_offsets()) == 0


def test_a_formula_in_a_name_is_a_name():
    session = Session(renamed(small_model.compiled(), "a$\\frac{$b"), engine="event")
    assert drawn(session.trace(small_model.samples()).plot_raster())


def test_accountings_alone_make_no_picture(session):
    found = session.profile(small_model.samples(), ["spikeyolo"])
    with pytest.raises(UsageError, match="needs a model of operations"):
        found.plot_energy()


def test_without_matplotlib_the_pip_line_is_told(session):
    code = """
import sys
sys.modules["matplotlib"] = None
from snncc.errors import MissingDependencyError
import snncc.runtime.session
try:
    import snncc.runtime.plots
except MissingDependencyError as e:
    print(e.exit_code, e)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert re.match(r"7 .*pip install 'snncc\[plot\]'", done.stdout)
