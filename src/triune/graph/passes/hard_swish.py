"""Replace x * clip(x + 3, 0, 6) / 6 by HardSwish(x)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from triune.graph.names import Names
from triune.graph.passes.run import GraphPass
from triune.graph.values import Values, names_read, subgraphs_of
from triune.graph.weight_files import array_of

_NEAR = float(np.finfo(np.float32).eps)
"""The allowed error of b - a = 3 in (z + a) * clip(z + b, 0, 6), relative to the larger of a and b: compilers have
rounded both to fp32.
"""


class HardSwish(GraphPass):
    """Given x * clip(x + 3, 0, 6) in fp32, or (z + a) * clip(z + b, 0, 6) with b - a = 3. Result: 6 * HardSwish(x).

    The constants leave the shape of x as it is.

    Compilers such as Core AI's fold constants into the activation, so that runtimes no longer recognize it and do not
    use their fast kernel. If a Mul by a constant follows, its constant is multiplied by 6, and no other Mul is added.
    """

    name = "hard_swish"

    def __call__(self, model: ModelProto) -> ModelProto:
        """Write HardSwish in place of the pattern in `model`, which is changed.

        New values have no types yet. `Tidy` removes values that no node reads any more.
        """
        _Search(model.graph, None, Names(model.graph)).replace()
        return model


class _Search:
    """Finds and replaces the pattern in one graph."""

    def __init__(self, graph: GraphProto, outer: Values | None, names: Names) -> None:
        self._graph = graph
        self._names = names
        self._values = Values(graph, outer)
        self._producers = {name: node for node in graph.node for name in node.output if name}
        self._kept = {value.name for value in graph.output}
        for node in graph.node:
            for inner in subgraphs_of(node):
                self._kept |= names_read(inner)

    def replace(self) -> None:
        """Replace every occurrence of the pattern, in subgraphs too."""
        nodes: list[NodeProto] = []
        for node in self._graph.node:
            for inner in subgraphs_of(node):
                _Search(inner, self._values, self._names).replace()
            x = self._operand(node)
            nodes += [node] if x is None else self._replacement(node, x)
        copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del self._graph.node[:]
        self._graph.node.extend(copies)

    def _operand(self, node: NodeProto) -> str | None:
        """The name of x if the Mul `node` is x * clip(x + 3, 0, 6); else None."""
        if node.op_type != "Mul":
            return None
        for x, clipped in ((node.input[0], node.input[1]), (node.input[1], node.input[0])):
            clip = self._producer(clipped, "Clip")
            if clip is None or [self._scalar(name) for name in clip.input[1:]] != [0.0, 6.0]:
                continue
            base, shift = self._sum_with_constant(x)
            other, further = self._sum_with_constant(clip.input[0])
            # The first condition is for x * clip(x + 3, 0, 6), the second for (z + a) * clip(z + b, 0, 6).
            if other == x and _is_three(further, np.zeros((), np.float32)) and self._is_within(further, x):
                return x
            if (
                base == other
                and _is_three(further, shift)
                and (further.shape == shift.shape or self._is_within(further, x))
            ):
                return x
        return None

    def _sum_with_constant(self, name: str) -> tuple[str, NDArray[Any]]:
        """Read a value as (other value, constant) if it is their sum; otherwise as (itself, 0)."""
        node = self._producer(name, "Add")
        if node is not None:
            for value, by in ((node.input[0], node.input[1]), (node.input[1], node.input[0])):
                constant = self._values.constant(by)
                if constant is not None and constant.dtype == np.float32:
                    return value, constant
        return name, np.zeros((), np.float32)

    def _is_within(self, constant: NDArray[Any], x: str) -> bool:
        """Whether adding a constant to a value leaves the value's shape unchanged."""
        shape = self._values.shape(x)
        if not constant.ndim or shape is None:
            return not constant.ndim
        sizes = zip(reversed(constant.shape), reversed(shape), strict=False)
        return constant.ndim <= len(shape) and all(own in (1, size) for own, size in sizes)

    def _replacement(self, node: NodeProto, x: str) -> list[NodeProto]:
        (result,) = node.output
        swish, factor_name = (self._names.value(f"{result}/{part}") for part in ("swish", "factor"))
        readers = [each for each in self._graph.node if result in each.input]
        factor = 6.0
        if len(readers) == 1 and readers[0].op_type == "Mul" and result not in self._kept:
            reader = readers[0]
            position = list(reader.input).index(result)
            scale = self._values.constant(reader.input[1 - position])
            if scale is not None and scale.size == 1 and scale.dtype == np.float32:
                # Multiply the constant of the Mul that follows by 6.
                reader.input[position] = swish
                reader.input[1 - position] = self._constant(factor_name, scale * np.float32(factor))
                return [helper.make_node("HardSwish", [x], [swish], name=swish)]
        constant = self._constant(factor_name, np.float32(factor))
        return [
            helper.make_node("HardSwish", [x], [swish], name=swish),
            helper.make_node("Mul", [swish, constant], [result], name=node.name),
        ]

    def _constant(self, name: str, value: Any) -> str:
        self._graph.initializer.append(numpy_helper.from_array(np.asarray(value, np.float32), name))
        return name

    def _producer(self, name: str, op_type: str) -> NodeProto | None:
        node = self._producers.get(name)
        return node if node is not None and node.op_type == op_type else None

    def _scalar(self, name: str) -> float | None:
        tensor: TensorProto | None = self._values.tensor(name) if name else None
        if tensor is None or tensor.data_type != TensorProto.FLOAT:
            return None
        array = array_of(tensor)
        return float(array.reshape(())) if array.size == 1 else None


def _is_three(further: NDArray[Any], shift: NDArray[Any]) -> bool:
    if further.ndim and shift.ndim and further.shape != shift.shape:
        return False
    difference = further.astype(np.float64) - shift.astype(np.float64)
    return bool(np.all(np.abs(difference - 3) <= _NEAR * np.maximum(np.abs(further), np.abs(shift))))
