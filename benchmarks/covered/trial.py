"""One network through the compiler: checked, compiled, verified, compared with its framework."""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt

from covered.subject import Network, Subject, ready_torchvision
from snncc.compiler import check, compile
from snncc.errors import SnnccError
from snncc.runtime.artifact import CompiledModel
from snncc.runtime.session import Session

__all__ = ["tried"]

Array = npt.NDArray[Any]
Row = dict[str, Any]


def tried(network: Network) -> Row:
    """What became of it; what is not reached is left out.

    Returns:
        ``check``: "ok", "skipped: why", or the refusal in one line; ``exact``: it compiled, and no
        engine differs in a count, a result or a train; ``faults``: how many there are;
        ``neurons``, ``silent``, ``spikes``, ``mismatched``; ``changed`` of ``activations``: what
        the import changed; ``worst``: largest difference of a result from the framework's, as a
        share of its largest number; ``agreement``: share of samples with its class; ``seconds``.
    """
    lacking = [name for name in network.needs if find_spec(name) is None]
    row: Row = {"family": network.family, "exact": False, "seconds": {}}
    if lacking:
        return {**row, "check": f"skipped: {', '.join(lacking)} not installed"}
    ready_torchvision()
    try:
        subject = _timed(row, "build", network.build)
    except Exception as e:  # a library that does not go with the others
        return {**row, "check": f"skipped: not built: {type(e).__name__}: {_line(e)}"}
    try:
        _judge(subject, row)
    except SnnccError as e:
        row.update(check=_refusal(e), faults=len(e.faults), code=e.exit_code)
    except Exception as e:  # a fault of the compiler: the worst that a row can say
        row.update(check=f"internal: {type(e).__name__}: {_line(e)}", code=1)
    return row


def _judge(subject: Subject, row: Row) -> None:
    given = subject.options
    found = _timed(row, "check", lambda: check(subject.network, **given))
    if found.faults:
        row.update(check=str(found.faults[0]), faults=len(found.faults), code=3)
        return
    row["check"] = "ok"
    model = _timed(row, "compile", lambda: compile(subject.network, subject.samples, **given))
    _note_report(model, row)
    _timed(row, "compare", lambda: _compare(model, subject, row))


def _note_report(model: CompiledModel, row: Row) -> None:
    report = model.report
    law, verdict = report.import_law, report.verify
    row.update(
        neurons=report.activations_lowered,
        silent=len(verdict.coverage.silent),
        spikes=verdict.coverage.spikes,
        mismatched=verdict.mismatched,
        samples=verdict.samples,
        changed=law.changed,
        activations=law.activations,
        squeezed=len(report.squeezed),
        exact=verdict.mismatched == 0 and verdict.coverage.fired > 0,
    )


def _compare(model: CompiledModel, subject: Subject, row: Row) -> None:
    """The first result beside the framework's."""
    ours = Session(model, "event").run(None, subject.samples)[0]
    theirs = subject.framework(subject.samples)
    if ours.size != theirs.size:
        raise ValueError(f"results {ours.shape} beside {theirs.shape}")
    theirs = theirs.reshape(ours.shape)
    row["worst"] = float(np.abs(ours - theirs).max() / max(np.abs(theirs).max(), 1e-30))
    scores = [out if out.ndim == 2 else out.mean(0) for out in (ours, theirs)]
    if scores[0].ndim == 2:
        row["agreement"] = float(np.mean(scores[0].argmax(1) == scores[1].argmax(1)))


def _timed(row: Row, what: str, work: Callable[[], Any]) -> Any:
    start = time.perf_counter()
    try:
        return work()
    finally:
        row["seconds"][what] = round(time.perf_counter() - start, 1)


def _refusal(error: SnnccError) -> str:
    """The message, and the first fault where there are any."""
    return " | ".join([_line(error.message), *(str(fault) for fault in error.faults[:1])])


def _line(error: object) -> str:
    return " ".join(str(error).split())[:300]
