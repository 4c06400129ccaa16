"""Conversions to and from assets of Core AI in a separate process, since Apple's library aborts on some errors."""

import functools
import logging
from pathlib import Path
from typing import Any

import onnx

from triune.core.disk import writing
from triune.coreai.lowering import LowerOptions, lower
from triune.graph.load import load
from triune.runtimes.conversion import convert_within, more_time
from triune.runtimes.coreai.options import CONVERSION_SECONDS

_log = logging.getLogger(__name__)

MODEL = "model.onnx"
"""The name of the ONNX file in a folder of the cache."""


def convert_in_process(
    path: Path, options: LowerOptions, seconds: float, memory_bytes: int | None, target: Path
) -> None:
    """Convert an ONNX file to an asset at `target`.

    Raises:
        InvalidArgumentError, UnsupportedError: `lower` raised it.
        InternalError: the process ended early, exceeded the memory limit, or could not be started.
        UnavailableError: the conversion exceeded the time limit, and was ended.
    """
    _log.info("converting '%s' to Core AI, once", path)
    convert_within(
        functools.partial(_convert, path, target, options),
        f"the conversion of '{path}'",
        seconds=seconds,
        remedy=more_time(CONVERSION_SECONDS),
        memory_bytes=memory_bytes,
    )


def raise_in_process(path: Path, function: str, seconds: float, memory_bytes: int | None, target: Path) -> None:
    """Convert a function of an asset to an ONNX file in the folder `target`.

    Raises:
        The errors of `convert_in_process` and of `raise_function`.
    """
    _log.info("raising '%s' to ONNX, once", path)
    convert_within(
        functools.partial(_raise, path, function, target),
        f"the raising of '{path}'",
        seconds=seconds,
        remedy=more_time(CONVERSION_SECONDS),
        memory_bytes=memory_bytes,
    )


def _convert(path: Path, target: Path, options: LowerOptions) -> None:
    with writing(target):
        lower(load(path), target, options)


def _raise(path: Path, function: str, target: Path) -> None:
    # Import this module only here, in the separate process, since it imports Apple's library.
    from triune.coreai.raising import raise_function

    target.mkdir()
    # `Any`, since the type hints of onnx are incomplete.
    library: Any = onnx
    library.save(raise_function(path, function), target / MODEL, save_as_external_data=True, location=f"{MODEL}.data")
