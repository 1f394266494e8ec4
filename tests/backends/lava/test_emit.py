"""Emitted directories do on Lava what the clocked engine does, tick for tick."""

from __future__ import annotations

import json
import os
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_model
from attention_networks import attention_cases, one_attention
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from lava_runs import differences, emitted, expected, python, results, run, simpler
from networks import cases, half_even_levels
from test_irregular import KINDS, folder

from snncc.backends.lava.emitted import files
from snncc.backends.lava.limits import unsupported
from snncc.program import Accumulator, Neuron, Pool, Program, Projection, Readout, Source
from snncc.program.bounds import bounded, emitted_payload

HERE = Path(__file__).parent


def stream(T: int = 1) -> tuple[Program, np.ndarray]:
    """A residual stream of two blocks, the second with memory, and a film or images for it."""
    rng = np.random.default_rng(3)

    def conv(source: str, payload: int, out: int, into: int, shift: int = 0) -> Projection:
        w = rng.integers(-127, 128, (out, into, 3, 3)).astype(np.int8)
        return Projection(source, "conv", (w,), payload, pads=(1, 1, 1, 1), shift=shift)

    def fires(name: str, source: str, depth: int, theta: int, **more: Any) -> Neuron:
        levels = half_even_levels(theta + 2 * np.arange(4), 3)
        if more:
            more = {"decay": (1, 1), "fraction": 2, "threshold": np.full(4, 4 * theta), **more}
            levels = levels << 2
        return Neuron(name, (4, 5, 6), source, levels, depth, **more)

    held: dict[str, Accumulator] = {}

    def sums(name: str, *projections: Projection) -> Accumulator:
        node = Accumulator(name, (4, 5, 6), projections, rng.integers(-3000, 3000, 4), 0, 0)
        reads = {
            p.source: held.get(p.source, Source(p.source, (1,), p.payload)) for p in projections
        }
        held[name] = bounded(node, reads)
        return held[name]

    def whole(node: Accumulator) -> Projection:
        return Projection(node.name, "identity", (), emitted_payload(node))

    v1 = sums("v1", conv("x", 255, 4, 2))
    v2 = sums("v2", whole(v1), conv("n2", 3, 4, 4, shift=5))
    nodes = (
        Source("x", (2, 5, 6), 255),
        v1,
        fires("n1", "v1", 0, 9001),
        sums("w1", conv("n1", 3, 4, 4)),
        fires("n2", "w1", 1, 301),
        v2,
        fires("n3", "v2", 2, 9001, carry="soft"),
        sums("v3", whole(v2), conv("n3", 3, 4, 4), conv("n1", 3, 4, 4)),
        fires("n4", "v3", 3, 8001, carry="hard"),
        Pool("p", (4, 2, 3), "n4", "max", (2, 2), (2, 2), (0, 0, 0, 0), 3),
        Pool("s", (4, 1, 2), "p", "sum", (2, 2), (1, 1), (0, 0, 0, 0), 12),
        Readout("spikes", (4, 1, 2), "s", 1.0),
        Readout("potential", (4, 5, 6), "v3", 1.0),
    )
    program = Program("stream", nodes, timesteps=T, ticks=3)
    program.validate()
    lead = (5,) if T == 1 else (T, 5)
    return program, rng.integers(0, 256, (*lead, 2, 5, 6)).astype(np.uint8)


@pytest.mark.parametrize("executor", ["direct", "lava"])
def test_stock_processes_are_exact(tmp_path: Path, executor: str) -> None:
    program, x = small_model.program(), small_model.samples(8)
    directory = emitted(program, x, tmp_path / "net")
    found = run(directory, "--executor", executor, "--stock")
    assert differences(expected(program, x), found) == []
    report = json.loads(str(found["report"]))
    assert report.items() >= {"executor": executor, "samples": 8, "processes": 11}.items()


@pytest.mark.parametrize("executor", ["direct", "lava"])
@pytest.mark.parametrize("T", [1, 3])
def test_a_residual_stream_is_exact(tmp_path: Path, executor: str, T: int) -> None:
    program, x = stream(T)
    wanted = expected(program, x)
    assert all((wanted[f"counts/n{i}"] == k).any() for i in (1, 2, 3, 4) for k in range(4))
    directory = emitted(program, x, tmp_path / "net")
    kinds = Counter(
        e["process"] for e in json.loads((directory / "graph.json").read_text())["processes"]
    )
    assert kinds["Relay"] == 3
    assert kinds["Accumulate"] == 3
    assert differences(wanted, run(directory, "--executor", executor)) == []


