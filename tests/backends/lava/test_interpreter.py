"""Which Python is taken for Lava: candidates are executed, and what is missing is said."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from snncc.backends.lava import interpreter
from snncc.backends.lava.interpreter import environment_folder, find_python, python_310
from snncc.errors import MissingDependencyError

ANSWERS = {
    "lava": "echo 3.10; echo ok",
    "bare": "echo 3.10; echo it has no lava-nc",
    "broken": "echo 3.10; echo 'Lava does not import there: ImportError no scipy'",
    "newer": "echo 3.12; echo it has no lava-nc",
    "wrapper": "echo 'pyenv: python3.10: command not found' >&2; exit 127",
    "silent": "exit 0",
}


def fake(path: Path, answer: str) -> Path:
    """Something that is executed like a Python."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{ANSWERS[answer]}\n")
    path.chmod(0o755)
    return path


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch):
    """A machine without any Python but the one of this process, which has no Lava."""
    for name in ("SNNCC_LAVA_PYTHON", "PYENV_ROOT", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("SNNCC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "executable", str(fake(tmp_path / "this", "newer")))
    interpreter.probe.cache_clear()
    yield tmp_path
    interpreter.probe.cache_clear()


@pytest.fixture
def on_path(machine, monkeypatch):
    """Puts python3.10 on the path, in folders of that order."""

    def put(*answers: str) -> list[Path]:
        made = [
            fake(machine / f"bin{i}" / "python3.10", answer) for i, answer in enumerate(answers)
        ]
        monkeypatch.setenv("PATH", ":".join(str(path.parent) for path in made))
        return made

    return put


def message(*given: str) -> str:
    with pytest.raises(MissingDependencyError) as caught:
        find_python(*given)
    assert caught.value.exit_code == 7
    return caught.value.message


def test_without_any_python_it_is_said_how_to_get_one():
    text = message()
    assert text.startswith("engine 'lava' needs lava-nc 0.10.0, which needs Python 3.10, and none")
    assert "uv python install 3.10" in text
    assert text.endswith("then type: snncc doctor --install-lava")


def test_a_wrapper_that_exits_127_is_no_python(on_path):
    on_path("wrapper", "silent")
    assert python_310() == ""
    assert "none was found that runs" in message()


def test_behind_a_wrapper_there_may_be_a_python(on_path):
    _, real = on_path("wrapper", "bare")
    assert python_310() == str(real)
    assert message().endswith("there is one, so type: snncc doctor --install-lava")


@pytest.mark.parametrize(
    "place",
    [
        ".pyenv/versions/3.10.13/bin/python3.10",
        ".local/share/uv/python/cpython-3.10.19-linux-x86_64-gnu/bin/python3.10",
        "miniforge3/envs/lava/bin/python3.10",
    ],
)
def test_version_managers_are_looked_at_behind_their_wrappers(machine, on_path, place):
    on_path("wrapper")
    real = fake(machine / place, "lava")
    assert find_python() == python_310() == str(real)


def test_the_order_is_given_variable_this_environment_path(machine, on_path, monkeypatch):
    (path,) = on_path("lava")
    assert find_python() == str(path)
    made = fake(environment_folder() / "bin" / "python", "lava")
    assert find_python() == str(made)
    this = fake(machine / "python-with-lava", "lava")
    monkeypatch.setattr(sys, "executable", str(this))
    assert find_python() == str(this)
    variable = fake(machine / "variable", "lava")
    monkeypatch.setenv("SNNCC_LAVA_PYTHON", str(variable))
    assert find_python() == str(variable)
    given = fake(machine / "given", "lava")
    assert find_python(str(given)) == find_python(given) == str(given)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("wrapper", "it does not run as Python (exit code 127); name a Python 3.10 with lava-nc"),
        ("silent", "it does not run as Python (exit code 0); name a Python 3.10 with lava-nc"),
        ("newer", "it has no lava-nc; name a Python 3.10 with lava-nc 0.10.0"),
        ("bare", "it has no lava-nc; install it there: "),
        ("broken", "Lava does not import there: ImportError no scipy; install it there: "),
    ],
)
def test_what_is_given_is_taken_or_refused_never_replaced(
    machine, on_path, monkeypatch, answer, why
):
    on_path("lava")
    given = fake(machine / "given", answer)
    text = message(str(given))
    assert text.startswith(f"lava_python={str(given)!r}: {why}")
    if "install" in why:
        assert text.endswith(f"{given} -m pip install lava-nc==0.10.0")
    monkeypatch.setenv("SNNCC_LAVA_PYTHON", str(given))
    assert message().startswith(f"$SNNCC_LAVA_PYTHON {given}: {why}")


def test_a_given_path_that_is_not_there():
    assert "it does not run (No such file or directory)" in message("/nowhere/python")


def test_packages_of_this_python_are_not_those_of_another(machine, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/packages")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    other = interpreter.environment("/usr/bin/python3.10")
    assert "PYTHONPATH" not in other
    assert (other["OMP_NUM_THREADS"], other["OPENBLAS_NUM_THREADS"]) == ("3", "1")
    assert interpreter.environment(sys.executable)["PYTHONPATH"] == "/packages"


def test_what_is_installed_is_pinned_and_of_the_version_that_is_asked_for():
    folder = Path(interpreter.__file__).parent
    lines = (folder / "requirements.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert pins["lava-nc"] == interpreter.LAVA_VERSION
    assert pins["numpy"].startswith("1.")
    project = (folder.parents[2] / "pyproject.toml").read_text()
    assert f"lava-nc=={interpreter.LAVA_VERSION}; python_version < '3.11'" in project
