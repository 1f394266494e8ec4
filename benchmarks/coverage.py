"""Which networks of the ecosystem compile, exactly: a table, JSON and a page of the documentation.

    python benchmarks/coverage.py
    python benchmarks/coverage.py snntorch by-hand/LeNet
    python benchmarks/coverage.py --json docs/coverage.json --page docs/coverage.md

Networks are built from the libraries that are installed; what is missing is skipped, and said:
spikingjelly, snntorch, norse, sinabs, brevitas with onnxoptimizer, torchvision, torchao. Each runs
in a process of its own with a limit of seconds and of memory. With --keep rows of the JSON file
that were not run again stay.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from covered.page import line, page, totals

#: Modules of networks, in the order of the table.
_HOMES = (
    "spiking_jelly", "snn_torch", "norse_sinabs", "brevitas_files", "onnx_runtime", "by_hand",
    "torch_ao",
)  # fmt: skip
_LIBRARIES = (
    "torch", "spikingjelly", "snntorch", "norse", "sinabs", "brevitas", "onnxruntime",
    "torchvision", "torchao",
)  # fmt: skip


def networks() -> dict[str, Any]:
    """Name -> covered.subject.Network, all there are."""
    from importlib import import_module

    found: dict[str, Any] = {}
    for home in _HOMES:
        found.update(import_module(f"covered.{home}").NETWORKS)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a row for each network, then a summary."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="networks, or beginnings of names")
    parser.add_argument("--seconds", type=int, default=600, help="limit of one network")
    parser.add_argument("--megabytes", type=int, default=6000, help="likewise")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--page", type=Path, metavar="FILE", help="a page of Markdown")
    parser.add_argument("--keep", action="store_true", help="keep rows of the JSON file")
    parser.add_argument("--list", action="store_true", help="print names, run nothing")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.one:
        _run_one(given.names[0], given.one, given.megabytes)
        return
    known = networks()
    chosen = [name for name in known if not given.names or name.startswith(tuple(given.names))]
    if not chosen:
        parser.error(f"no such network; there are {', '.join(known)}")
    if given.list:
        print("\n".join(chosen))
        return
    rows: dict[str, Any] = {}
    if given.keep and given.json and given.json.exists():
        rows.update(json.loads(given.json.read_text())["networks"])
    for name, row in _rows(chosen, given):
        rows = {n: {**rows, name: row}[n] for n in known if n in rows or n == name}
        _write(rows, given)  # after each, as the next may take long
    _print_totals(rows)


def _rows(names: Sequence[str], given: argparse.Namespace) -> Iterator[tuple[str, Any]]:
    for name in names:
        row = _apart(name, given.seconds, given.megabytes)
        print(line(name, row), flush=True)
        yield name, row


def _apart(name: str, seconds: int, megabytes: int) -> Mapping[str, Any]:
    """The row of a network, made in a process of its own."""
    with tempfile.TemporaryDirectory() as home:
        found = Path(home) / "row.json"
        command = [sys.executable, __file__, name, "--one", str(found)]
        limits = ["--megabytes", str(megabytes)]
        try:
            ran = subprocess.run(
                [*command, *limits], timeout=seconds, capture_output=True, text=True,
                env={**os.environ, "TMPDIR": home},
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return _lost(name, f"took more than {seconds} s")
        if not found.exists():
            last = (ran.stderr.strip().splitlines() or [""])[-1]
            return _lost(name, f"ended with {ran.returncode}: {last[:200]}")
        return json.loads(found.read_text())  # type: ignore[no-any-return]


def _lost(name: str, why: str) -> Mapping[str, Any]:
    return {"family": name.partition("/")[2], "exact": False, "check": why, "seconds": {}}


def _run_one(name: str, found: Path, megabytes: int) -> None:
    """In the child: the row as JSON."""
    resource.setrlimit(resource.RLIMIT_DATA, (megabytes * 2**20, megabytes * 2**20))
    warnings.simplefilter("ignore")
    import torch

    from covered.trial import tried

    torch.set_num_threads(1)
    found.write_text(json.dumps(tried(networks()[name])))


def _print_totals(rows: Mapping[str, Any]) -> None:
    for home, (n, exact, skipped) in totals(rows).items():
        print(f"{home:20}{exact:4} of {n} exact" + (f", {skipped} not built" if skipped else ""))
    print(f"{'all':20}{sum(row['exact'] for row in rows.values()):4} of {len(rows)} exact")


def _write(rows: Mapping[str, Any], given: argparse.Namespace) -> None:
    if given.json:
        held = {"versions": _versions(), "networks": rows}
        given.json.write_text(json.dumps(held, indent=1, ensure_ascii=False) + "\n")
    if given.page:
        given.page.write_text(page(rows, _versions()))


def _versions() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name).partition("+")[0]
        except PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    main()
