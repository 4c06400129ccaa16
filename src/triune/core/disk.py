"""Errors of files that cannot be written, because the disk is full or does not support files of their size."""

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from triune.core.errors import InvalidArgumentError, UnavailableError

_REMEDIES: Final = {
    errno.ENOSPC: "make room there",
    errno.EDQUOT: "make room there, or have your quota raised",
    errno.EFBIG: "raise the limit of the size of a file (`ulimit -f`), or name a disk that takes larger files",
    errno.EIO: "make room there, and see what the system logs of these disks",
    errno.EROFS: "name a place that can be written to",
}

_OWN_FOLDER: Final = re.compile(r"/triune-(held|graph|weights)-")

_TEXTS: Final = {number: os.strerror(number) for number in _REMEDIES}
"""The C library's text for each disk error, by its number. Vendors' libraries put these texts into their own
messages.
"""


def disk_error(error: BaseException) -> OSError | None:
    """Find the disk error in an exception: the exception itself, one of its causes, or an error that its text names;
    None if there is none.
    """
    left: BaseException | None = error
    while left is not None:
        text = str(left)
        for number, words in _TEXTS.items():
            if words in text:
                return left if isinstance(left, OSError) else OSError(number, words)
        left = left.__cause__ or (None if left.__suppress_context__ else left.__context__)
    return None


def temporary_error(error: BaseException) -> OSError | None:
    """Find the error of a temporary file that could not be written: a disk error, or any error of a path within a
    temporary folder of ours; None for another error.
    """
    path = error.filename if isinstance(error, OSError) else None
    # Other files may be in the system's temporary folder, too, such as the model itself.
    if isinstance(error, OSError) and isinstance(path, str) and _OWN_FOLDER.search(path):
        return error
    return disk_error(error)


def no_temporary(what: str, error: OSError) -> UnavailableError:
    """Make the error for temporary files that cannot be written. `what` needs them."""
    return UnavailableError(
        f"{what} needs temporary files, which cannot be written to '{tempfile.gettempdir()}': "
        f"{error.strerror or error}; make room there, or start with TMPDIR set to a folder that can be written"
    )


@contextmanager
def writing(target: Path) -> Generator[None]:
    """A context in which the caller writes `target`, and intermediate files into temporary folders. It converts disk
    errors.

    Raises:
        InvalidArgumentError: a disk is full, cannot be written, or does not support a file of that size. The message
            names `target`, the free bytes of its folder and of the temporary folder, and the remedy. Errors of vendors'
            libraries whose text names such a disk error are converted too.
    """
    try:
        yield
    except InvalidArgumentError:
        raise
    # Catch every Exception: vendors' libraries raise errors of any type.
    except Exception as error:
        found = disk_error(error)
        if found is None or found.errno is None:
            raise
        folder, temporary = target.absolute().parent, Path(tempfile.gettempdir())
        raise InvalidArgumentError(
            f"'{target}' cannot be written: {found.strerror}. '{folder}' has {_free(folder)}, and '{temporary}' "
            f"(TMPDIR), which holds what leads to it, has {_free(temporary)}: {_REMEDIES[found.errno]}, or name "
            "another place"
        ) from error


def _free(folder: Path) -> str:
    try:
        return f"{shutil.disk_usage(folder).free} bytes free"
    except OSError as error:
        return f"free space that cannot be read ({error.strerror})"
