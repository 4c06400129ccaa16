"""Find states to which each call adds something. Core ML's states are fp16, so that a small addition is lost."""

from collections.abc import Mapping

from onnx import GraphProto, TensorProto

from triune.graph.conversion.prepare import some
from triune.graph.values import Values

_COPIES = frozenset(["Identity", "Cast", "Reshape", "Squeeze", "Unsqueeze", "Clip", "Max", "Min", "Relu"])
_SCALES = frozenset(["Mul", "Div"])
_SUMS = frozenset(["Add", "Sub"])

_MOST_NODES = 32
"""The most values that a search visits."""


def accumulating_note(graph: GraphProto, states: Mapping[str, str]) -> list[str]:
    """A list of one note for the user, with the names of the states that accumulate; [] if there are none.

    Args:
        graph: a graph in core ops.
        states: inputs of the graph, each with the output that is its next value.
    """
    found = [state for state, following in states.items() if _accumulates(graph, state, following)]
    if not found:
        return []
    return [
        f"Core ML's states are fp16, and each call adds to {some(found)}: what is smaller than 1/4096 of the state is "
        "lost. A count stops at 2048, and an average that moves by 1/1000 in each call stops before it is reached. "
        "If that matters, keep the state as an input and an output, or convert to .aimodel, whose states are fp32"
    ]


def _accumulates(graph: GraphProto, state: str, following: str) -> bool:
    """Whether the next value of a state of floats is the state plus something, perhaps times a constant."""
    values = Values(graph)
    if values.elem_type(state) not in (TensorProto.FLOAT, TensorProto.FLOAT16):
        return False
    makers = {name: node for node in graph.node for name in node.output}
    # Pairs: a value from which to search backwards, and whether an addition is between it and the state's next value.
    waiting = [(following, False)]
    for _ in range(_MOST_NODES):
        if not waiting:
            break
        name, is_sum = waiting.pop()
        if name == state and is_sum:
            return True
        node = makers.get(name)
        if node is None:
            continue
        if node.op_type in _SUMS:
            waiting += [(each, True) for each in node.input]
        elif node.op_type in _SCALES and any(values.tensor(each) is not None for each in node.input):
            waiting += [(each, is_sum) for each in node.input]
        elif node.op_type in _COPIES:
            waiting.append((node.input[0], is_sum))
    return False
