"""A process that is to give way to all others where memory is short."""

import sys
from pathlib import Path

_FIRST_TO_GO = 1000


def restrict_memory(max_bytes: int) -> None:
    """Let this process have no more memory than that, and be the first that the system ends for want of memory.

    Linux only: elsewhere nothing is limited.

    Raises:
        OSError: the system does not allow it.
    """
    if sys.platform != "linux":
        return
    import resource

    _, hardest = resource.getrlimit(resource.RLIMIT_DATA)
    limit = max_bytes if hardest == resource.RLIM_INFINITY else min(max_bytes, hardest)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hardest))
    Path("/proc/self/oom_score_adj").write_text(f"{_FIRST_TO_GO}")
