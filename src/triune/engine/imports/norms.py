"""Replaces ONNX Runtime's own norm operators by standard ones, which runtimes compute as one operation."""

from onnx import ModelProto, NodeProto

from triune.core.errors import InvalidArgumentError
from triune.graph.builder import Builder
from triune.graph.names import Names
from triune.graph.passes.n_bits import DOMAIN
from triune.graph.passes.run import GraphPass
from triune.graph.values import attributes_of


class Norms(GraphPass):
    """Given SimplifiedLayerNormalization and SkipSimplifiedLayerNormalization. Result: RMSNormalization; for the second
    operator, after the Add of its inputs.
    """

    name = "norms"

    def __call__(self, model: ModelProto) -> ModelProto:
        """Replace ONNX Runtime's norm operators in `model`, which is changed in place, and return it. Its operator set
        must have RMSNormalization.

        Raises:
            InvalidArgumentError: a node lacks an operand.
        """
        build = Builder(Names(model.graph).prefix("norms"))
        nodes: list[NodeProto] = []
        for node in model.graph.node:
            is_plain = node.op_type == "SimplifiedLayerNormalization" and len(node.output) == 1
            is_skip = node.op_type == "SkipSimplifiedLayerNormalization" and node.domain == DOMAIN
            # Nodes whose mean or deviation (outputs 1 and 2) is read are left to the general decomposition.
            if not is_plain and not (is_skip and not any(node.output[1:3])):
                nodes.append(node)
                continue
            if len(node.input) < 2:
                raise InvalidArgumentError(
                    f"{node.op_type} '{node.name or node.output[0]}' of the decoder has no scale: export it again"
                )
            flags, x = attributes_of(node), node.input[0]
            if is_skip:
                x = build.op("Add", x, node.input[1])
                if len(node.input) > 3 and node.input[3]:
                    x = build.op("Add", x, node.input[3])
                if len(node.output) > 3 and node.output[3]:
                    build.put("Identity", [x], [node.output[3]])
            scale = node.input[2 if is_skip else 1]
            epsilon, axis = float(flags.get("epsilon", 1e-5)), int(flags.get("axis", -1))
            build.put("RMSNormalization", [x, scale], node.output[:1], axis=axis, epsilon=epsilon)
            nodes += build.nodes
            build.nodes = []
        copies = [NodeProto.FromString(each.SerializeToString()) for each in nodes]
        del model.graph.node[:]
        model.graph.node.extend(copies)
        return model
