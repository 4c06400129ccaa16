"""Writes results to a temporary folder first, and moves them to their path once they are verified."""

import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from triune.core.errors import InvalidArgumentError
from triune.core.scratch import HeldFolder, sweep

_PREFIX: Final = ".triune-held-"


def make_folder(output: Path) -> None:
    """Create the parent folders of `output`.

    Raises:
        InvalidArgumentError: the folder cannot be created or is not writable.
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
    """A context with a path of the same name as `output` in a temporary folder on the same disk. The folder is removed
    at the end of the context or, if this process is killed, by the next such context.

    Raises:
        InvalidArgumentError: the folder is not writable.
    """
    make_folder(output)
    sweep(output.parent, _PREFIX)
    try:
        held = HeldFolder(output.parent, _PREFIX)
    except OSError as error:
        raise _cannot_write(output, error) from error
    with held as folder:
        yield folder / output.name


def publish(path: Path, output: Path) -> None:
    """Move a staged file or folder, and its weight files, to `output`; an existing one is replaced.

    Raises:
        InvalidArgumentError: the existing output cannot be replaced.
    """
    try:
        for each in path.parent.iterdir():
            place = output.parent / each.name
            if place.is_dir() and not place.is_symlink():
                shutil.rmtree(place)
            each.replace(place)
    except OSError as error:
        raise InvalidArgumentError(f"cannot replace '{output}': {error.strerror or error}") from error
