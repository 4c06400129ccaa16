"""Compute how often a Loop runs, if its condition depends only on constants and on the number of the step."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, ValueInfoProto, helper, numpy_helper

from triune.graph.check import evaluate
from triune.graph.core_ops import OPSET
from triune.graph.values import Values, attributes_of

_COUNTING = frozenset(
    [
        *("Add", "Sub", "Mul", "Neg", "Abs", "Min", "Max", "Cast", "CastLike"),
        *("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "And", "Or", "Xor", "Not", "Where"),
        *("Identity", "Constant", "Reshape", "Squeeze", "Unsqueeze", "Gather", "Slice"),
    ]
)
"""The operators that may compute the condition of a loop: operators that count and compare."""

_MOST_ELEMENTS = 64
"""A constant of more elements is not read: conditions count with small ones."""


def num_steps(loop: NodeProto, values: Values, most: int) -> int | None:
    """How often a Loop runs; None if that is not known, or if it is more than `most` times.

    Args:
        loop: a Loop of operator set `core_ops.OPSET`.
        values: the types, shapes and constants of the values that the Loop reads.
        most: the largest number of steps.
    """
    given = [*loop.input[:2], "", ""][:2]
    trips, condition = (values.constant(name) if name else None for name in given)
    if (given[0] and trips is None) or (given[1] and condition is None):
        return None
    limit = most + 1 if trips is None else int(trips.reshape(-1)[0])
    if limit <= 0 or (condition is not None and not condition.reshape(-1)[0]):
        return 0
    body: GraphProto = attributes_of(loop)["body"]
    if _is_always_true(body, values):
        return limit if limit <= most else None
    counting = _Counting(loop, body, values)
    if counting.graph is None:
        return None
    for step in range(min(limit, most)):
        if not counting.goes_on(step):
            return step + 1
    return limit if limit <= most else None


def _is_always_true(body: GraphProto, outer: Values) -> bool:
    """Whether a body's output condition is its input condition unchanged, or the constant true."""
    values, name = Values(body, outer), body.output[0].name
    producers = {output: node for node in body.node for output in node.output}
    while name in producers and producers[name].op_type == "Identity":
        name = producers[name].input[0]
    constant = values.constant(name)
    return name == body.input[1].name or (constant is not None and bool(constant.reshape(-1)[0]))


class _Counting:
    """The part of a Loop's body that computes its condition.

    `graph` is None if that part reads a value that is not known.
    """

    def __init__(self, loop: NodeProto, body: GraphProto, outer: Values) -> None:
        inner = Values(body, outer)
        producers = {name: node for node in body.node for name in node.output}
        carried = {value.name: index for index, value in enumerate(body.input[2:])}
        self.graph: GraphProto | None = None
        self._step, self._on = (value.name for value in body.input[:2])
        self._carried: dict[str, NDArray[Any]] = {}
        self._next: dict[str, str] = {}
        needed, seen = [body.output[0].name], set[str]()
        constants: dict[str, NDArray[Any]] = {}
        nodes: list[NodeProto] = []
        while needed:
            name = needed.pop()
            if not name or name in seen:
                continue
            seen.add(name)
            if name in carried:
                found = _small(outer, loop.input[2 + carried[name]])
                if found is None:
                    return
                self._carried[name] = found
                self._next[name] = body.output[1 + carried[name]].name
                needed.append(self._next[name])
            elif name in producers:
                node = producers[name]
                if node.op_type not in _COUNTING or node.domain not in ("", "ai.onnx"):
                    return
                nodes.append(node)
                needed += node.input
            elif name not in (self._step, self._on):
                found = _small(inner, name)
                if found is None:
                    return
                constants[name] = found
        wanted = {id(node) for node in nodes}
        self._outputs = list(dict.fromkeys([body.output[0].name, *self._next.values()]))
        self.graph = helper.make_graph(
            [node for node in body.node if id(node) in wanted],
            "counting",
            [_info(self._step, np.int64(0)), _info(self._on, np.bool_(True))]
            + [_info(name, array) for name, array in self._carried.items()],
            [helper.make_empty_tensor_value_info(name) for name in self._outputs],
            [numpy_helper.from_array(array, name) for name, array in constants.items()],
        )

    def goes_on(self, step: int) -> bool:
        """Compute a step; returns whether another step follows. Steps are computed in order."""
        assert self.graph is not None
        model = helper.make_model(self.graph, opset_imports=[helper.make_opsetid("", OPSET)])
        given = {self._step: np.array(step), self._on: np.array(True), **self._carried}
        found = dict(zip(self._outputs, evaluate(model, given), strict=True))
        self._carried = {name: found[result] for name, result in self._next.items()}
        return bool(found[self._outputs[0]].reshape(-1)[0])


def _small(values: Values, name: str) -> NDArray[Any] | None:
    shape = values.static_shape(name)
    if shape is None or int(np.prod(shape)) > _MOST_ELEMENTS:
        return None
    return values.constant(name)


def _info(name: str, array: NDArray[Any] | np.generic) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
