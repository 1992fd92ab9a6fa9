"""Cores are counted as the system gives them: affinity and CPU quota, not the host's number."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from condseg_sdk import cores


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of 16 cores without control groups; each test writes those that it is about."""
    monkeypatch.setattr(cores, "CGROUPS", tmp_path)
    monkeypatch.setattr(cores, "MEMBERSHIP", tmp_path / "membership")
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    if hasattr(os, "process_cpu_count"):
        monkeypatch.setattr(os, "process_cpu_count", lambda: 16)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {*range(16)}, raising=False)


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def test_without_a_limit_all_cores_count_and_libraries_choose(tmp_path: Path) -> None:
    assert (cores.available_cores(), cores.limited_cores()) == (16, None)
    write(tmp_path, membership="0::/\n", cpu__max="max 100000\n")
    assert cores.limited_cores() is None


def test_affinity_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "process_cpu_count", lambda: 3, raising=False)
    assert cores.limited_cores() == 3


@pytest.mark.parametrize(("limit", "expected"), [("200000 100000", 2), ("150000 100000", 2), ("20000 100000", 1)])
def test_the_quota_of_a_container_counts(tmp_path: Path, limit: str, expected: int) -> None:
    write(tmp_path, membership="0::/\n", cpu__max=limit + "\n")
    assert cores.limited_cores() == expected


def test_the_limit_of_a_group_above_holds_too(tmp_path: Path) -> None:
    write(tmp_path, membership="0::/system.slice/app.service\n")
    write(tmp_path / "system.slice", cpu__max="300000 100000")
    write(tmp_path / "system.slice" / "app.service", cpu__max="800000 100000")
    assert cores.limited_cores() == 3


@pytest.mark.parametrize("mount", ["cpu,cpuacct", "cpu"])
def test_older_control_groups_count(tmp_path: Path, mount: str) -> None:
    write(tmp_path, membership="3:cpuset:/\n2:cpu,cpuacct:/docker/1\n0::/\n")
    write(tmp_path / mount, cpu__cfs_quota_us="400000\n", cpu__cfs_period_us="100000\n")
    assert cores.limited_cores() == 4
    write(tmp_path / mount, cpu__cfs_quota_us="-1\n")
    assert cores.limited_cores() is None


def test_a_group_whose_name_is_not_utf_8_counts(tmp_path: Path) -> None:
    (tmp_path / "membership").write_bytes(b"0::/caf\xe9\n")
    write(Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")), cpu__max="300000 100000\n")
    assert cores.available_cores() == 3
    (tmp_path / "cpu.max").write_bytes(b"\xff\n")
    assert cores.available_cores() == 3
