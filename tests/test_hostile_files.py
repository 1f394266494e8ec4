"""The zoo of hostile files: none runs code, starts a process or reaches out of its folder."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command_line import ROOT
from hostile_files import HOSTILE

#: What the product answers: the file is bad, or the network, or the command.
ANSWERS = (2, 3, 6)


def run(folder: Path, jobs: dict[str, tuple[str, ...]]) -> dict[str, Any]:
    """What each file's command did, by name; the file is made here, read in a child."""
    work = []
    for name, args in jobs.items():
        place = folder / name.replace(" ", "_").replace(":", "")
        (place / "work").mkdir(parents=True)
        HOSTILE[name].make(place / "work", place / "owned")
        env = {"SNNCC_CACHE": str(place / "work/cache"), "TMPDIR": str(place / "work")}
        words = [word for arg in args for word in arg.split(" ")]
        work.append({"args": words, "folder": str(place / "work"), "env": env})
    child = [sys.executable, "-W", "ignore", str(ROOT / "tests/hostile_child.py")]
    done = subprocess.run(child, input=json.dumps(work), capture_output=True, text=True, check=True)
    found = dict(zip(jobs, json.loads(done.stdout), strict=True))
    for name, job in zip(jobs, work, strict=True):
        found[name]["owned"] = (Path(job["folder"]).parent / "owned").exists()
    return found


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    jobs = {name: hostile.args for name, hostile in HOSTILE.items()}
    return run(tmp_path_factory.mktemp("hostile"), jobs)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_gets_nothing(name: str, found: dict[str, Any]) -> None:
    did = found[name]
    assert did["wrong"] == []
    assert not did["owned"]
    assert did["code"] in (*ANSWERS, 0 if name == "onnx: names" else None), did["err"]
    assert "Traceback" not in did["err"]


@pytest.fixture(scope="module")
def trusted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    jobs = {n: (*h.args, *h.trusted) for n, h in HOSTILE.items() if h.trusted}
    return run(tmp_path_factory.mktemp("trusted"), jobs)


@pytest.mark.parametrize("name", [name for name, hostile in HOSTILE.items() if hostile.trusted])
def test_the_file_is_a_hostile_one_and_would_be_seen(name: str, trusted: dict[str, Any]) -> None:
    """Trusted, it does what it wants, and the watch on it says so."""
    assert trusted[name]["owned"]
    assert any(event.startswith("os.mkdir") for event in trusted[name]["wrong"])
