"""The cgroups of this process, which limit it on Linux."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

CGROUPS: Final = Path("/sys/fs/cgroup")
"""The mount point of cgroups."""

_MEMBERSHIP: Final = Path("/proc/self/cgroup")


def own_membership() -> str:
    """The text that names the cgroups of this process; empty on systems without any."""
    return _MEMBERSHIP.read_text() if _MEMBERSHIP.exists() else ""


def cgroup_folders(membership: str, root: Path, controller: str) -> Iterator[Path]:
    """The folders of the process's cgroup and of its parent cgroups, whose limits apply too, for cgroups v1 and v2.

    Args:
        membership: the text of /proc/self/cgroup.
        root: the folder where cgroups are mounted.
        controller: "cpu" or "memory".
    """
    for line in membership.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        mount = root / controller if controllers else root
        # In a container, `path` may be the host's path, which does not exist there: then only the mount point can be
        # read.
        group = mount / path.strip("/")
        yield from (folder for folder in (group, *group.parents) if folder.is_relative_to(mount))
