"""Writes results to a temporary folder first, and moves them to their path once they are verified."""

import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from triune.core.disk import writing
from triune.core.errors import InvalidArgumentError
from triune.core.scratch import HeldFolder, sweep

_PREFIX: Final = ".triune-held-"

_PARTS: Final = {
    ".mlpackage": frozenset(["Manifest.json", "Data"]),
    ".aimodel": frozenset(["main.mlirb", "main.hash", "metadata.json"]),
}
"""The names of what a folder has that is one of Apple's programs."""

_OF_CHECKPOINTS: Final = frozenset([".json", ".safetensors", ".jinja", ".txt", ".model", ".py", ".md"])
"""The suffixes of the files of a decoder's checkpoint in Hugging Face's form."""

_BY_SYSTEMS: Final = frozenset([".DS_Store"])
"""Files that systems put into any folder."""


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
        InvalidArgumentError: the folder is not writable; or `output` is a folder with other things in it than a model
            of its kind, which would be lost.
    """
    require_replaceable(output)
    make_folder(output)
    sweep(output.parent, _PREFIX)
    try:
        held = HeldFolder(output.parent, _PREFIX)
    except OSError as error:
        raise _cannot_write(output, error) from error
    with held as folder:
        yield folder / output.name


def require_replaceable(output: Path) -> None:
    """Raise InvalidArgumentError if `output` is a folder that has other things in it than a model of its kind, which
    would be lost.
    """
    if output.is_symlink() or not output.is_dir():
        return
    try:
        found = {each.name: each for each in output.iterdir() if each.name not in _BY_SYSTEMS}
    except OSError as error:
        raise _cannot_write(output, error) from error
    if output.suffix in _PARTS:
        others = found.keys() - _PARTS[output.suffix]
    elif {"config.json", "tokenizer.json"} <= found.keys():
        others = {name for name, each in found.items() if each.is_dir() or each.suffix not in _OF_CHECKPOINTS}
    else:
        others = found.keys()
    if others:
        raise InvalidArgumentError(
            f"'{output}' is a folder with '{min(others)}' in it, which would be lost with it: name another place"
        )


def write_text(path: Path, text: str) -> None:
    """Write a text file, or into a device such as /dev/stdout. After an error a file is what it was before.

    Raises:
        InvalidArgumentError: the file cannot be written, or the disk is full.
    """
    if path.is_dir():
        raise InvalidArgumentError(f"'{path}' is a folder, and a file is to be written: name another place")
    with writing(path):
        if path.exists() and not path.is_file():
            path.write_text(text, encoding="utf-8")
            return
        with staged(path) as file:
            file.write_text(text, encoding="utf-8")
            publish(file, path)


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
