"""ONNX models converted to Core ML packages when they are loaded."""

import functools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from triune.coreml.lowering import LowerOptions, lower
from triune.graph.load import load
from triune.runtimes.conversion import convert_within
from triune.runtimes.coreml.options import CONVERSION_SECONDS

_log = logging.getLogger(__name__)

Convert: TypeAlias = Callable[[Path, Path, LowerOptions, float], None]
"""Given an ONNX file, where the package goes, how to convert, and how many seconds that may take."""


def convert_in_process(
    path: Path, target: Path, options: LowerOptions, seconds: float, *, memory_bytes: int | None = None
) -> None:
    """Convert in a process of its own: coremltools holds Python's lock for seconds, and others are to be served.

    Raises:
        InvalidArgumentError, UnsupportedError: as `lower`.
        InternalError: the process ended before it was done, took too much memory, or could not be started.
        UnavailableError: it took longer than `seconds`, and was ended.
    """
    _log.info("converting '%s' to Core ML, once", path)
    work = functools.partial(convert_here, path, target, options, seconds)
    convert_within(
        work,
        f"the conversion of '{path}'",
        seconds=seconds,
        seconds_parameter=CONVERSION_SECONDS,
        memory_bytes=memory_bytes,
    )


def convert_here(path: Path, target: Path, options: LowerOptions, seconds: float) -> None:
    """The same in this process, which nothing ends. Raises as `lower`."""
    del seconds
    lowered = lower(load(path), target, options)
    if lowered.layout is not None and lowered.layout.changed:
        counts = ", ".join(f"{step} {count}" for step, count in lowered.layout.counts().items())
        _log.info("'%s' is in the Neural Engine's layout: %s", path, counts)
