"""What the passes have in common."""

from abc import ABC, abstractmethod
from typing import ClassVar

from onnx import GraphProto, ModelProto

from triune.graph.ane.report import Report
from triune.graph.index import Index
from triune.graph.weights import Large, NoneLarge


class Step(ABC):
    """A pass: a class with a name, called with a model, which it changes and returns."""

    name: ClassVar[str]

    def __init__(self, report: Report, large: Large | None = None) -> None:
        """Writes what it does into `report`; `large` holds large constants that are not in the model's graph."""
        self._report = report
        self._large = large or NoneLarge()

    @abstractmethod
    def __call__(self, model: ModelProto) -> ModelProto:
        """Changes `model`. Its inputs and outputs, and what it computes, stay."""

    def _index(self, graph: GraphProto) -> Index:
        return Index(graph, f"ane/{self.name}", self._large)
