"""Models that become functions of one program."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from onnx import ModelProto

from triune.graph.conversion.options import ConversionOptions

MAIN: Final = "main"
"""The name of the program's function if only one model is converted."""

OptionsT = TypeVar("OptionsT", bound=ConversionOptions, covariant=True)


@dataclass(frozen=True, slots=True)
class Source(Generic[OptionsT]):
    """A model to convert to a function, and how.

    Attributes:
        model: any ONNX model, which is not changed. If it has external data, `graph.load` must have set their paths.
        options: the options of the conversion.
    """

    model: ModelProto
    options: OptionsT


def description_of(sources: Iterable[Source[ConversionOptions]]) -> str:
    """The description of a program: the descriptions of its source models, joined."""
    graphs = [source.model.graph for source in sources]
    texts = [graph.doc_string or f"Converted from ONNX graph '{graph.name}'" for graph in graphs]
    return "; ".join(dict.fromkeys(texts))
