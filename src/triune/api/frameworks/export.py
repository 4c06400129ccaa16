"""Export a model of another framework to ONNX, and compare the outputs of the ONNX model with the framework's."""

import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from triune.api.frameworks.frameworks import Framework
from triune.api.frameworks.result import Export, ExporterError, Request
from triune.api.rounds import Tell
from triune.core.datatypes import Array
from triune.core.errors import InvalidArgumentError, NotFoundError, TriuneError, UnsupportedError
from triune.graph.conversion.shapes import InputShape, inputs_of
from triune.graph.load import load
from triune.graph.session import GraphSession
from triune.graph.verify import samples_of

TOLERANCE: Final = 1e-3
"""The largest allowed difference between an output of an exported model and of its source, divided by the output's
largest value.
"""


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
            notes = (*notes, _compared(framework, done, path, inputs, shapes))
        yield Exported(path, notes)


def _compared(
    framework: Framework,
    done: Export,
    path: Path,
    inputs: Mapping[str, Array],
    shapes: Mapping[str, InputShape],
) -> str:
    """Compare an exported model with its source. Returns a line that says how far their outputs differ."""
    model = load(path)
    names = [value.name for value in inputs_of(model.graph)]
    examples = {**done.inputs, **inputs}
    given = {name: examples[name] for name in names if name in examples}
    try:
        sample = given if len(given) == len(names) else samples_of(model, shapes, given, is_half=False)[0].arrays
        feed = {name: np.asarray(sample[name]) for name in names}
    except TriuneError as error:
        return f"the export was not compared with {framework.title}: {error}"
    outputs = [value.name for value in model.graph.output]
    found, _ = GraphSession(model, "the exported model").run(feed, {})
    assert done.compute is not None
    try:
        expected = done.compute(feed)
    except Exception as error:  # noqa: BLE001
        # Report any exception of the framework's own code in the note, instead of failing.
        return f"the export was not compared with {framework.title}: {type(error).__name__}: {error}"
    if len(expected) != len(outputs):
        return (
            f"the export was not compared with {framework.title}, which gives {len(expected)} outputs; the exported "
            f"model has {len(outputs)}"
        )
    errors = {name: _error(found[name], right) for name, right in zip(outputs, expected, strict=True)}
    wrong = {name: error for name, error in errors.items() if not error <= TOLERANCE}
    if wrong:
        listed = ", ".join(f"'{name}' by {error:.3g}" for name, error in wrong.items())
        raise InvalidArgumentError(
            f"the exported model gives other answers than {framework.title}: {listed} of the largest value, where "
            f"{TOLERANCE:g} is allowed; export it to .onnx by other means, or have it written all the same by "
            "verify=False (--no-verify)"
        )
    return f"the export differs from {framework.title} by {max(errors.values(), default=0.0):.2g} of the largest value"


def _error(actual: Array, expected: Any) -> float:
    right = np.asarray(expected)
    if actual.size != right.size:
        return float("inf")
    if right.dtype.kind in "OSU":
        return 0.0 if actual.astype(str).ravel().tolist() == right.astype(str).ravel().tolist() else float("inf")
    one, other = actual.astype(np.float64).ravel(), right.astype(np.float64).ravel()
    if not np.array_equal(np.isnan(one), np.isnan(other)):
        return float("inf")
    difference, largest = np.nanmax(np.abs(one - other), initial=0.0), np.nanmax(np.abs(other), initial=0.0)
    return float(difference / largest) if largest else float(difference)
