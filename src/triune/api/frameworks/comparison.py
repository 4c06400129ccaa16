"""Compare the outputs of an exported model with those of the framework that it comes from."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from triune.api.frameworks.result import Export
from triune.api.frameworks.rows import Rows, revealing_rows
from triune.core.datatypes import Array
from triune.core.errors import InvalidArgumentError, TriuneError
from triune.graph.conversion.shapes import InputShape, inputs_of
from triune.graph.load import load
from triune.graph.session import GraphSession, texts_of
from triune.graph.verify import samples_of

TOLERANCE: Final = 1e-3
"""The largest allowed difference between an output of an exported model and of its source, divided by the output's
largest value.
"""

_REMEDY: Final = "export it to .onnx by other means, or have it written all the same by verify=False (--no-verify)"


def compared(
    title: str,
    done: Export,
    path: Path,
    inputs: Mapping[str, Array],
    shapes: Mapping[str, InputShape],
    *,
    is_asked: bool,
) -> list[str]:
    """Compare an exported model with its source. Returns lines that say how far their outputs differ.

    Models that take rows of features are compared on several sets of rows (`rows.revealing_rows`); those that the
    framework itself refuses do not count.

    Args:
        title: the framework's name.
        done: the export.
        path: the ONNX file.
        inputs: example inputs by name.
        shapes: the sizes of inputs, by name.
        is_asked: whether the user asked for the comparison. If so, it is an error if the comparison cannot be made.

    Raises:
        InvalidArgumentError: the exported model gives other answers than its source, or none; or no comparison can be
            made, though `is_asked`.
    """
    model = load(path)
    names = [value.name for value in inputs_of(model.graph)]
    examples = {**done.inputs, **inputs}
    given = {name: examples[name] for name in names if name in examples}
    is_given = len(given) == len(names)
    try:
        sample = given if is_given else samples_of(model, shapes, given, is_half=False)[0].arrays
        feed = {name: texts_of(np.asarray(sample[name])) for name in names}
    except TriuneError as error:
        return [_not_compared(title, f": {error}", is_asked=is_asked)]
    outputs = [value.name for value in model.graph.output]
    sets = revealing_rows(model, feed, is_given=is_given) if done.takes_rows else [Rows("", feed)]
    session = GraphSession(model, "the exported model")
    notes: list[str] = []
    errors: list[float] = []
    refusals: list[str] = []
    assert done.compute is not None
    for rows in sets:
        try:
            expected = [np.asarray(each) for each in done.compute(rows.arrays)]
        except Exception as error:  # noqa: BLE001
            # Report any exception of the framework's own code in the note, instead of failing.
            refusals.append(f": {type(error).__name__}: {error}")
            continue
        if len(expected) != len(outputs):
            refusals.append(f", which gives {len(expected)} outputs; the exported model has {len(outputs)}")
            continue
        found = _answers(session, outputs, rows, title)
        differences = {
            name: _error(one, other, skips_nan=rows.has_missing)
            for name, one, other in zip(outputs, found, expected, strict=True)
        }
        if len(outputs) > 1 and differences[outputs[0]] > TOLERANCE and _are_ties(found, expected):
            differences[outputs[0]] = 0.0
        wrong = {name: error for name, error in differences.items() if not error <= TOLERANCE}
        if not wrong:
            errors += differences.values()
            continue
        where = f" on {rows.what}" if rows.what else ""
        listed = ", ".join(f"'{name}' by {error:.3g}" for name, error in wrong.items())
        text = f"the exported model gives other answers than {title}{where}: {listed} of the largest value"
        if rows.is_sure:
            raise InvalidArgumentError(f"{text}, where {TOLERANCE:g} is allowed; {_REMEDY}")
        notes.append(f"{text}; it is right for whole numbers")
    if not errors:
        return [_not_compared(title, next(iter(refusals), ""), is_asked=is_asked), *notes]
    return [f"the export differs from {title} by {max(errors):.2g} of the largest value", *notes]


def _not_compared(title: str, why: str, *, is_asked: bool) -> str:
    """A note that no comparison was made. Raises InvalidArgumentError if the user asked for one."""
    text = f"the export was not compared with {title}{why}"
    if is_asked:
        raise InvalidArgumentError(f"{text}; give inputs (--input) that the model takes, or {_REMEDY}")
    return text


def _answers(session: GraphSession, outputs: Sequence[str], rows: Rows, title: str) -> list[Array]:
    try:
        found, _ = session.run(rows.arrays, {})
    except TriuneError as error:
        where = f"{rows.what}, which {title} computes" if rows.what else f"rows that {title} computes"
        raise InvalidArgumentError(
            f"the exported model cannot compute {where}: the exporter left out or changed a part of it; {_REMEDY} "
            f"({' '.join(str(error).split())[:200]})"
        ) from error
    return [np.asarray(found[name]) for name in outputs]


def _error(actual: Array, right: Array, *, skips_nan: bool) -> float:
    """The largest difference of two arrays, divided by the largest value; infinity if they are of unlike sizes, or NaN
    in unlike places. With `skips_nan`, places where `right` is NaN do not count.
    """
    if actual.size != right.size:
        return float("inf")
    if right.dtype.kind in "OSU":
        return 0.0 if actual.astype(str).ravel().tolist() == right.astype(str).ravel().tolist() else float("inf")
    one, other = actual.astype(np.float64).ravel(), right.astype(np.float64).ravel()
    if skips_nan:
        one = np.where(np.isnan(other), np.nan, one)
    if not np.array_equal(np.isnan(one), np.isnan(other)):
        return float("inf")
    difference, largest = np.nanmax(np.abs(one - other), initial=0.0), np.nanmax(np.abs(other), initial=0.0)
    return float(difference / largest) if largest else float(difference)


def _are_ties(found: Sequence[Array], expected: Sequence[Array]) -> bool:
    """Whether labels differ only in rows whose two best scores are equal but for the rounding of fp32. The outputs are
    the labels and the scores [rows, classes].
    """
    labels, scores = expected[0].ravel(), expected[1]
    if scores.ndim != 2 or scores.shape[1] < 2 or found[0].size != labels.size or len(scores) != labels.size:
        return False
    rows: Any = found[0].astype(str).ravel() != labels.astype(str)
    best = np.sort(scores[rows].astype(np.float64), axis=1)
    return bool(np.all(best[:, -1] - best[:, -2] <= TOLERANCE * np.abs(scores).max(initial=1.0)))
