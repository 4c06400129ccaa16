"""Let the system limit the memory of this process. Only Linux enforces such limits."""

import resource
import sys
from pathlib import Path

_FIRST_TO_GO = 1000
_STATUS = Path("/proc/self/status")


def restrict_memory(max_bytes: int) -> None:
    """Limit this process's memory, and make it the first that the system kills when memory runs out.

    Raises:
        OSError: the system does not allow it.
    """
    if sys.platform != "linux":
        return
    _limit_data(max_bytes)
    Path("/proc/self/oom_score_adj").write_text(f"{_FIRST_TO_GO}")


def restrict_growth(max_bytes: int) -> None:
    """Limit this process's memory to its present size plus `max_bytes`.

    Raises:
        OSError: the system does not allow it.
    """
    if sys.platform == "linux":
        _limit_data(max_bytes + _data_bytes())


def _limit_data(max_bytes: int) -> None:
    _, hardest = resource.getrlimit(resource.RLIMIT_DATA)
    limit = max_bytes if hardest == resource.RLIM_INFINITY else min(max_bytes, hardest)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hardest))


def _data_bytes() -> int:
    """The memory that counts for the limit RLIMIT_DATA: all private, writable memory, in bytes."""
    line = next(each for each in _STATUS.read_text().splitlines() if each.startswith("VmData:"))
    return int(line.split()[1]) * 1024
