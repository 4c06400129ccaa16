"""The number of CPU cores that this process may use, within affinity and cgroup limits."""

import math
import os
from collections.abc import Iterator
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def num_usable_cores() -> int:
    """The number of logical cores that this process may use on Linux, at least 1. A quota is rounded up to an
    integer.
    """
    membership = Path("/proc/self/cgroup")
    quota = cgroup_quota(membership.read_text() if membership.exists() else "", CGROUPS)
    num_cores = len(os.sched_getaffinity(0))
    return num_cores if quota >= num_cores else max(1, math.ceil(quota))


def cgroup_quota(membership: str, root: Path) -> float:
    """The CPU quota of cgroups, in cores, such as 1.5; infinity without a limit.

    Args:
        membership: the text of /proc/self/cgroup.
        root: where cgroups are mounted.
    """
    return min((_read_quota(folder) for folder in _folders(membership, root)), default=math.inf)


def _folders(membership: str, root: Path) -> Iterator[Path]:
    """The process's cgroup and its ancestors, for cgroups v1 and v2: an ancestor's limit applies, too."""
    for line in membership.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        mount = root / "cpu" if controllers else root
        # In a container the path may be that of the host. Then only the mount itself can be read.
        group = mount / path.strip("/")
        yield from (folder for folder in (group, *group.parents) if folder.is_relative_to(mount))


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
