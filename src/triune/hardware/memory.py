"""The memory that this process may use, within the limits of cgroups."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

import psutil

from triune.hardware.cgroups import CGROUPS, cgroup_folders, own_membership


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory in bytes.

    Attributes:
        total: the memory of the machine, or of the container if its limit is lower.
        available: the memory that can be allocated without swapping and without exceeding a limit.
    """

    total: int
    available: int


def usable_memory() -> Memory:
    """The memory of this process at this moment. Takes a fraction of a millisecond."""
    machine = psutil.virtual_memory()
    return within_cgroups(Memory(machine.total, machine.available), own_membership(), CGROUPS)


def most_model_bytes() -> int:
    """The memory that all models may take if no limit is given: nine tenths of `usable_memory`. The other memory is for
    the server and for requests.
    """
    return usable_memory().total // 10 * 9


def private_bytes(pid: int | None = None) -> int:
    """The private memory of a process, in bytes; 0 if it has ended. Shared memory, such as mapped files, does not
    count. The call takes a fraction of a millisecond.

    Args:
        pid: the process; None means this process.
    """
    # Return 0 if psutil raises an error, since the process has ended, which may happen at any time.
    with contextlib.suppress(psutil.Error):
        memory = psutil.Process(pid).memory_info()
        # On systems that do not report shared memory, it is counted too.
        return memory.rss - getattr(memory, "shared", 0)
    return 0


def within_cgroups(machine: Memory, membership: str, root: Path) -> Memory:
    """Apply the limits of cgroups to the machine's memory.

    Args:
        machine: the machine's memory.
        membership: the text of /proc/self/cgroup.
        root: the folder where cgroups are mounted.
    """
    total, available = machine.total, machine.available
    for folder in cgroup_folders(membership, root, "memory"):
        limit = _number(folder, "memory.max", "memory.limit_in_bytes")
        if limit is None:
            continue
        total = min(total, limit)
        used = _number(folder, "memory.current", "memory.usage_in_bytes") or 0
        available = min(available, max(0, limit - used + _reclaimable(folder)))
    return Memory(total, available)


def _number(folder: Path, version_2: str, version_1: str) -> int | None:
    for name in (version_2, version_1):
        if (folder / name).is_file():
            text = (folder / name).read_text().strip()
            return None if text == "max" else int(text)
    return None


def _reclaimable(folder: Path) -> int:
    """The bytes of cached files in a cgroup, which count as used although the system frees them when memory is
    needed.
    """
    path = folder / "memory.stat"
    lines = path.read_text().splitlines() if path.is_file() else []
    values = dict(line.split(maxsplit=1) for line in lines if " " in line)
    # Prefer the "total" field: in cgroups version 1, only the "total" fields include the child cgroups.
    return int(values.get("total_inactive_file", values.get("inactive_file", 0)))
