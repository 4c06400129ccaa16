"""Remove the Reshapes before and after a Softmax or Transpose that can be computed without them."""

from onnx import ModelProto, NodeProto

from triune.graph.ane.layout_pass import LayoutPass
from triune.graph.index import label
from triune.graph.match.reshaped import match_reshaped


class WithoutReshapes(LayoutPass):
    """Given a Softmax or Transpose between two Reshapes that undo each other. Result: the operator alone."""

    name = "without_reshapes"

    def __call__(self, model: ModelProto) -> ModelProto:
        """Remove from `model`, in place, the Reshapes around each Softmax or Transpose that does not need them."""
        index = self._index(model.graph)
        nodes: list[NodeProto] = []
        for node in model.graph.node:
            found = match_reshaped(index, node)
            if found is None:
                nodes.append(node)
                continue
            index.build.put(found.op_type, [found.x], [node.output[0]], **found.attributes)
            nodes += index.take()
            self._report.change(self.name, label(node), f"{found.op_type} without its Reshapes")
        index.replace(nodes)
        return model
