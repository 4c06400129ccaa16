"""Shared libraries of custom operators, which ONNX Runtime loads."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from onnx import ModelProto

from triune.core.errors import InvalidArgumentError
from triune.graph.custom.foreign import foreign_nodes
from triune.runtimes.failures import reason_of


def has_foreign_ops(model: ModelProto) -> bool:
    """Whether a model has operators that neither ONNX, nor ONNX Runtime, nor the model's functions define."""
    return any(True for _ in foreign_nodes(model))


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
                f"the library of custom operators '{path}' cannot be loaded: {reason_of(error)}; it must be built for "
                "this system, and export RegisterCustomOps"
            ) from error
