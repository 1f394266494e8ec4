"""The table for people: on the screen while it is made, and as a page of the documentation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["line", "page", "totals"]

Row = Mapping[str, Any]

_HEAD = """# Networks of the ecosystem
Networks as users of other libraries have them, built from the installed packages: small instances,
random weights, batch norms calibrated on what they read, 16-bit weights. Each is checked, compiled,
verified and compared with its own framework in a process of its own.

**Exact** says: `clocked`, `event` and `spike-form` fire what `integer` fires, in every count,
result and train. *Changed* are the activations that differ between the framework and the imported
graph, both in float32: near a rounding border one float32 sum decides otherwise than another.
*Worst* is the largest difference of the first result from the framework's, as a share of its
largest number, weights quantised; with random weights a class means little, and one changed spike
more than in trained networks. Seconds are those of the machine that made the page, which may have
been busy.

This page is made:
`python benchmarks/coverage.py --json docs/coverage.json --page docs/coverage.md`.
"""
_PHASES = ("check", "compile", "compare")


def line(name: str, row: Row) -> str:
    """A row on the screen."""
    if not row["exact"]:
        return f"{name:52} {_why_not(row)[:160]}"
    seconds = "  ".join(f"{k} {row['seconds'].get(k, 0):.1f}" for k in _PHASES)
    return (
        f"{name:52} exact  {row['neurons']:3} neurons ({row['silent']} silent)  "
        f"changed {row['changed']} of {row['activations']}  worst {row['worst']:.1e}  {seconds}"
    )


def _why_not(row: Row) -> str:
    if row["check"] != "ok":
        return str(row["check"])
    if "neurons" not in row:
        return "check says ok, and compile was not reached"
    return f"{row['mismatched']} mismatched; {row['silent']} of {row['neurons']} populations silent"


def totals(rows: Mapping[str, Row]) -> dict[str, tuple[int, int, int]]:
    """Ecosystem -> networks, of them exact, of them skipped."""
    found: dict[str, tuple[int, int, int]] = {}
    for name, row in rows.items():
        home = name.partition("/")[0]
        all_of, exact, skipped = found.get(home, (0, 0, 0))
        is_skipped = row["check"].startswith("skipped")
        found[home] = all_of + 1, exact + row["exact"], skipped + is_skipped
    return found


def page(rows: Mapping[str, Row], versions: Mapping[str, str]) -> str:
    """The page of a run."""
    used = ", ".join(f"{name} {version}" for name, version in versions.items())
    parts = [_HEAD, f"Made with {used}.\n", _summary(rows)]
    for home in totals(rows):
        own = {name: row for name, row in rows.items() if name.startswith(f"{home}/")}
        parts.append(_section(home, own))
    return "\n".join(parts)


def _summary(rows: Mapping[str, Row]) -> str:
    found = totals(rows)
    lines = [f"| {k} | {n} | {exact} | {skipped} |" for k, (n, exact, skipped) in found.items()]
    n, exact, skipped = (sum(v[i] for v in found.values()) for i in range(3))
    head = "| ecosystem | networks | exact | not built here |\n|---|---|---|---|"
    return "\n".join([head, *lines, f"| **all** | **{n}** | **{exact}** | **{skipped}** |", ""])


def _section(home: str, rows: Mapping[str, Row]) -> str:
    head = (
        "| network | neurons, silent | spikes | changed at import | worst | check, compile, s |\n"
        "|---|---|---|---|---|---|"
    )
    exact = [_cells(name, row) for name, row in rows.items() if row["exact"]]
    refused = [
        f"- **{name.partition('/')[2]}**: {_quoted(_why_not(row))}"
        for name, row in rows.items()
        if not row["exact"]
    ]
    return "\n".join([f"## {home}", *([head, *exact, ""] if exact else []), *refused, ""])


def _cells(name: str, row: Row) -> str:
    seconds = row["seconds"]
    return (
        f"| {name.partition('/')[2]} | {row['neurons']}, {row['silent']} | {_spikes(row)} | "
        f"{row['changed']:,} of {row['activations']:,} | {row['worst']:.1e} | "
        f"{seconds['check']:.1f}, {seconds['compile']:.1f} |"
    )


def _spikes(row: Row) -> str:
    return f"{row['spikes']:,}" if "spikes" in row else "–"


def _quoted(text: str) -> str:
    return f"`{text}`" if "`" not in text else text
