"""The file descriptors of the process. Connections may use some of them; the others are kept for models and files."""

import contextlib
import logging
import resource

_log = logging.getLogger(__name__)

# Limits to try: the default maximum of Linux (fs.nr_open), and OPEN_MAX of macOS, which refuses "unlimited".
_MOST = (1 << 20, 10240)
_KEPT = 128


def raise_descriptor_limit() -> int:
    """Raise this process's limit of file descriptors to the system's maximum.

    Returns:
        the new limit.
    """
    for most in _MOST:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = most if hard == resource.RLIM_INFINITY else min(hard, most)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            # Try the next limit if the system refuses this one: its maximum may be below the hard limit (on macOS,
            # kern.maxfilesperproc).
            with contextlib.suppress(OSError, ValueError):
                resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST[0] if soft == resource.RLIM_INFINITY else soft


def share_of(num_descriptors: int, num_listeners: int) -> int:
    """The number of file descriptors that the connections of each listener may take.

    A quarter of all descriptors, at least 128, is kept for reading files, importing modules, starting processes
    and loading models.

    Args:
        num_descriptors: the limit of the process.
        num_listeners: the number of listeners, at least 1.
    """
    return max(1, (num_descriptors - _num_kept(num_descriptors)) // num_listeners)


def connections_within(num_descriptors: int, num_wanted: int, num_listeners: int) -> int:
    """The number of connections that each listener may have. If it is lower than wanted, a warning is logged.

    Args:
        num_descriptors: the limit of the process.
        num_wanted: the wanted number for each listener.
        num_listeners: the number of listeners, at least 1.
    """
    num_each = share_of(num_descriptors, num_listeners)
    if num_each >= num_wanted:
        return num_wanted
    _log.warning(
        "--max-connections is lowered from %d to %d: the process may have %d file descriptors, keeps %d of them for "
        "models and files, and %d listeners share the others; raise the limit (ulimit -n) for more",
        num_wanted,
        num_each,
        num_descriptors,
        _num_kept(num_descriptors),
        num_listeners,
    )
    return num_each


def _num_kept(num_descriptors: int) -> int:
    return max(_KEPT, num_descriptors // 4)
