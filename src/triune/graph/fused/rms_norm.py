"""Fuse root mean square normalization into one operation."""

from collections.abc import Iterator, Sequence

from onnx import NodeProto, TensorProto, helper, numpy_helper

from triune.core.errors import InternalError
from triune.graph.fused.call import RESULT, FusedCall, renamed
from triune.graph.fused.pattern import FusePattern
from triune.graph.index import Index
from triune.graph.match.rms_norm import RmsNorm, match_rms_norm


class FuseRmsNorm(FusePattern):
    """Given x * (mean(x * x) + eps)^-0.5 * scale with a mean over the last axis. Result: `rms_norm`.

    The norm may be computed in fp32, between casts.
    """

    name = "fuse_rms_norm"

    def calls(self, index: Index) -> Iterator[FusedCall]:
        """Yield a call for each normalization in the graph."""
        for node in index.graph.node:
            found = match_rms_norm(index, node)
            if found is not None:
                operands = {"input": found.x, "scale": found.scale}
                settings = {"axes": [-1], "eps": found.epsilon}
                yield FusedCall("rms_norm", node, operands, _body(index, found, node.output[0]), settings)


def _body(index: Index, found: RmsNorm, output: str) -> list[NodeProto]:
    nodes = list(found.nodes)
    if found.computed_as != found.x:
        nodes = [helper.make_node("Cast", [found.x], [found.computed_as], to=TensorProto.FLOAT), *nodes]
    # All other operands of the nodes are constants: epsilon, axes, exponents.
    names = {found.x: "input", found.scale: "scale", output: RESULT}
    return [*_constants(index, nodes, set(names)), *renamed(nodes, names)]


def _constants(index: Index, nodes: Sequence[NodeProto], operands: set[str]) -> list[NodeProto]:
    made = {name for node in nodes for name in node.output}
    needed = dict.fromkeys(name for node in nodes for name in node.input if name not in made | operands)
    constants: list[NodeProto] = []
    for name in needed:
        array = index.constant(name)
        if array is None:
            raise InternalError(f"'{name}' in an RMS normalization is not a constant")
        constants.append(helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array, name)))
    return constants
