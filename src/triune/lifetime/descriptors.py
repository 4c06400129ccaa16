"""The process's file descriptors: connections take a part of them, and the rest is kept for models and files."""

import contextlib
import logging
import resource

_log = logging.getLogger(__name__)

# Linux gives no process more by default (fs.nr_open); macOS takes no "unlimited", and of old this (OPEN_MAX).
_MOST = (1 << 20, 10240)
_KEPT = 128


def raise_descriptor_limit() -> int:
    """Let this process have as many file descriptors as the system allows it.

    Returns:
        how many it may have.
    """
    for most in _MOST:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = most if hard == resource.RLIM_INFINITY else min(hard, most)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            # The system may hold it lower than it says (macOS: kern.maxfilesperproc).
            with contextlib.suppress(OSError, ValueError):
                resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST[0] if soft == resource.RLIM_INFINITY else soft


def connections_within(num_descriptors: int, num_wanted: int, num_listeners: int) -> int:
    """How many connections each listener may have; if fewer than wanted, the log says so.

    A quarter of the descriptors, and 128 at least, are kept: without one no file is read, no module imported, no
    process started, and so no model loaded.

    Args:
        num_descriptors: what the process may have.
        num_wanted: what each listener is to have.
        num_listeners: what shares them, 1 or more.
    """
    num_kept = max(_KEPT, num_descriptors // 4)
    num_each = max(1, (num_descriptors - num_kept) // num_listeners)
    if num_each >= num_wanted:
        return num_wanted
    _log.warning(
        "--max-connections is lowered from %d to %d: the process may have %d file descriptors, keeps %d of them for "
        "models and files, and %d listeners share the others; raise the limit (ulimit -n) for more",
        num_wanted,
        num_each,
        num_descriptors,
        num_kept,
        num_listeners,
    )
    return num_each