@pytest.mark.parametrize("draws", [60, pytest.param(400, marks=pytest.mark.slow)])
def test_random_programs_are_exact_on_the_direct_executor(
    tmp_path: Path, compared: Counter[str], draws: int
) -> None:
    drawn: list[tuple[Program, np.ndarray, Path]] = []

    @settings(max_examples=draws, phases=[Phase.generate])
    @given(case=st.one_of(cases(), cases(), attention_cases()))
    def emit(case: tuple[Program, np.ndarray]) -> None:
        program, x = simpler(case[0]), case[1]
        if not unsupported(program):
            directory = emitted(program, x, tmp_path / f"{len(drawn):03d}")
            drawn.append((program, x, directory))

    emit()
    done = python(HERE / "run_all.py", tmp_path, "direct")
    assert done.returncode == 0, done.stderr
    found = {d.name: differences(expected(p, x), results(d)) for p, x, d in drawn}
    assert {name: keys for name, keys in found.items() if keys} == {}
    assert len(found) > 0.2 * draws
    compared["on Lava's models"] += len(found)


def test_a_value_added_to_itself_is_exact(tmp_path: Path) -> None:
    whole = Projection("x", "identity", (), 3)
    thrice = Accumulator("v", (2,), (whole,) * 3, np.zeros(2, np.int64), -9, 9)
    program = Program("thrice", (Source("x", (2,), 3), thrice, Readout("y", (2,), "v", 1.0)))
    x = np.array([[1, 3]], np.uint8)
    found = run(emitted(program, x, tmp_path / "net"), "--executor", "lava")
    assert found["readout/y"].tolist() == [[[3, 9]]]


@pytest.mark.parametrize("order", ["kv", "qk"])
def test_attention_is_exact_on_lavas_runtime(tmp_path: Path, order: str) -> None:
    program, x = one_attention(order)
    directory = emitted(program, x, tmp_path / "net")
    wanted = expected(program, x)
    assert len(np.unique(wanted["counts/fire"])) == 5
    assert differences(wanted, run(directory, "--executor", "lava")) == []


def test_readouts_alone_are_the_same(tmp_path: Path) -> None:
    program, x = stream()
    directory = emitted(program, x, tmp_path / "net")
    found = run(directory, "--readouts-only")
    wanted = expected(program, x)
    assert set(found) == {"report", "readout/spikes", "readout/potential"}
    assert differences({k: v for k, v in wanted.items() if k in found}, found) == []


def test_the_readme_tells_the_numbers_of_each_process(tmp_path: Path) -> None:
    """As they stood before kinds told them."""
    shown = ""
    for name, (program, x) in {"stream": stream(3), "attention": one_attention()}.items():
        shown += (emitted(program, x, tmp_path / name) / "README.md").read_text()
    for row in (
        "| `n2 -> v2` | Conv |  | `n2` | 6 x 5 x 4 | 3x3, stride 1, times 32 | ",
        "| `n1` | IFSoftReset |  | `v1` | 6 x 5 x 4 | D = 3, first level 4501 to 4504 | ",
        "| D = 3, first level 16004 to 16016, hard reset, decay 1/2 | ",
        "| `p` | MaxPool |  | `n4` | 3 x 2 x 4 |  |  |",
        "| `s` | Conv |  | `p` | 2 x 1 x 4 | 2x2, stride 1, 4 groups | ",
        " ticks later | ",
        "| 2 heads, kv first | ",
    ):
        assert row in shown, row


# -- what goes wrong -----------------------------------------------------------------------


def spoiled(directory: Path) -> Path:
    """A bias that somebody edited, and that 24 bits do not hold."""
    with np.load(directory / "tensors.npz") as tensors:
        kept = dict(tensors)
    kept["conv2:v.bias"] = kept["conv2:v.bias"] + 2**23
    np.savez(directory / "tensors.npz", **kept)
    return directory


@pytest.mark.parametrize("executor", ["direct", "lava"])
def test_an_overflow_names_the_population_and_ends(tmp_path: Path, executor: str) -> None:
    directory = spoiled(emitted(small_model.program(), small_model.samples(3), tmp_path / "net"))
    done = _called(directory, "--executor", executor, timeout=60)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: fire2: a state of 8,3")
    assert last.endswith("does not fit 24 bits")
    assert not (directory / "y.npz").exists()


@pytest.mark.parametrize("model", ["PyFrameSource", "PyMaxPool", "PyReadOut"])
def test_a_model_that_raises_ends_the_run_with_its_words(tmp_path: Path, model: str) -> None:
    directory = emitted(small_model.program(), small_model.samples(3), tmp_path / "net")
    (file,) = (p for p in directory.glob("processes/*.py") if f"class {model}(" in p.read_text())
    head, body = file.read_text().split(f"class {model}(")
    start = '"""One tick."""\n'
    raises = "        if self.time_step == 6:\n            raise KeyError('no such thing')\n"
    file.write_text(f"{head}class {model}({body.replace(start, start + raises, 1)}")
    done = _called(directory, "--executor", "lava", timeout=60)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "error: KeyError: 'no such thing'"


