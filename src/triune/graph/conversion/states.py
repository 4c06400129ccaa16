"""Inputs that become states of a program: buffers that it keeps from call to call."""

from collections.abc import Mapping

from onnx import GraphProto, ValueInfoProto

from triune.core.errors import InvalidArgumentError
from triune.graph.conversion.shapes import inputs_of, listed


def next_values(graph: GraphProto, states: Mapping[str, str]) -> set[str]:
    """Check that inputs may become states; returns the outputs that are the states' next values.

    Args:
        graph: the graph.
        states: inputs that become states, each with the output that is its next value.

    Raises:
        InvalidArgumentError: there is no such input or output, their shapes differ or are not fixed, or two states have
            the same next value.
    """
    inputs = {value.name: value for value in inputs_of(graph)}
    outputs = {value.name: value for value in graph.output}
    for name, output in states.items():
        if name not in inputs:
            raise InvalidArgumentError(f"there is no input '{name}' to be a state; the inputs are {listed(inputs)}")
        if output not in outputs:
            raise InvalidArgumentError(
                f"there is no output '{output}' to be the next value of state '{name}'; the outputs are "
                f"{listed(outputs)}"
            )
        before, after = (_static_shape(value) for value in (inputs[name], outputs[output]))
        if before is None or (after is not None and after != before):
            raise InvalidArgumentError(
                f"state '{name}' is {_shown(inputs[name])}, its next value '{output}' {_shown(outputs[output])}; "
                "a state has one fixed shape"
            )
    following = set(states.values())
    if len(following) < len(states):
        raise InvalidArgumentError(f"two states have the same next value; the states are {listed(states)}")
    return following


def _static_shape(value: ValueInfoProto) -> tuple[int, ...] | None:
    dims = value.type.tensor_type.shape.dim
    return tuple(dim.dim_value for dim in dims) if all(dim.HasField("dim_value") for dim in dims) else None


def _shown(value: ValueInfoProto) -> str:
    dims = value.type.tensor_type.shape.dim
    dims = [str(dim.dim_value) if dim.HasField("dim_value") else dim.dim_param or "?" for dim in dims]
    return f"[{', '.join(dims)}]"
