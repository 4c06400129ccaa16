"""Saving of a program as a package."""

import errno
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import coremltools
from coremltools.converters.mil.backend.mil import load
from coremltools.models import utils

_library: Any = coremltools
_backend: Any = load
_utils: Any = utils
_WRITER = "MIL FileWriter"
"""The beginning of messages of coremltools' writer of weights."""

_PREFIX = "com.github.apple.coremltools"


def save(program: Any, version: int, path: Path, description: str, metadata: Mapping[str, str]) -> None:
    """Write a package; a file or folder at `path` is replaced.

    Args:
        program: coremltools' program, after all passes.
        version: Core ML's specification version, which decides the oldest system that runs the package.
        path: where to save the package; ends in .mlpackage.
        description: the description of the model that Xcode shows.
        metadata: further entries of the model's metadata, by key.

    Raises:
        OSError: the weights cannot be written.
    """
    with tempfile.TemporaryDirectory() as folder:
        specification = specification_of(program, version, Path(folder))
        about = specification.description.metadata
        about.shortDescription = description
        about.userDefined.update(metadata)
        # Write the entries `version` and `source`, as coremltools does for its own conversions.
        about.userDefined[f"{_PREFIX}.version"] = _library.__version__
        about.userDefined[f"{_PREFIX}.source"] = "milinternal"
        if path.exists():
            shutil.rmtree(path)
        _utils._create_mlpackage(specification, folder, str(path))


def specification_of(program: Any, version: int, folder: Path) -> Any:
    """Convert `program` to Core ML's `Model` message, and write the weights into `folder`.

    Raises:
        OSError: the weights cannot be written.
    """
    try:
        return _backend.load(program, str(folder), specification_version=version)
    except RuntimeError as error:
        if _WRITER not in str(error):
            raise
        # Raise EIO, since coremltools' error does not give the reason.
        raise OSError(errno.EIO, os.strerror(errno.EIO)) from error
