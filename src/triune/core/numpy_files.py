"""Arrays in files of numpy. Only regular files are read, and archives only up to a limit."""

import zipfile
from pathlib import Path
from typing import Any, Final

import numpy as np

from triune.core.datatypes import Array
from triune.core.errors import InvalidArgumentError
from triune.core.files import open_file

MOST_BYTES: Final = 4 << 30
"""The most bytes of all arrays of an archive together: a compressed file of a few megabytes may hold gigabytes."""


def read_npy(path: Path, what: str) -> Array:
    """Read a .npy file.

    Args:
        path: the file.
        what: what the error message calls the file, such as "input 'x'".

    Raises:
        InvalidArgumentError: it cannot be read, or is not one array that numpy.save wrote.
    """
    # `Any`, since numpy before 2.4 has no type hints for `numpy.lib.format`.
    numpy_format: Any = np.lib.format
    try:
        with open_file(path) as stream:
            return numpy_format.read_array(stream, allow_pickle=False)
    except (OSError, ValueError, MemoryError, EOFError) as error:
        raise InvalidArgumentError(
            f"cannot read {what} from '{path}': {_reason(error)}; give one array, written by numpy.save"
        ) from error


def read_npz(path: Path, what: str, max_bytes: int = MOST_BYTES) -> dict[str, Array]:
    """Read the arrays of an .npz file, by name.

    Args:
        path: the file.
        what: what the error message calls the file, such as "the inputs".
        max_bytes: the most bytes of all arrays together.

    Raises:
        InvalidArgumentError: it cannot be read, is not what numpy.savez wrote, or has more than `max_bytes`.
    """
    try:
        with open_file(path) as stream:
            with zipfile.ZipFile(stream) as archive:
                num_bytes = sum(each.file_size for each in archive.infolist())
            if num_bytes > max_bytes:
                raise InvalidArgumentError(
                    f"cannot read {what} from '{path}': its arrays take {num_bytes} bytes, of at most {max_bytes}; "
                    "give fewer of them"
                )
            stream.seek(0)
            with np.load(stream, allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
    except (OSError, ValueError, MemoryError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise InvalidArgumentError(
            f"cannot read {what} from '{path}': {_reason(error)}; write it with numpy.savez"
        ) from error


def _reason(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
