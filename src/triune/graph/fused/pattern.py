"""The base class of the passes that fuse patterns."""

from abc import abstractmethod
from collections.abc import Iterator

from onnx import ModelProto, NodeProto

from triune.graph.fused.call import FusedCall, add_call
from triune.graph.index import Index
from triune.graph.passes.run import GraphPass
from triune.graph.passes.tidy_and_infer import TidyAndInfer
from triune.graph.weight_files import WeightFile


class FusePattern(GraphPass):
    """Given core ops. Result: a call of a function in place of each pattern. Subgraphs stay as they are."""

    def __init__(self, file: WeightFile | None = None) -> None:
        """`file` is the scratch file for new large weights; without it they are stored in the model."""
        self._file = file

    @abstractmethod
    def calls(self, index: Index) -> Iterator[FusedCall]:
        """Yield the calls that replace the patterns of a graph.

        New nodes that compute the operands of a call are added to `index.build` before it is yielded.
        """

    def __call__(self, model: ModelProto) -> ModelProto:
        """Replace each pattern in `model`, in place, by a call of a function, and add the functions to `model`."""
        index = Index(model.graph, self.name)
        calls = {call.output.output[0]: (call, index.take()) for call in self.calls(index)}
        nodes: list[NodeProto] = []
        for node in model.graph.node:
            found = calls.get(node.output[0])
            if found is None:
                nodes.append(node)
            else:
                call, before = found
                nodes += [*before, add_call(model, call)]
        index.replace(nodes)
        return TidyAndInfer(self._file)(model)