@pytest.mark.parametrize(
    ("x", "said"),
    [
        (np.zeros((2, 1, 6, 5), np.uint8), "samples of shape (2, 1, 6, 5), not (N, 1, 6, 6)"),
        (np.zeros((2, 2, 1, 6, 6), np.uint8), "or (1, N, 1, 6, 6)"),
        (np.zeros((2, 1, 6, 6), np.float32), "samples are float32, not integers"),
        (np.full((2, 1, 6, 6), 256, np.int16), "samples are 256..256, not in 0..255"),
    ],
)
def test_wrong_samples_are_refused(tmp_path: Path, x: np.ndarray, said: str) -> None:
    done = _called(emitted(small_model.program(), x, tmp_path / "net"))
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("kind", [*KINDS, folder])
def test_results_replace_regular_files_alone(tmp_path: Path, kind: Callable[[Path], None]) -> None:
    directory = emitted(small_model.program(), small_model.samples(1), tmp_path / "net")
    kind(directory / "y.npz")
    before = os.lstat(directory / "y.npz").st_mode
    done = _called(directory)
    assert (done.returncode, "is no regular file" in done.stderr) == (1, True)
    assert "Traceback" not in done.stderr
    assert os.lstat(directory / "y.npz").st_mode == before


def test_results_are_written_whole_or_not_at_all(tmp_path: Path) -> None:
    directory = emitted(small_model.program(), small_model.samples(1), tmp_path / "net")
    (tmp_path / "far.npz").write_bytes(b"old")
    (directory / "y.npz").symlink_to(tmp_path / "far.npz")
    there = sorted(directory.iterdir())
    with pytest.raises(OSError, match="No space"):
        files.save(directory / "y.npz", {"x": Full()})
    assert (tmp_path / "far.npz").read_bytes() == b"old"
    assert sorted(directory.iterdir()) == there
    assert _called(directory).returncode == 0
    assert (directory / "y.npz").is_symlink()
    with np.load(tmp_path / "far.npz") as found:
        assert "report" in found.files
    assert sorted(p.name for p in tmp_path.iterdir()) == ["far.npz", "net"]


class Full:
    """An array whose writing fails."""

    def __array__(self, *_: object, **__: object) -> np.ndarray:
        raise OSError(28, "No space left on device")


def test_groups_beyond_lavas_own_model_are_refused_by_name(tmp_path: Path) -> None:
    w = np.ones((130, 1, 1, 1), np.int8)
    conv = Projection("x", "conv", (w,), 3, groups=130)
    bias = np.zeros(130, np.int64)
    v = Accumulator("v", (130, 2, 2), (conv,), bias, 0, 3)
    nodes = (Source("x", (130, 2, 2), 3), v, Readout("y", (130, 2, 2), "v", 1.0))
    program, x = Program("wide", nodes), np.full((1, 130, 2, 2), 3, np.uint8)
    directory = emitted(program, x, tmp_path / "net")
    assert differences(expected(program, x), run(directory)) == []
    done = _called(directory, "--stock")
    assert done.returncode == 1
    assert "'x -> v' has 130 groups" in done.stderr


def _renamed(directory: Path, process: str, name: str) -> None:
    """The processes of that class are to be of another."""
    text = (directory / "graph.json").read_text()
    assert f'"process": "{process}"' in text
    changed = text.replace(f'"process": "{process}"', f'"process": "{name}"')
    (directory / "graph.json").write_text(changed)


def test_an_unknown_process_is_named(tmp_path: Path) -> None:
    directory = emitted(small_model.program(), small_model.samples(1), tmp_path / "net")
    _renamed(directory, "MaxPool", "MinPool")
    done = _called(directory)
    assert done.returncode == 1
    assert done.stderr == "error: 'pool1': there is no process 'MinPool'\n"


@pytest.mark.parametrize("executor", ["direct", "lava"])
def test_a_new_process_is_one_file(tmp_path: Path, executor: str) -> None:
    program, x = stream()
    directory = emitted(program, x, tmp_path / "net")
    _renamed(directory, "Relay", "Novel")
    folder = directory / "processes"
    like = (folder / "relays.py").read_text().replace("Relay", "Novel").replace("MaxPool", "Other")
    (folder / "novel.py").write_text(like)
    assert differences(expected(program, x), run(directory, "--executor", executor)) == []


def _called(directory: Path, *flags: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    files = ["--input", directory / "x.npy", "--output", directory / "y.npz"]
    return python(directory / "run.py", *files, *flags, timeout=timeout)


def test_a_directory_needs_nothing_of_snncc(tmp_path: Path) -> None:
    directory = emitted(small_model.program(), small_model.samples(1), tmp_path / "net")
    modules = list(directory.rglob("*.py"))
    assert len(modules) > 6
    assert [
        p for p in modules if "import snncc" in p.read_text() or "from snncc" in p.read_text()
    ] == []
