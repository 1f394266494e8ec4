"""How many processors this process may keep busy: what ``threads="auto"`` stands for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

__all__ = ["processors"]


def processors(proc: Path = Path("/proc/self")) -> int:
    """The least of: processors there are, those this process may run on, its control groups' quota.

    A quota is rounded down, but not to 0: with a thread more than it allows, all of them would be
    stopped together until the quota is renewed.

    Args:
        proc: Where the system says what it knows about the process; ``cgroup`` and ``mountinfo``
            are read there, and the files of control groups, version 1 and 2, that they lead to.
    """
    available = [os.cpu_count() or 1, *(max(1, int(quota)) for quota in _quotas(proc))]
    if hasattr(os, "sched_getaffinity"):
        available.append(len(os.sched_getaffinity(0)))
    return min(available)


# -- control groups ------------------------------------------------------------------------


@dataclass(frozen=True)
class _Hierarchy:
    """A tree of control groups that is mounted.

    Attributes:
        version: 1 or 2.
        root: The group whose folder the mount point is.
        folder: The mount point.
    """

    version: int
    root: PurePosixPath
    folder: Path

    def folders(self, group: PurePosixPath) -> list[Path]:
        """Those of the group and of all groups it is in, as far as they are mounted."""
        inside = group.relative_to(self.root) if group.is_relative_to(self.root) else None
        found = self.folder / (inside or "")
        return [found, *(f for f in found.parents if f.is_relative_to(self.folder))]


def _quotas(proc: Path) -> Iterator[float]:
    """Processors that each of this process's groups allows; nothing where there is no limit."""
    groups = _groups(proc / "cgroup")
    for hierarchy in _hierarchies(proc / "mountinfo"):
        if hierarchy.version in groups:
            for folder in hierarchy.folders(groups[hierarchy.version]):
                quota = _QUOTA[hierarchy.version](folder)
                if quota is not None:
                    yield quota


def _groups(path: Path) -> dict[int, PurePosixPath]:
    """The group that limits processor time, by version."""
    found = {}
    for line in _lines(path):
        number, controllers, group = [*line.split(":", 2), "", ""][:3]
        if "cpu" in controllers.split(","):
            found[1] = PurePosixPath(group)
        elif number == "0" and not controllers:
            found[2] = PurePosixPath(group)
    return found


def _hierarchies(path: Path) -> Iterator[_Hierarchy]:
    for line in _lines(path):
        mount, _, system = line.partition(" - ")
        fields, kind = mount.split(), system.split()
        if len(fields) < 5 or len(kind) < 3:
            continue
        root, folder = PurePosixPath(_unescaped(fields[3])), Path(_unescaped(fields[4]))
        if kind[0] == "cgroup2":
            yield _Hierarchy(2, root, folder)
        elif kind[0] == "cgroup" and "cpu" in kind[2].split(","):
            yield _Hierarchy(1, root, folder)


def _unescaped(name: str) -> str:
    """Blanks in names are written as numbers."""
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        name = name.replace(code, character)
    return name


def _quota_of_1(folder: Path) -> float | None:
    quota, period = (
        " ".join(_lines(folder / f"cpu.cfs_{name}_us")) for name in ("quota", "period")
    )
    return _ratio(quota, period)


def _quota_of_2(folder: Path) -> float | None:
    quota, _, period = " ".join(_lines(folder / "cpu.max")).partition(" ")
    return _ratio(quota, period)


_QUOTA = {1: _quota_of_1, 2: _quota_of_2}


def _ratio(quota: str, period: str) -> float | None:
    """Microseconds in each period; none where there is no limit: ``max``, -1 or no such file."""
    if not (quota.strip().isdecimal() and period.strip().isdecimal() and int(period) > 0):
        return None
    return int(quota) / int(period)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8", "replace").splitlines()
    except OSError:  # no control groups here, or none that may be looked at
        return []
