"""The base class of the passes that rewrite a model for the Neural Engine."""

from onnx import GraphProto

from triune.graph.ane.report import Report
from triune.graph.index import Index
from triune.graph.passes.run import GraphPass
from triune.graph.weights import Large, NoneLarge


class LayoutPass(GraphPass):
    """A pass that reports which nodes it changes, and which similar nodes it does not change, and why."""

    def __init__(self, report: Report, large: Large | None = None) -> None:
        """The pass adds entries to `report`. `large` has the large constants, which are kept out of the graph while
        passes run.
        """
        self._report = report
        self._large = large or NoneLarge()

    def _index(self, graph: GraphProto) -> Index:
        return Index(graph, f"ane/{self.name}", self._large)
