"""Golden texts, and the two sizes of a test run.

``assert text == golden`` compares with ``tests/golden/<test file>/<test name>.txt``; run pytest
with ``--update-golden`` to write what the code says now, and read the diff.
"""

from __future__ import annotations

import os
import re
import sys
from collections import Counter
from pathlib import Path

import economy
import lava_runs
import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).parent

settings.register_profile(
    "snncc",
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("snncc")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite the golden texts")


def pytest_configure(config: pytest.Config) -> None:
    """Workers are told of each other before they start."""
    if workers := getattr(config.option, "numprocesses", None):
        economy.share_processors(workers)


def pytest_collection_finish() -> None:
    """Where all modules are imported and no test has run."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        economy.limit_onnx_runtime()
    if "torch" in sys.modules:
        economy.read_torchlib_once()
    economy.collect_rarely()


class Golden(str):
    """A text on disk; comparing with it fails with a diff, or rewrites it."""

    path: Path
    update: bool

    def __eq__(self, actual: object) -> bool:
        __tracebackhide__ = True
        if self.update:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text(str(actual), encoding="utf-8")
            return True
        if not self.path.exists():
            where = self.path.relative_to(ROOT.parent)
            pytest.fail(f"{where} is missing; run pytest --update-golden and read what it writes")
        return str(actual) == str(self)

    def __ne__(self, actual: object) -> bool:
        return not self == actual

    __hash__ = str.__hash__


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Golden:
    """The text that this test is to produce."""
    name = re.sub(r"[^\w.]+", "-", request.node.name).strip("-")
    path = ROOT / "golden" / request.path.stem / f"{name}.txt"
    text = Golden(path.read_text(encoding="utf-8") if path.exists() else "")
    text.path, text.update = path, bool(request.config.getoption("--update-golden"))
    return text


@pytest.fixture(params=["N", 1, 8])
def batch(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str | int:
    """The batch axis of quantised files, free or fixed."""
    monkeypatch.setattr("quantised_networks.BATCH", request.param)
    axis: str | int = request.param
    return axis


@pytest.fixture(scope="session")
def lava_python() -> str:
    """A Python with Lava, found before any test changes the environment."""
    return lava_runs.lava_python()


_COMPARED = pytest.StashKey[Counter[str]]()


@pytest.fixture(scope="session")
def compared(request: pytest.FixtureRequest) -> Counter[str]:
    """How many random networks were compared to the end, by kind; printed when all is done."""
    return request.config.stash.setdefault(_COMPARED, Counter())


_TALLY = pytest.StashKey[Counter[str]]()


@pytest.fixture(scope="session")
def tally(request: pytest.FixtureRequest) -> Counter[str]:
    """Anything else that is counted over random networks, as spikes; printed when all is done."""
    return request.config.stash.setdefault(_TALLY, Counter())


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print what ``compared`` and ``tally`` counted."""
    for kind, count in config.stash.get(_COMPARED, Counter()).items():
        terminalreporter.write_line(f"compared to the end: {count:,} random networks {kind}")
    for kind, count in config.stash.get(_TALLY, Counter()).items():
        terminalreporter.write_line(f"of random networks: {count:,} {kind}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """``slow`` runs only where ``-m`` asks for it."""
    if config.option.markexpr:
        return
    chosen = [item for item in items if item.get_closest_marker("slow") is None]
    config.hook.pytest_deselected(items=[i for i in items if i not in chosen])
    items[:] = chosen
