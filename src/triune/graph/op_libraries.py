"""Shared libraries of custom operators, which ONNX Runtime loads."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from triune.core.errors import InvalidArgumentError


def register_libraries(options: Any, libraries: Sequence[Path]) -> None:
    """Register the operators of shared libraries with the SessionOptions `options`.

    Raises:
        InvalidArgumentError: a library cannot be loaded.
    """
    for path in libraries:
        try:
            options.register_custom_ops_library(str(path))
        except Exception as error:
            raise InvalidArgumentError(
                f"the library of custom operators '{path}' cannot be loaded: {' '.join(str(error).split())}; it must "
                "be built for this system, and export RegisterCustomOps"
            ) from error
