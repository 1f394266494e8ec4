"""Runs that are killed: at every step of writing, or at random moments of a whole command.

``PYTHONPATH=tests python tests/kills.py --kills 1000`` kills ``snncc compile``, ``snncc export``
and ``snncc run`` without a cache, and says what was lost and what was left. Forks are safe, as
nothing here has started a thread.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import numpy as np

__all__ = ["at_every_step"]

ROOT = Path(__file__).parents[1]
PARTS = ("a", "b")
#: What a process tells its audit hook before it touches a file system.
_TOUCHES = {"open", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "shutil.rmtree"}


def kill_at(step: int, number: int = signal.SIGKILL, name: str = "") -> None:
    """This process gets the signal just before it touches files for the ``step``-th time.

    Args:
        step: From 1.
        number: The signal.
        name: Only files count in whose path this is.
    """
    count = 0

    def hook(event: str, args: tuple[object, ...]) -> None:
        nonlocal count
        if event in _TOUCHES and any(name in str(arg) for arg in args):
            count += 1
            if count == step:
                os.kill(os.getpid(), number)

    sys.addaudithook(hook)


def in_child(work: Callable[[], object]) -> int:
    """Do the work in a fork of this process; how it ended, as ``os.waitpid`` says."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException as e:
            print("child:", repr(e), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]


# -- every step of writing -----------------------------------------------------------------


def at_every_step(kind: str, out: Path, exists: bool) -> list[tuple[str, list[str]]]:
    """What there is and what is left once the next run has begun, for a kill at each step.

    Args:
        kind: ``file`` or ``folder``.
        out: What is written.
        exists: Whether an earlier one is there each time.
    """
    code = "import kills, sys; kills.steps(*sys.argv[1:])"
    command = [sys.executable, "-c", code, kind, str(out), str(exists)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    done = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
    return [(after, left) for after, left in json.loads(done.stdout)]


def steps(kind: str, path: str, exists: str) -> None:
    """Print what ``at_every_step`` gives."""
    out, found = Path(path), []
    for step in range(1, 100):
        shutil.rmtree(out) if out.is_dir() else out.unlink(missing_ok=True)
        if exists == "True":
            written(kind, out, "old")
        ended = in_child(lambda step=step: (kill_at(step), written(kind, out, "new")))
        begun(kind, out)
        found.append((content(out), leavings(out)))
        if ended == 0:
            break
    print(json.dumps(found))


def claim(kind: str, out: Path):
    from snncc.system.outputs import claim_file, claim_folder

    exported = {"graph.json", "tensors.npz", "README.md", "processes", "run.py", "network.py"}
    parts = {*PARTS, *exported, "executors.py", "files.py"}
    return claim_file(out, True) if kind == "file" else claim_folder(out, True, parts)


def written(kind: str, out: Path, text: str) -> None:
    def fill(part: Path) -> None:
        part.mkdir()
        for name in PARTS:
            (part / name).write_text(text)

    with claim(kind, out) as held:
        held.write((lambda file: file.write(text.encode())) if kind == "file" else fill)


def begun(kind: str, out: Path) -> None:
    """What every run does before its work."""
    with claim(kind, out):
        pass


def content(out: Path) -> str:
    if not out.exists():
        return "nothing"
    files = [out] if out.is_file() else [out / name for name in PARTS]
    texts = {file.read_text() if file.exists() else "cut" for file in files}
    return texts.pop() if len(texts) == 1 else "mixed"


def leavings(out: Path) -> list[str]:
    return sorted(entry.name for entry in out.parent.iterdir() if entry != out)


# -- random moments of a command -----------------------------------------------------------


@dataclass
class Command:
    """A command line that replaces ``out``.

    Attributes:
        args: Of snncc.
        out: What it writes.
        old, new: What is there before, and after.
        seconds: How long it takes.
        touches: How often it touches files, and how often those of its output.
        env: What its environment has besides.
    """

    args: list[str]
    out: Path
    old: bytes = b""
    new: bytes = b""
    seconds: float = 0.0
    touches: tuple[int, int] = (0, 0)
    env: Mapping[str, str] = field(default_factory=dict)

    def run(self, prepare: Callable[[], object] = lambda: None, after: float = 0.0) -> int:
        """Do it in a child; how it ended. ``after`` seconds it is killed with what is prepared."""
        child = os.fork()
        if child == 0:
            self._become(prepare)
        if after:
            time.sleep(after)
            with suppress(ProcessLookupError):
                os.kill(child, self.number)
        return os.waitpid(child, 0)[1]

    number = signal.SIGKILL

    def _become(self, prepare: Callable[[], object]) -> NoReturn:
        from snncc.__main__ import main

        nowhere = os.open(self.out.parent.with_name("said"), os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        for descriptor in (1, 2):
            os.dup2(nowhere, descriptor)
        sys.argv = ["snncc", *self.args]
        os.environ.update(self.env)
        code = 1
        try:
            prepare()
            main()
        except SystemExit as e:
            code = int(e.code or 0)
        finally:
            os._exit(code)  # what pytest or an interpreter does at its exit is not the command's

    def measure(self) -> None:
        """How long it takes and how often it touches files, told through a pipe."""
        start = time.perf_counter()
        if self.run():
            raise SystemExit(f"{self.args} fails by itself")
        self.seconds = time.perf_counter() - start
        reader, writer = os.pipe()
        self.run(lambda: count_touches(writer, self.out.name))
        os.close(writer)
        with os.fdopen(reader, "rb") as file:
            told = file.read()
        self.touches = (len(told), told.count(b"o"))
        self.new = tree(self.out)

    def restore(self) -> None:
        """Put the old content there."""
        remove(self.out)
        unpack(self.out, self.old)


def count_touches(writer: int, name: str) -> None:
    """A byte for each touch of files, ``o`` for those of the output."""

    def hook(event: str, args: tuple[object, ...]) -> None:
        if event in _TOUCHES:
            os.write(writer, b"o" if any(name in str(arg) for arg in args) else b".")

    sys.addaudithook(hook)


def tree(path: Path) -> bytes:
    """All bytes of a file, or of a folder with the names in it; empty if there is nothing."""
    if not path.is_dir():
        return path.read_bytes() if path.exists() else b""
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return json.dumps([[str(f.relative_to(path)), f.read_bytes().hex()] for f in files]).encode()


def unpack(path: Path, data: bytes) -> None:
    """The reverse of ``tree``."""
    if not data.startswith(b"[["):
        path.write_bytes(data)
        return
    for name, content in json.loads(data):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(bytes.fromhex(content))


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def killed(command: Command, rng: random.Random) -> tuple[str, str]:
    """One kill at a random moment; how, and what came of it."""
    how = rng.choice(["time", "any step", "step of writing"])
    number = rng.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM])
    command.number = number
    if how == "time":
        ended = command.run(after=rng.uniform(0.001, 1.05 * command.seconds))
    else:
        of, name = command.touches[how != "any step"], "" if how == "any step" else command.out.name
        ended = command.run(lambda: kill_at(rng.randint(1, of), number, name))
    return f"{number.name} at {how}", outcome(command, ended, number)


