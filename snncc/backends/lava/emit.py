"""A Program as a directory that runs on Lava with nothing else installed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from snncc.backends.lava.limits import unsupported
from snncc.backends.lava.plan import Plan
from snncc.backends.lava.readme import readme
from snncc.backends.lava.schedule import schedule
from snncc.errors import TargetError
from snncc.program import Program

__all__ = ["processes", "unsupported", "write"]

_HERE = Path(__file__).parent
#: Where copied code imports from, here and there.
_PACKAGES = (("snncc.backends.lava.emitted.", ""), ("snncc.backends.lava.processes", "processes"))


def write(program: Program, directory: Path, *, name: str) -> None:
    """Write the network: graph.json, tensors.npz, run.py and the code it needs, README.md.

    Args:
        program: A valid Program.
        directory: Made where it does not exist; files of these names are overwritten.
        name: Of the network, for people.

    Raises:
        TargetError: Lava cannot take it, naming every place.
    """
    if faults := unsupported(program):
        raise TargetError("lava: the network does not fit", faults)
    plan = schedule(program)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "graph.json").write_text(_graph(plan, name), encoding="utf-8")
    np.savez(directory / "tensors.npz", **plan.tensors)  # type: ignore[arg-type]
    (directory / "README.md").write_text(readme(plan, name), encoding="utf-8")
    _copy(_HERE / "emitted", directory, skip="__init__.py")
    for stale in (directory / "processes").glob("*.py"):
        stale.unlink()  # Lava executes all that lies there
    _copy(_HERE / "processes", directory / "processes")


def processes(directory: Path) -> int:
    """How many Lava processes an emitted network is."""
    text = (directory / "graph.json").read_text(encoding="utf-8")
    return len(json.loads(text)["processes"])


def _graph(plan: Plan, name: str) -> str:
    """JSON with a line for each process."""
    program = plan.program
    head = {
        "name": name,
        "input": {"shape": program.source.shape, "payload": program.source.payload},
        "timesteps": program.timesteps,
        "frame": program.ticks,
        "latency": plan.latency,
    }
    lines = [f" {json.dumps(key)}: {json.dumps(value)},\n" for key, value in head.items()]
    processes = ",\n".join(f"  {json.dumps(entry)}" for entry in plan.entries)
    return "".join(["{\n", *lines, ' "processes": [\n', processes, "\n ]\n}\n"])


def _copy(source: Path, target: Path, skip: str = "") -> None:
    """Modules, their imports rewritten for where they go."""
    target.mkdir(exist_ok=True)
    for path in sorted(source.glob("*.py")):
        if path.name == skip:
            continue
        text = path.read_text(encoding="utf-8")
        for here, there in _PACKAGES:
            text = text.replace(here, there)
        (target / path.name).write_text(text, encoding="utf-8")
