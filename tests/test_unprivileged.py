"""A user without rights: what cannot be read, written or trusted is said to be, exit code 6."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import small_model
from data_files import npz, png
from float_networks import Net

ROOT = Path(__file__).parents[1]
NOBODY = 65534
DROP = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
RUN = """
import json, sys
from pathlib import Path
from command_line import run_cli
print(json.dumps([
    [done.code, done.stdout, done.stderr]
    for done in (run_cli(Path("/nowhere"), *line) for line in json.load(sys.stdin))
]))
"""


def as_nobody(lines, home, **variables):
    """Run command lines in one process of that user; code, stdout and stderr of each."""
    env = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": str(home),
        "TMPDIR": str(home / "temporary"),
        **variables,
    }
    done = subprocess.run(
        [*DROP, sys.executable, "-c", RUN],
        input=json.dumps([[str(arg) for arg in line] for line in lines]),
        env=env, cwd=home, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def _can_drop():
    """Whether this user can become that one, and that one can run this Python."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        return False
    probe = [*DROP, sys.executable, "-c", "import snncc.cli, numpy"]
    return subprocess.run(probe, cwd=ROOT, capture_output=True).returncode == 0


@pytest.fixture(scope="module")
def place():
    """A folder that everybody may enter, ``open`` that everybody may write to, ``shut`` nobody."""
    if not _can_drop():
        pytest.skip("needs root, setpriv, and a Python that others may run")
    with tempfile.TemporaryDirectory(prefix="unprivileged-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        for part, mode in (
            ("open", 0o1777),
            ("shut", 0o700),
            ("read", 0o755),
            ("temporary", 0o1777),
        ):
            (folder / part).mkdir()
            (folder / part).chmod(mode)
        model = small_model.compiled()
        x = np.zeros((2, 1, 6, 6), np.uint8)
        for part in ("read", "shut"):
            model.save(folder / part / "net.snn")
            npz(folder / part / "x.npz", x=x)
            net = Net((1, 8, 8), seed=3).conv(2).fire(4).flatten().linear(4)
            (folder / part / "net.onnx").write_bytes(net.proto().SerializeToString())
        for entry in ("net.snn", "x.npz", "net.onnx"):
            shutil.copy(folder / "read" / entry, folder / "read" / f"secret-{entry}")
            (folder / "read" / f"secret-{entry}").chmod(0o600)
        (folder / "read" / "secret-models.py").write_text("")
        (folder / "read" / "secret-models.py").chmod(0o600)
        for images in ("images", "shut-images"):
            for index in range(2):
                png(folder / "read" / images / f"{index}.png", np.zeros((6, 6), np.uint8))
        (folder / "read" / "images" / "1.png").chmod(0o600)
        (folder / "read" / "shut-images").chmod(0o700)
        (folder / "open" / "owned.snn").write_bytes(b"root's")
        (folder / "open" / ".held.snn.lock").write_bytes(b"snncc          1\n")
        (folder / "open" / "link.snn").symlink_to(folder / "open" / "owned.snn")
        yield folder


REFUSED = {
    "inspect {read}/secret-net.snn": "cannot be read (Permission denied)",
    "inspect {shut}/net.snn": "cannot be read (Permission denied)",
    "verify {read}/secret-net.snn": "cannot be read (Permission denied)",
    "run {read}/net.snn --input {read}/secret-x.npz": "secret-x.npz: cannot be read (Perm",
    "run {read}/net.snn --input {shut}/x.npz": "cannot be read (Permission denied)",
    "run {read}/net.snn --input {read}/x.npz --labels {read}/secret-x.npz": "cannot be read (",
    "run {read}/net.snn --input {read}/images": "images/1.png: cannot be read (Permission",
    "run {read}/net.snn --input {read}/shut-images": "shut-images: cannot be read (Permission",
    "verify {read}/net.snn --input {read}/secret-x.npz": "cannot be read (Permission denied)",
    "check {read}/secret-net.onnx": "cannot be read (Permission denied)",
    "check {shut}/net.onnx": "cannot be read (Permission denied)",
    "check {read}/x.npz --arch {shut}/models.py:net": "models.py: no such file",
    "check {read}/x.npz --arch {read}/secret-models.py:net": "Permission denied",
    "compile {read}/net.onnx --input-range 0,1 -o {read}/x.snn": "read' cannot be written",
    "compile {read}/net.onnx --input-range 0,1 -o {shut}/x.snn": "x.snn: cannot be written (Perm",
    "compile {read}/net.onnx --input-range 0,1 -o {shut}/deep/x.snn": "cannot be written (Perm",
    "compile {read}/net.onnx --input-range 0,1 -o {open}/owned.snn": "exists already",
    "compile {read}/net.onnx --input-range 0,1 -o {open}/owned.snn -f": "cannot be written (",
    "compile {read}/net.onnx --input-range 0,1 -o {open}/held.snn": "cannot be written (Permission",
    "compile {read}/net.onnx --input-range 0,1 -o {open}/y.snn --dump-ir {read}/ir": "ir: cannot",
    "compile {read}/net.onnx --input-range 0,1 -o {open}/y.snn --dump-ir {shut}/ir": "ir: cannot",
    "run {read}/net.snn --input {read}/x.npz -o {shut}/out.npz": "cannot be written (Permission",
    "export {read}/net.snn --to lava -o {read}/lava": "read' cannot be written",
    "export {read}/net.snn --to lava -o {shut}/lava": "shut' cannot be written",
}


def _filled(line, place):
    return line.format(**{n: place / n for n in ("read", "shut", "open")}).split()


def test_what_may_not_be_read_or_written_is_said_to_be(place):
    found = as_nobody([_filled(line, place) for line in REFUSED], place)
    for (line, words), (code, out, err) in zip(REFUSED.items(), found, strict=True):
        assert (code, out) == (6, ""), (line, err)
        assert words in err, line
    assert (place / "open" / "owned.snn").read_bytes() == b"root's"
    assert {entry.name for entry in (place / "open").iterdir()} == {
        *("owned.snn", "link.snn", ".held.snn.lock"),
    }


@pytest.mark.slow
@pytest.mark.parametrize("cache", ["shut", "read", "open", "absent/below", "shut/below"])
def test_a_foreign_cache_keeps_nobody_from_work(cache, place):
    (place / "read" / ("0" * 64)).mkdir(exist_ok=True)
    before = sorted(str(entry) for entry in (place / "shut").rglob("*"))
    lines = [["verify", place / "read" / "net.snn"], ["doctor"]]
    verify, doctor = as_nobody(lines, place, SNNCC_CACHE=str(place / cache))
    assert verify[0] == doctor[0] == 0, verify[2]
    if cache != "absent/below":
        assert "not used: " in doctor[1]
    assert sorted(str(entry) for entry in (place / "shut").rglob("*")) == before
    assert list((place / "temporary").glob("snncc-*")) == []


@pytest.mark.slow
def test_without_rights_to_home_or_temporary_folder_the_work_is_done(place):
    home = {"HOME": "/nowhere", "TMPDIR": str(place / "open")}
    (done,) = as_nobody([["verify", place / "read" / "net.snn"]], place, **home)
    assert done[0] == 0, done[2]
