"""Export a model of another framework to ONNX, and have it compared with the framework."""

import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from triune.api.frameworks.comparison import compared
from triune.api.frameworks.frameworks import Framework
from triune.api.frameworks.result import ExporterError, Request
from triune.api.rounds import Tell
from triune.core.datatypes import Array
from triune.core.errors import NotFoundError, UnsupportedError
from triune.graph.conversion.shapes import InputShape


@dataclass(frozen=True, slots=True)
class Exported:
    """An exported model.

    Attributes:
        path: the ONNX file, which exists until the context of `exported` ends.
        notes: how far its outputs differ from the source's, and other notes for the user.
    """

    path: Path
    notes: tuple[str, ...] = ()


@contextmanager
def exported(
    framework: Framework,
    source: Any,
    inputs: Mapping[str, Array],
    shapes: Mapping[str, InputShape],
    tell: Tell,
    *,
    verify: bool | None,
    is_asked: bool,
) -> Generator[Exported]:
    """Export a model.

    Args:
        framework: the framework of the model.
        source: a path, or an object.
        inputs: example inputs by name.
        shapes: the sizes of inputs, by name.
        tell: called with a message at each step.
        verify: whether to compare the framework's answers with those of the exported model; None compares where that is
            quick.
        is_asked: whether the user asked for the comparison. If so, it is an error if the comparison cannot be made.

    Raises:
        NotFoundError: there is no such file.
        InvalidArgumentError: the file or the inputs are wrong, or the exported model gives other answers.
        UnsupportedError: the framework's exporter is not installed, or cannot convert the model.
    """
    if isinstance(source, (str, Path)) and not Path(source).exists():
        raise NotFoundError(f"there is no '{source}'")
    tell(f"exporting from {framework.title}")
    exporter = framework.exporter()
    name = Path(source).stem if isinstance(source, (str, Path)) else "model"
    with tempfile.TemporaryDirectory(prefix="triune-export-") as folder:
        path = Path(folder) / f"{name}.onnx"
        try:
            done = exporter(Request(source, path, inputs, shapes))
        except ExporterError as error:
            raise UnsupportedError(f"{error}; change the model there, or export it to .onnx by other means") from error
        notes = done.notes
        if (framework.is_quick if verify is None else verify) and done.compute is not None:
            tell(f"comparing with {framework.title}")
            notes = (*notes, *compared(framework.title, done, path, inputs, shapes, is_asked=is_asked))
        yield Exported(path, notes)
