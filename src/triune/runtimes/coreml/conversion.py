"""Convert ONNX models to Core ML packages when they are loaded."""

import functools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from triune.coreml.lowering import LowerOptions, lower
from triune.graph.load import load
from triune.runtimes.conversion import convert_within, more_time
from triune.runtimes.coreml.options import CONVERSION_SECONDS

_log = logging.getLogger(__name__)

Convert: TypeAlias = Callable[[Path, Path, LowerOptions, float], None]
"""A conversion: takes the ONNX file, the package's path, the options, and the time limit in seconds."""


def convert_in_process(
    path: Path, target: Path, options: LowerOptions, seconds: float, *, memory_bytes: int | None = None
) -> None:
    """Convert in a separate process, since coremltools holds the GIL for seconds.

    Raises:
        InvalidArgumentError, UnsupportedError: `lower` raised it.
        InternalError: the process ended early, exceeded the memory limit, or could not be started.
        UnavailableError: the conversion exceeded the time limit, and was ended.
    """
    _log.info("converting '%s' to Core ML, once", path)
    work = functools.partial(convert_here, path, target, options, seconds)
    convert_within(
        work,
        f"the conversion of '{path}'",
        seconds=seconds,
        remedy=more_time(CONVERSION_SECONDS),
        memory_bytes=memory_bytes,
    )


def convert_here(path: Path, target: Path, options: LowerOptions, seconds: float) -> None:
    """Convert in this process, without limits. Raises the errors of `lower`."""
    del seconds
    lowered = lower(load(path), target, options)
    if lowered.layout is not None and lowered.layout.changed:
        counts = ", ".join(f"{step} {count}" for step, count in lowered.layout.counts().items())
        _log.info("'%s' is in the Neural Engine's layout: %s", path, counts)
