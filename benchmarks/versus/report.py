"""Results as one JSON document and as tables on the screen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from snncc.cli.screen import Screen
from versus.peers import EQUAL, PEERS
from versus.trial import OURS, Result, Settings

__all__ = ["document", "show", "show_memory"]

TITLES = {
    "w1": "W1: VGG 64-64-P-128-128-P-256-256-P-FC10 at 32x32x3",
    "w1_16bit": "W1 with 16-bit weights",
    "w2": "W2: convolutions of E-SpikeFormer blocks",
    "examples": "trained on Fashion-MNIST, 8 bits",
    "growth_D": "W1, d = 0.34: growth in D",
    "growth_d": "W1, D = 4: growth in d",
    "growth_width": "W1, d = 0.34: growth in width",
}


def document(
    about: Mapping[str, Any],
    settings: Settings,
    results: Sequence[Result],
    skipped: Mapping[str, str],
    memory: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Section -> case -> peer -> their median time / ours; with all that stands behind it.

    ``best_int8`` stands among the peers for the fastest of those that compute in int8.

    Args:
        about: The machine.
        settings: How it was measured.
        results: In order.
        skipped: ``section key`` -> why there is no result.
        memory: Peak memory, if it was measured.
    """
    found: dict[str, Any] = {
        "machine": dict(about),
        "settings": {
            "engine": settings.engine,
            "options": dict(settings.options),
            "threads": settings.threads,
            "batch": settings.batch,
            "seconds_per_case": settings.seconds,
        },
    }
    for r in results:
        found.setdefault(r.case.section, {})[r.case.key] = r.summary()
    found["cases"] = [r.to_json() for r in results]
    found["skipped"] = dict(skipped)
    if memory is not None:
        found["memory"] = dict(memory)
    return found


def show(screen: Screen, found: Mapping[str, Any]) -> None:
    """Prints a document: the machine, a table for each section, and what is to be known."""
    _show_machine(screen, found)
    for section, title in TITLES.items():
        cases = [c for c in found["cases"] if c["section"] == section]
        if cases:
            screen.text(f"\n{title}", "bold")
            _show_cases(screen, cases)
    screen.text("")
    for line in _remarks(found):
        screen.line(*line)
    if "memory" in found:
        show_memory(screen, found["memory"])


def _show_machine(screen: Screen, found: Mapping[str, Any]) -> None:
    about, chosen = found["machine"], found["settings"]
    screen.line("machine", about["cpu"], f"{about['cores']} cores", " ".join(about["features"]))
    isa = sorted({c["isa"] for c in found["cases"]})
    options = " ".join(f"{k}={v}" for k, v in chosen["options"].items())
    screen.line("engine", chosen["engine"], " ".join(isa), options)
    versions = [f"{k} {v}" for k, v in about["versions"].items()]
    screen.line("versions", f"Python {about['python']}", *versions)
    screen.line(
        "times",
        f"ms a sample, median (least); in brackets their time / ours, batch {chosen['batch']}, "
        f"threads {chosen['threads']}",
    )


def _show_cases(screen: Screen, cases: Sequence[Mapping[str, Any]]) -> None:
    names = [n for n in (OURS, f"{OURS}_1_thread", *PEERS) if any(n in c["ms"] for c in cases)]
    head = ["case", "d", "MMAC", "at events", "by event", *names]
    rows = [[*_network(case), *(_cell(case, name) for name in names)] for case in cases]
    screen.table(head, rows, right=range(1, len(head)))


def _network(case: Mapping[str, Any]) -> list[str]:
    work, by_event = case["work"], case["by_event"]
    return [
        case["key"],
        f"{work['density']:.3f}",
        f"{work['macs'] / 1e6:.1f}",
        f"{100 * work['event_macs'] / work['macs']:.0f} %",
        "-" if by_event is None else f"{100 * by_event:.0f} %",
    ]


def _cell(case: Mapping[str, Any], name: str) -> str:
    if name not in case["ms"]:
        return "-"
    ms = case["ms"][name]
    times = f"{ms['median']:.3g} ({ms['least']:.3g})"
    if name == OURS:
        return times
    mark = "" if case["outputs"].get(name, EQUAL) == EQUAL else "*"
    return f"{times} [{case['ratio'][name]:.2f}x]{mark}"


def _remarks(found: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Columns, forms, and why something is missing or marked, each said once."""
    cases = found["cases"]
    lines: list[tuple[str, ...]] = [
        ("d", "fraction that is not zero, of the activations read by the layers after the first"),
        ("MMAC", "multiply-adds of dense inference, padding included"),
        ("at events", "share of them where the value read is not zero"),
        ("by event", "share of them in layers that our engine computed event by event"),
    ]
    lines += _grouped(cases, "form", "form")
    lines += _best_int8(cases)
    lines += _grouped(cases, "outputs", "* outputs", skip=EQUAL)
    lines += _grouped(cases, "missing", "missing")
    return lines + [("skipped", name, why) for name, why in found["skipped"].items()]


def _grouped(
    cases: Sequence[Mapping[str, Any]], field: str, label: str, skip: str = ""
) -> list[tuple[str, ...]]:
    """A line per engine and text, with the cases it holds for."""
    held: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for case in cases:
        for name, text in case[field].items():
            if text != skip:
                held.setdefault((name, text), []).append(case)
    return [
        (label, name, text, _places(where, cases)) for (name, text), where in sorted(held.items())
    ]


def _best_int8(cases: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """A line per peer that is the fastest of those in int8, with the cases in which it is."""
    held: dict[str, list[Mapping[str, Any]]] = {}
    for case in cases:
        if case["best_int8"]:
            held.setdefault(case["best_int8"]["peer"], []).append(case)
    return [("best int8", name, _places(where, cases)) for name, where in sorted(held.items())]


def _places(where: Sequence[Mapping[str, Any]], cases: Sequence[Mapping[str, Any]]) -> str:
    """The cases by section; a section alone means all of it."""
    if len(where) == len(cases):
        return "everywhere"
    parts = []
    for section in dict.fromkeys(case["section"] for case in where):
        keys = [case["key"] for case in where if case["section"] == section]
        whole = len(keys) == sum(case["section"] == section for case in cases)
        parts.append(section if whole else f"{section} {', '.join(keys)}")
    return "; ".join(parts)


def show_memory(screen: Screen, memory: Mapping[str, Any]) -> None:
    """Prints peak memory, MB."""
    rows = [
        [name, f"{m['peak']:.1f}", f"{m['peak'] - memory['numpy']['peak']:.1f}"]
        for name, m in memory.items()
        if "peak" in m
    ]
    screen.text("\npeak memory of a process that loads and runs W1 (d = 0.34), MB", "bold")
    screen.table(["process", "peak", "over numpy"], rows, right=(1, 2))
    for name, m in memory.items():
        if "missing" in m:
            screen.line("missing", name, m["missing"])
