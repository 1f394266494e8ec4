"""The golden fixture: what a test prints is compared with a file that people have read."""

import re
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parent / "golden"


def pytest_addoption(parser):
    parser.addoption("--update-golden", action="store_true", help="rewrite tests/golden")


class _Golden(str):
    """Equal to what the file holds; under --update-golden the file becomes equal."""

    __slots__ = ("path", "update")
    __hash__ = str.__hash__

    def __new__(cls, path, update):
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        found = super().__new__(cls, text)
        found.path, found.update = path, update
        return found

    def __eq__(self, other):
        __tracebackhide__ = True
        if self.update:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text(other, encoding="utf-8")
            return True
        if not self.path.exists():
            pytest.fail(f"no {self.path.relative_to(GOLDEN.parent)}: run pytest --update-golden")
        return str.__eq__(self, other)

    def __ne__(self, other):
        return not self == other


@pytest.fixture
def golden(request):
    """The text in tests/golden/<test file>/<test>.txt."""
    name = re.sub(r"[^\w.]+", "-", request.node.name).strip("-")
    path = GOLDEN / request.path.stem / f"{name}.txt"
    return _Golden(path, request.config.getoption("--update-golden"))
