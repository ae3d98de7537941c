"""The cores that two sides may share: whole ones, and no more than this process is allowed to use."""

from __future__ import annotations

import contextlib
import math
import os
import sys
from collections.abc import Collection
from pathlib import Path

CPUS = Path("/sys/devices/system/cpu")
CGROUP = Path("/sys/fs/cgroup")


def usable_cores(cpus: Path = CPUS, cgroup: Path = CGROUP) -> list[int]:
    """One logical processor of each physical core that this process may use, at most as many as its CPU quota allows.

    Two sides on the hyper-threads of one core would slow each other down, and a container that has used up its quota
    stops for the rest of each period. Empty where the system does not say (only Linux does).
    """
    if sys.platform != "linux":
        return []
    cores = one_of_each_core(sorted(os.sched_getaffinity(0)), cpus)
    quota = cpu_quota(cgroup)
    return cores if quota is None else cores[: max(1, math.floor(quota))]


def one_of_each_core(processors: Collection[int], cpus: Path = CPUS) -> list[int]:
    """The first of the logical processors that share a core; all of them where the system does not list siblings."""
    first_of: dict[str, int] = {}
    for number in processors:
        siblings = str(number)
        with contextlib.suppress(OSError):
            siblings = (cpus / f"cpu{number}" / "topology" / "thread_siblings_list").read_text().strip()
        first_of.setdefault(siblings, number)
    return list(first_of.values())


def cpu_quota(cgroup: Path = CGROUP) -> float | None:
    """How many processors' time this container may use; ``None`` without a limit.

    From ``cpu.max`` (cgroup v2) or ``cpu.cfs_quota_us`` (v1), as a container sees them; see the kernel's
    admin-guide/cgroup-v2 and scheduler/sched-bwc.
    """
    with contextlib.suppress(OSError, ValueError):
        quota, period = (cgroup / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
        quota_us = int((cgroup / "cpu" / "cpu.cfs_quota_us").read_text())
        period_us = int((cgroup / "cpu" / "cpu.cfs_period_us").read_text())
        return None if quota_us < 0 else quota_us / period_us
    return None
