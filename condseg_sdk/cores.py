"""The number of processor cores that this process may use, given its affinity and the CPU quota of its container.

`os.cpu_count()` counts the cores of the host. A container with a quota of two cores on a host of 64 would start 64
threads, which the system pauses for most of every 100 ms.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

__all__ = ["available_cores", "limited_cores"]

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def available_cores() -> int:
    """Return the number of cores that this process can keep busy, at least 1.

    Example:
        >>> 1 <= available_cores() <= os.cpu_count()
        True
    """
    if hasattr(os, "process_cpu_count"):  # Python 3.13; it honors PYTHON_CPU_COUNT, too
        cores = os.process_cpu_count()
    elif hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count()
    return max(1, math.ceil(min(cores or 1, _quota())))


def limited_cores() -> int | None:
    """Return `available_cores()` if that is less than the machine has, otherwise None.

    None leaves the number of threads to a library, which counts the physical cores of the machine.
    """
    cores = available_cores()
    return cores if cores < (os.cpu_count() or 1) else None


def _quota() -> float:
    """Return the smallest CPU quota of this process's control groups in cores; infinity if there is none."""
    try:
        lines = MEMBERSHIP.read_bytes().decode(errors="surrogateescape").splitlines()  # names may be any bytes
    except OSError:  # not Linux
        return math.inf
    limits = [math.inf]
    for line in lines:
        number, controllers, group = line.split(":", 2)
        if number == "0":
            limits += [_limit_v2(folder) for folder in _folders(CGROUPS, group)]
        elif "cpu" in controllers.split(","):
            for mount in (CGROUPS / controllers, CGROUPS / "cpu"):
                limits += [_limit_v1(folder) for folder in _folders(mount, group)]
    return min(limits)


def _folders(mount: Path, group: str) -> list[Path]:
    """Return a group's folder and the folders above it, whose limits also apply.

    In a container the mount is the folder of the group.
    """
    folder = mount / group.strip("/")
    return [folder, *(above for above in folder.parents if above.is_relative_to(mount))]


def _limit_v2(folder: Path) -> float:
    return _ratio(*_read(folder / "cpu.max").split()[:2])


def _limit_v1(folder: Path) -> float:
    return _ratio(_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us"))


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


def _ratio(quota: str = "", period: str = "") -> float:
    """Divide a quota by its period, both in microseconds; "max", "-1" and a missing file mean no limit."""
    if not (quota.isdigit() and period.isdigit() and int(quota) and int(period)):
        return math.inf
    return int(quota) / int(period)
