"""A program saved as a package."""

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
_PREFIX = "com.github.apple.coremltools"


def save(program: Any, version: int, path: Path, description: str, metadata: Mapping[str, str]) -> None:
    """Write a package; what is at `path` is replaced.

    Args:
        program: of PyMIL, with all passes done.
        version: the specification's, which tells the oldest system that runs it.
        path: ends in .mlpackage.
        description: what Xcode shows of the model.
        metadata: what is said of the model beside that.
    """
    with tempfile.TemporaryDirectory() as folder:
        specification = specification_of(program, version, Path(folder))
        about = specification.description.metadata
        about.shortDescription = description
        about.userDefined.update(metadata)
        # The version and source entries that coremltools writes for its own conversions.
        about.userDefined[f"{_PREFIX}.version"] = _library.__version__
        about.userDefined[f"{_PREFIX}.source"] = "milinternal"
        if path.exists():
            shutil.rmtree(path)
        _utils._create_mlpackage(specification, folder, str(path))


def specification_of(program: Any, version: int, folder: Path) -> Any:
    """The program as a `Model_pb2.Model`, whose weights are written into `folder`."""
    return _backend.load(program, str(folder), specification_version=version)
