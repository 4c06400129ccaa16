"""Reads the files of weights into the system's cache before a load needs them."""

import contextlib
import fcntl
import os
import struct

from triune.config.configure import Source
from triune.core.files import open_file
from triune.repository.memory.estimate import weight_files

_F_RDADVISE = 44
"""macOS's `fcntl` command F_RDADVISE (sys/fcntl.h): read a part of a file into the system's cache. Its argument is a
struct radvisory of an offset (8 bytes) and a count (4 bytes, signed).
"""

_STEP_BYTES = 128 << 10
"""The number of bytes that one request asks the system to read. If a request is larger, Linux reads only as much as the
disk's queue takes: when one request asked for 192 MiB of a file, 8 MiB were read (Linux 6, ext4).
"""


def read_ahead(source: Source, version: int) -> None:
    """Have the system read the weight files of a version into its cache, in the order of their names.

    This takes about as long as the disk needs, so call it in a thread. Files that are in the cache already take no
    time. A file that cannot be opened is skipped: the load will report the error.
    """
    for name, num_bytes in sorted(weight_files(source.stamp.versions.get(version, {})).items()):
        with contextlib.suppress(OSError), open_file(source.folder / name) as file:
            advise(file.fileno(), num_bytes)


def advise(descriptor: int, num_bytes: int) -> None:
    """Ask the system to read the first `num_bytes` of an open file into its cache. Raises OSError if it refuses."""
    for start in range(0, num_bytes, _STEP_BYTES):
        count = min(_STEP_BYTES, num_bytes - start)
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(descriptor, start, count, os.POSIX_FADV_WILLNEED)
        else:
            fcntl.fcntl(descriptor, _F_RDADVISE, struct.pack("qi", start, count))
