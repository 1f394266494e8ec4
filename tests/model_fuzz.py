"""Checkpoints and ONNX files with something changed, through ``snncc check``: judged, and quickly.

``PYTHONPATH=tests python tests/model_fuzz.py onnx --files 20000`` (or ``pt``) prints one JSON
object: exit codes, the slowest file, the one that took most memory, and what was found. File
number i of a seed is always the same; ``--first i --files i+1 --keep FOLDER`` leaves it there.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import resource
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
#: What a file may end in; 2 where it asks for an option, 7 would be our own fault.
ALLOWED = {0, 2, 3, 4, 6}
#: A file that takes longer, or so much more memory than the process had, is a finding.
MOST_SECONDS, MOST_BYTES = 60, 1 << 30
#: After so many files a process is replaced.
PER_PROCESS = 1000


# -- one process ---------------------------------------------------------------------------


def made(kind: str, rng: random.Random) -> tuple[bytes, list[str]]:
    """The bytes of a changed file, and options of the command."""
    if kind == "onnx":
        from changed_onnx import changed_onnx, seeds

        return changed_onnx(seeds()[rng.choice(sorted(seeds()))], rng), []
    from changed_checkpoints import NETWORKS, changed_checkpoint

    network = NETWORKS[0] if rng.random() < 0.9 else rng.choice(NETWORKS)  # it takes least time
    form = rng.choice(["bare", "wrapped", "half", "old"])
    options = [f"--arch={ROOT / 'tests' / 'cli_models.py'}:{network}"]
    options += ["--timesteps=3"] if network == "film" else []
    options += ["--weights=ema"] if rng.random() < 0.1 else []
    options += ["--allow-missing"] if rng.random() < 0.1 else []
    options += ["--allow-unexpected"] if rng.random() < 0.1 else []
    return changed_checkpoint(network, form, rng), options


def judged(kind: str, number: int, seed: int, folder: Path) -> dict[str, Any]:
    """What ``check`` did with a file."""
    from command_line import run_cli
    from data_fuzz import resident

    rng = random.Random(f"{kind} {seed} {number}")
    data, options = made(kind, rng)
    path = folder / f"net.{kind}"
    path.write_bytes(data)
    before, start = resident(reset=True), time.perf_counter()
    done = run_cli(folder, "check", path, *options)
    found = {
        **{"number": number, "code": done.code, "seconds": time.perf_counter() - start},
        **{"bytes": resident() - before, "resident": before},
    }
    return {**found, "fault": _fault(done, found)}


def _fault(done: Any, found: dict[str, Any]) -> str:
    """What is wrong with how the command ended, or nothing."""
    if done.code not in ALLOWED:
        return f"exit code {done.code}: {done.stderr[-2000:]}"
    if noise := re.search(r".*(Warning|Traceback|snncc/\w+/\w+\.py).*", done.stderr):
        return f"noise: {noise[0][:2000]}"
    if done.code and not (done.stdout + done.stderr).strip():
        return "no word of why"
    if found["bytes"] > MOST_BYTES:
        return f"{found['bytes'] / 1e9:.1f} GB"
    return ""


def work(kind: str, first: int, files: int, seed: int, keep: Path | None) -> None:
    """Print what came of each file, a line each; the first line says that it has begun."""
    if kind == "pt":
        import economy

        economy.read_torchlib_once()
    resource.setrlimit(resource.RLIMIT_AS, (16 << 30, 16 << 30))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with tempfile.TemporaryDirectory(prefix="fuzz-") as made_here:
        folder = keep or Path(made_here)
        for number in range(first, files):
            print(json.dumps(judged(kind, number, seed, folder)), file=sys.__stdout__, flush=True)


# -- all of them ---------------------------------------------------------------------------


def supervised(kind: str, first: int, files: int, seed: int) -> Iterator[dict[str, Any]]:
    """What came of each file; a process that dies or hangs is a fault of the file it was at."""
    at = first
    while at < files:
        end = min(files, at + PER_PROCESS)
        for found in _one_process(kind, at, end, seed):
            yield found
            at = found["number"] + 1


def _one_process(kind: str, first: int, end: int, seed: int) -> Iterator[dict[str, Any]]:
    line = [sys.executable, __file__, kind, "--work", "--seed", str(seed)]
    child = subprocess.Popen(
        [*line, "--first", str(first), "--files", str(end)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"},
        text=True, bufsize=1, errors="replace",
    )  # fmt: skip
    assert child.stdout is not None
    assert child.stderr is not None
    number = first
    with child:
        while number < end:
            patience = MOST_SECONDS + 60 * (number == first)  # it imports torch
            ready, _, _ = select.select([child.stdout], [], [], patience)
            text = child.stdout.readline() if ready else ""
            if not text:
                yield {"number": number, "fault": _ended(child, bool(ready)), "code": -1}
                break
            yield json.loads(text)
            number += 1
        child.kill()


def _ended(child: subprocess.Popen[str], has_ended: bool) -> str:
    if not has_ended:
        child.kill()
        return f"not done in {MOST_SECONDS} s"
    code = child.wait()
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    assert child.stderr is not None
    return f"the process died of {how}: {child.stderr.read()[-2000:]}"


def fuzz(kind: str, first: int, files: int, seed: int) -> dict[str, Any]:
    """How the files ended, and all that should not have been."""
    codes: Counter[int] = Counter()
    worst = {"seconds": (0.0, -1), "bytes": (0, -1), "resident": (0, -1)}
    faults = []
    for found in supervised(kind, first, files, seed):
        codes[found["code"]] += 1
        for what in worst:
            worst[what] = max(worst[what], (found.get(what, 0), found["number"]))
        if found["fault"]:
            faults.append({"number": found["number"], "fault": found["fault"]})
            print(faults[-1], file=sys.stderr, flush=True)
    return {"files": codes.total(), "codes": dict(sorted(codes.items())), **worst, "faults": faults}


def main() -> None:
    """Print what came of it; exit code 1 if anything was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=["onnx", "pt"])
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", action="store_true", help="in this process")
    parser.add_argument("--keep", type=Path, help="in this process, and the files stay there")
    given = parser.parse_args()
    if given.work or given.keep:
        work(given.kind, given.first, given.files, given.seed, given.keep)
        return
    found = fuzz(given.kind, given.first, given.files, given.seed)
    print(json.dumps(found))
    sys.exit(1 if found["faults"] else 0)


if __name__ == "__main__":
    main()