def outcome(command: Command, ended: int, number: int) -> str:
    """What is there when the next run has begun; of a run that ended in order, at once."""
    in_order = os.WIFEXITED(ended)
    if in_order and os.WEXITSTATUS(ended) not in (0, 128 + number):
        said = command.out.parent.with_name("said").read_text()
        return f"exit code {os.WEXITSTATUS(ended)}: {said}"
    if in_order and leavings(command.out):
        return f"left {leavings(command.out)}"
    begun("file" if command.out.suffix else "folder", command.out)
    if left := leavings(command.out):
        return f"left {left} for ever"
    found = tree(command.out)
    return "old" if found == command.old else "new" if found == command.new else "LOST"


def commands(folder: Path) -> list[Command]:
    """A compilation, an export and a run, each with an earlier result in its place."""
    from float_networks import Net

    net = Net((1, 8, 8), seed=3).conv(2).fire(4).flatten().linear(4)
    model = folder / "net.onnx"
    model.write_bytes(net.proto().SerializeToString())
    found = []
    for name, out in (("compile", folder / "1" / "out.snn"), ("export", folder / "2" / "out")):
        out.parent.mkdir()
        network = str(folder / f"{name}.snn")
        options = ["--input-range", "0,1", "--target", "loihi2", "--name"]
        compiled = ["compile", str(model), *options]
        exported = ["export", network, "--to", "lava", "-o", str(out), "-f"]
        first = Command([*compiled, "old", "-o", network, "-f"], Path(network))
        line = [*compiled, "new", "-o", str(out), "-f"] if name == "compile" else exported
        command = Command(line, out)
        if first.run():
            raise SystemExit(f"{first.args} fails by itself")
        command.old = tree(Path(network)) if name == "compile" else b'[["run.py", "6f6c64"]]'
        found.append(command)
    return [*found, run_without_cache(folder)]


def run_without_cache(folder: Path) -> Command:
    """The graph and its weights are in a temporary folder while it runs."""
    np.save(folder / "x.npy", np.zeros((3, 1, 8, 8), np.float32))
    out = folder / "3" / "out.npz"
    out.parent.mkdir()
    line = ["run", str(folder / "compile.snn"), "--input", str(folder / "x.npy"), "-o", str(out)]
    no_cache = {"SNNCC_CACHE": str(folder / "x.npy")}
    return Command([*line, "-f", "--engine", "integer"], out, b"old", env=no_cache)


def main() -> None:
    """Kill commands and count what came of it; exit code 1 if anything was lost or left."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    from snncc.system.temporary import TemporaryFolder

    rng, found, bad = random.Random(given.seed), Counter(), 0
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        place = Path(folder)
        for name in ("temporary", "cache"):
            (place / name).mkdir(mode=0o700)
        os.environ |= {"TMPDIR": f"{folder}/temporary", "SNNCC_CACHE": f"{folder}/cache"}
        preload()
        all_of_them = commands(place)
        for command in all_of_them:
            command.restore()
            command.measure()
        for _ in range(given.kills):
            command = rng.choice(all_of_them)
            command.restore()
            how, what = killed(command, rng)
            found[command.args[0], how, what] += 1
            bad += what not in ("old", "new")
        left = len([*place.glob("temporary/snncc-*")])
        TemporaryFolder("next").close()
        kept = [*place.glob("temporary/snncc-*")]
        bad += len(kept)
    for (name, how, what), count in sorted(found.items()):
        print(f"{name:8} {how:24} {what:8} {count:5}")
    print(f"{given.kills} kills, {bad} with anything lost or left")
    print(f"temporary folders at the end: {left}, when the next run has begun: {len(kept)}")
    sys.exit(1 if bad else 0)


def preload() -> None:
    """Import what commands need, so that children are quick; and no thread is started."""
    import snncc.cli
    import snncc.compiler
    import snncc.frontends.onnx_file
    import snncc.ir.oracle
    import snncc.runtime.verify  # noqa: F401

    if len(os.listdir("/proc/self/task")) > 1:
        raise SystemExit("a thread runs already; set OMP_NUM_THREADS=1")


if __name__ == "__main__":
    main()
