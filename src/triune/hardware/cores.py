"""The number of CPU cores that this process may use, within affinity and cgroup limits."""

import math
import os
from pathlib import Path

from triune.hardware.cgroups import CGROUPS, cgroup_folders, own_membership


def num_usable_cores() -> int:
    """The number of logical cores that this process may use on Linux, at least 1. A cgroup's CPU quota is rounded up to
    an integer.
    """
    quota = cgroup_quota(own_membership(), CGROUPS)
    num_cores = len(os.sched_getaffinity(0))
    return num_cores if quota >= num_cores else max(1, math.ceil(quota))


def cgroup_quota(membership: str, root: Path) -> float:
    """The CPU quota of cgroups, in cores, such as 1.5; infinity without a limit.

    Args:
        membership: the text of /proc/self/cgroup.
        root: the folder where cgroups are mounted.
    """
    return min((_read_quota(folder) for folder in cgroup_folders(membership, root, "cpu")), default=math.inf)


def _read_quota(folder: Path) -> float:
    version_2 = folder / "cpu.max"
    if version_2.is_file():
        quota, period = version_2.read_text().split()
        return math.inf if quota == "max" else int(quota) / int(period)
    version_1 = folder / "cpu.cfs_quota_us"
    if version_1.is_file():
        quota_us = int(version_1.read_text())
        return math.inf if quota_us < 0 else quota_us / int((folder / "cpu.cfs_period_us").read_text())
    return math.inf
