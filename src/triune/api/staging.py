"""A result that is written beside its place first, and put there once it is found right."""

import os
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from triune.core.errors import InvalidArgumentError


def make_folder(output: Path) -> None:
    """Make the folder that `output` is to be in, and those on the way.

    Raises:
        InvalidArgumentError: it cannot be made, or may not be written to.
    """
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_write(output, error) from error
    if not os.access(output.parent, os.W_OK):
        raise InvalidArgumentError(f"cannot write '{output}': the folder may not be written to; name another place")


def _cannot_write(output: Path, error: OSError) -> InvalidArgumentError:
    return InvalidArgumentError(f"cannot write '{output}': {error.strerror or error}; name another place")


@contextmanager
def staged(output: Path) -> Generator[Path]:
    """Yields a path of the same name in a folder of its own, on the same disk; the folder goes at the end.

    Raises:
        InvalidArgumentError: nothing can be written there.
    """
    make_folder(output)
    try:
        folder = tempfile.TemporaryDirectory(prefix=".triune-", dir=output.parent)
    except OSError as error:
        raise _cannot_write(output, error) from error
    with folder as name:
        yield Path(name) / output.name


def publish(path: Path, output: Path) -> None:
    """Moves what `staged` gave a place for, and the weights beside it, to where it belongs; it replaces what is there.

    Raises:
        InvalidArgumentError: what is there cannot be replaced.
    """
    try:
        for each in path.parent.iterdir():
            place = output.parent / each.name
            if place.is_dir() and not place.is_symlink():
                shutil.rmtree(place)
            each.replace(place)
    except OSError as error:
        raise InvalidArgumentError(f"cannot replace '{output}': {error.strerror or error}") from error
