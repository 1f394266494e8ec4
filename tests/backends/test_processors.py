"""How many processors a process may keep busy: by affinity and by fake files of control groups."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import small_model

from snncc.backends.event.engine import EventEngine
from snncc.backends.processors import processors
from snncc.errors import UsageError

V1 = "31 23 0:28 {root} {mount}/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct"
MEMORY = "34 31 0:31 / {mount}/memory rw,relatime - cgroup cgroup rw,memory"
V2 = "41 31 0:38 {root} {mount}/unified rw,relatime shared:4 - cgroup2 cgroup2 rw"
OTHER = "23 1 254:0 / / rw,relatime - ext4 /dev/root rw"


@pytest.fixture(autouse=True)
def machine(monkeypatch) -> None:
    """16 processors, all of which the process may run on."""
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)


def system(
    folder: Path,
    mounts: list[str],
    groups: list[str],
    limits: dict[str, dict[str, str]],
    root: str = "/",
) -> Path:
    """A folder as /proc/self, and control groups beside it, ``limits``: folder -> file -> text."""
    proc, mount = folder / "proc", folder / "cgroup"
    proc.mkdir()
    lines = [line.format(root=root, mount=mount) for line in (OTHER, *mounts)]
    (proc / "mountinfo").write_text("\n".join(lines) + "\n")
    (proc / "cgroup").write_text("\n".join(groups) + "\n")
    for name, files in limits.items():
        (mount / name).mkdir(parents=True, exist_ok=True)
        for file, text in files.items():
            (mount / name / file).write_text(text + "\n")
    return proc


def v1(quota: int, period: int = 100_000) -> dict[str, str]:
    return {"cpu.cfs_quota_us": str(quota), "cpu.cfs_period_us": str(period)}


def test_without_control_groups_it_is_what_there_is(tmp_path) -> None:
    assert processors(tmp_path / "no such folder") == 16


def test_affinity_counts(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5, 9}, raising=False)
    assert processors(tmp_path) == 3
    monkeypatch.setattr(os, "cpu_count", lambda: 2)  # as $PYTHON_CPU_COUNT says
    assert processors(tmp_path) == 2
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert processors(tmp_path) == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("400000 100000", 4),
        ("250000 100000", 2),  # a third thread would stop all of them
        ("50000 100000", 1),
        ("150000 50000", 3),
        ("max 100000", 16),
        ("9900000 100000", 16),
        ("", 16),
        ("nonsense", 16),
        ("100000 0", 16),
    ],
)
def test_quota_of_version_2(text, expected, tmp_path) -> None:
    limits = {"unified/user/job": {"cpu.max": text}}
    assert processors(system(tmp_path, [V2], ["0::/user/job"], limits)) == expected


def test_groups_above_count_too(tmp_path) -> None:
    limits = {
        "unified": {},
        "unified/pod": {"cpu.max": "300000 100000"},
        "unified/pod/box": {"cpu.max": "max 100000"},
        "unified/pod/box/job": {"cpu.max": "800000 100000"},
        "unified/other": {"cpu.max": "100000 100000"},
    }
    assert processors(system(tmp_path, [V2], ["0::/pod/box/job"], limits)) == 3


@pytest.mark.parametrize(("quota", "expected"), [(-1, 16), (500_000, 5), (10_000, 1)])
def test_quota_of_version_1(quota, expected, tmp_path) -> None:
    groups = ["5:memory:/elsewhere", "3:cpu,cpuacct:/docker/abc", "0::/"]
    limits = {"cpu/docker/abc": v1(quota), "cpu": v1(-1), "memory/elsewhere": v1(100_000)}
    assert processors(system(tmp_path, [MEMORY, V1, V2], groups, limits)) == expected


@pytest.mark.parametrize(("mount", "where"), [(V1, "cpu"), (V2, "unified")])
def test_a_container_sees_its_group_as_the_mount_point(mount, where, tmp_path) -> None:
    """The path is that of the host, of which only this part is mounted."""
    groups = ["3:cpu,cpuacct:/docker/abc", "0::/docker/abc"]
    limits = {where: {**v1(200_000), "cpu.max": "200000 100000"}}
    assert processors(system(tmp_path, [mount], groups, limits, root="/docker/abc")) == 2


def test_a_group_that_is_not_mounted_has_at_least_the_limits_of_the_mount_point(tmp_path) -> None:
    limits = {"unified": {"cpu.max": "200000 100000"}}
    proc = system(tmp_path, [V2], ["0::/elsewhere"], limits, root="/docker/abc")
    assert processors(proc) == 2


def test_both_versions_count(tmp_path) -> None:
    groups = ["3:cpu:/a", "0::/b"]
    limits = {"cpu/a": v1(600_000), "unified/b": {"cpu.max": "500000 100000"}}
    assert processors(system(tmp_path, [V1, V2], groups, limits)) == 5


def test_folders_with_blanks_in_their_names(tmp_path) -> None:
    folder = tmp_path / "a b"
    folder.mkdir()
    proc = system(folder, [V2], ["0::/"], {"unified": {"cpu.max": "300000 100000"}})
    text = (proc / "mountinfo").read_text().replace("a b", "a\\040b")
    (proc / "mountinfo").write_text(text)
    assert processors(proc) == 3


def test_auto_is_that_many_threads(monkeypatch) -> None:
    monkeypatch.setattr("snncc.backends.event.engine.processors", lambda: 3)
    assert EventEngine(small_model.program(), "auto").threads == 3
    assert EventEngine(small_model.program(), 5).threads == 5
    for wrong in ("many", "2", 1025, 1.5):
        with pytest.raises(UsageError, match=rf"{wrong} threads, not 1..1024 or auto"):
            EventEngine(small_model.program(), wrong)
