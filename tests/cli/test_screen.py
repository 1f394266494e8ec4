"""Words and tables: plain when piped, coloured and folded on a terminal."""

import io
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snncc.cli.screen import Screen, file_size, human, percent, plural, printable, steps
from snncc.compiler.progress import Step


class _Stream(io.StringIO):
    def __init__(self, is_terminal):
        super().__init__()
        self.isatty = lambda: is_terminal


@pytest.fixture
def shown(monkeypatch):
    """What a function prints on a terminal of 60 columns, or into a pipe."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "60")

    def show(what, is_terminal):
        stream = _Stream(is_terminal)
        monkeypatch.setattr(sys, "stdout", stream)
        what(Screen())
        monkeypatch.undo()
        return stream.getvalue()

    return show


def _all(screen):
    screen.line("label", "words " * 20, "", "more")
    screen.table(("name", "n", "why"), [("a", "1", "long " * 20), ("bb", "20", "x")], right=(1,))
    screen.error("no")


PLAIN = f"""\
label      {"words " * 20}    more
name   n  why
a      1  {("long " * 20).rstrip()}
bb    20  x
error: no
"""


def test_a_pipe_gets_plain_text_of_any_width(shown):
    assert shown(_all, is_terminal=False) == PLAIN


def test_colour_can_not_be_forced_into_a_pipe(shown, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert shown(_all, is_terminal=False) == PLAIN


def test_a_terminal_gets_colour_and_folded_cells(shown):
    text = shown(_all, is_terminal=True)
    assert "\x1b[" in text
    assert text.count("\n") > PLAIN.count("\n")


def test_no_color_is_respected(shown, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    text = shown(_all, is_terminal=True)
    assert "\x1b[3" not in text
    assert "36m" not in text


@given(st.floats(0, 1))
def test_only_none_and_all_are_written_as_such(share):
    assert (percent(share) == "0 %") == (share == 0)
    assert (percent(share) == "100 %") == (share == 1)
    assert float(percent(share).split()[0]) == pytest.approx(100 * share, rel=0.6, abs=0.06)


@settings(max_examples=50)
@given(st.text())
def test_printable_text_has_no_control_characters(text):
    assert all(c.isprintable() or c == "\n" for c in printable(text))


@given(st.from_regex(r"[ -~à-ž→×·]*", fullmatch=True))
def test_printable_text_stays_as_it_is(text):
    assert printable(text) == text


def test_words():
    assert percent(None) == "not measured"
    assert [percent(s) for s in (0.0196, 0.977, 0.99996, 0.000196)] == [
        "2.0 %", "97.7 %", "99.996 %", "0.02 %",
    ]  # fmt: skip
    assert [plural(n, "batch|batches") for n in (0, 1, 2000)] == [
        "0 batches", "1 batch", "2,000 batches",
    ]  # fmt: skip
    assert [file_size(n) for n in (12, 412_345, 1_517_818)] == ["12 B", "412 kB", "1.5 MB"]
    assert [human(n) for n in (3.14159, 1999, 1_570_000)] == ["3.14", "2 k", "1.57 M"]


# --- progress -------------------------------------------------------------------------------------


def _told(monkeypatch, is_terminal, quiet=False):
    monkeypatch.setenv("TERM", "xterm")
    stream = _Stream(is_terminal)
    monkeypatch.setattr(sys, "stderr", stream)
    with steps(quiet) as say:
        say(Step("import"))
        say(Step("verify", 9, 11, done=4, parts=12))  # the last picture is drawn whatever the time
    monkeypatch.undo()
    return stream.getvalue()


def test_a_terminal_sees_which_step_runs_and_how_far_it_is(monkeypatch):
    text = _told(monkeypatch, is_terminal=True)
    assert "9/11 verify 4/12" in text
    assert text.endswith("\x1b[2K")  # the line is gone after it


def test_nothing_is_told_where_nobody_looks(monkeypatch):
    assert _told(monkeypatch, is_terminal=False) == ""
    assert _told(monkeypatch, is_terminal=True, quiet=True) == ""
