"""The arguments and the result of an exporter."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

from triune.core.datatypes import Array
from triune.graph.conversion.shapes import Dim, InputShape, Range

OPSET: Final = 20
"""The version of ONNX's operator set for exports, if the exporter allows a choice."""

Compute: TypeAlias = Callable[[Mapping[str, Array]], Sequence[Array]]
"""Computes a model in its own framework. It takes the inputs by name, and returns the outputs in the order of the
exported model."""


@dataclass(frozen=True, slots=True)
class Request:
    """A model to export.

    Attributes:
        source: a file, a folder, or an object of the framework.
        target: the ONNX file to write.
        inputs: example inputs by name. Exporters that run the model need all of them.
        shapes: the sizes of inputs with free dimensions, by name.
    """

    source: Any
    target: Path
    inputs: Mapping[str, Array]
    shapes: Mapping[str, InputShape]

    def dims(self, name: str, array: Array) -> tuple[Dim, ...]:
        """The shape of an input: the shape that the user gave, else the shape of its example. If the user gave several
        shapes, each dimension becomes a range of sizes.
        """
        asked = self.shapes.get(name)
        if asked is None:
            return array.shape
        if not asked.is_enumerated:
            return asked.choices[0]
        sizes: list[tuple[Any, ...]] = list(zip(*asked.choices, strict=True))
        return tuple(each[0] if len(set(each)) == 1 else Range(min(each), max(each)) for each in sizes)


@dataclass(frozen=True, slots=True)
class Export:
    """A model that was written as ONNX.

    Attributes:
        compute: computes the model in its own framework; None if that cannot be done.
        inputs: examples of inputs that came with the model.
        notes: notes for the user.
        takes_rows: whether all inputs are rows of features, of any number.
    """

    compute: Compute | None
    inputs: Mapping[str, Array]
    notes: tuple[str, ...] = ()
    takes_rows: bool = False


def library(name: str) -> Any:
    """Import a library that an extra installs. It is typed as Any, since its type hints are incomplete, or missing if
    the extra is not installed.
    """
    return importlib.import_module(name)


class ExporterError(Exception):
    """An exporter cannot convert a model: the message says which layer, and why."""
