"""Initializers that a model lists among its inputs: constants in old files, defaults of inputs in newer ones."""

from onnx import GraphProto, ModelProto

OVERRIDABLE_FROM_IR = 4
"""From this IR version on, an initializer that is also an input is the input's default. Before, every initializer had
to be an input.
"""


def free_initializers(model: ModelProto) -> None:
    """Change a model of an old IR version to the first in which initializers need not be inputs.

    Its initializers stay constants, since ONNX Runtime lets no caller of a model of an old IR version give them.
    """
    if model.ir_version < OVERRIDABLE_FROM_IR:
        make_constants(model.graph)
        model.ir_version = OVERRIDABLE_FROM_IR


def make_constants(graph: GraphProto) -> None:
    """Take the initializers of a graph out of its inputs, so that they are constants."""
    names = {tensor.name for tensor in graph.initializer}
    if names.isdisjoint(value.name for value in graph.input):
        return
    inputs = [value for value in graph.input if value.name not in names]
    del graph.input[:]
    graph.input.extend(inputs)
