"""Find large absolute values that constants (masks of -10000, offsets, padding) give to some elements of a tensor.

`Bounds` finds an upper limit for all elements, and there is none for `Where(mask, -10000, x)` if x is not known.
`ConstantSizes` finds that some of its elements have the absolute value 10000.
"""

import math

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, numpy_helper

from triune.graph.half.bounds import MOST_ELEMENTS
from triune.graph.half.operators import COPIES, MERGES
from triune.graph.values import Values, attributes_of

_MASK = 2048.0
"""A constant of at least this absolute value is assumed to be a mask, whose product with an unknown factor is beyond
fp16's range: 2048 * 32 = 65536.
"""

_UNKNOWN = 32.0
"""The assumed absolute value of an unknown factor that multiplies a mask."""


class ConstantSizes:
    """The largest absolute values that constants give to elements of a graph's tensors.

    Call `learn` with every node, in the graph's order.
    """

    def __init__(self, values: Values, outer: "ConstantSizes | None" = None) -> None:
        """For a subgraph, `outer` is the `ConstantSizes` of the graph around it."""
        self._values = values
        self._outer = outer
        self._found: dict[str, float] = {}

    def of(self, name: str) -> float:
        """The largest finite absolute value that a constant gives to some element of the tensor `name`; 0 if none
        does.
        """
        if name not in self._found:
            tensor = self._values.tensor(name)
            if tensor is None:
                return 0.0 if self._outer is None else self._outer.of(name)
            is_small = 0 < math.prod(tensor.dims) <= MOST_ELEMENTS
            self._found[name] = _largest(self._values.constant(name)) if is_small else 0.0
        return self._found[name]

    def learn(self, node: NodeProto) -> None:
        """Find the largest absolute values in a node's results from those in its operands."""
        size = self._computed(node)
        self._found.update((name, size) for name in node.output if name)

    def _computed(self, node: NodeProto) -> float:
        sizes = [self.of(name) if name else 0.0 for name in node.input]
        match node.op_type:
            case op if op in COPIES:
                return sizes[0]
            case op if op in MERGES:
                chosen = [self._of_float(name) for name in node.input if name]
                return max(chosen, default=0.0)
            case "ConstantOfShape":
                value = attributes_of(node).get("value")
                return 0.0 if value is None else _largest(numpy_helper.to_array(value))
            case "Add" | "Sub":
                return sum(sizes)
            case "Mul":
                if all(sizes):
                    return sizes[0] * sizes[1]
                return max(self._of_unknown_factor(name) for name in node.input)
            case "Div":
                divisor = self._values.constant(node.input[1])
                if divisor is None:
                    return self._of_unknown_factor(node.input[0])
                least = float(np.abs(divisor.astype(np.float64)).min(initial=np.inf))
                return sizes[0] / least if least > 0 else 0.0
            case _:
                return 0.0

    def _of_float(self, name: str) -> float:
        """The largest absolute value (`of`) of an operand of floats; 0 for conditions, indices and padding widths,
        which do not become elements of the result.
        """
        return self.of(name) if self._values.elem_type(name) == TensorProto.FLOAT else 0.0

    def _of_unknown_factor(self, name: str) -> float:
        """The largest absolute value that a mask is assumed to have after a product with an unknown factor; 0 if the
        value `name` is a constant, or too small for a mask.
        """
        size = 0.0 if self._values.tensor(name) is not None else self.of(name)
        return size * _UNKNOWN if size >= _MASK else 0.0


def _largest(array: NDArray[np.generic] | None) -> float:
    if array is None or array.dtype.kind not in "biuf":
        return 0.0
    sizes = np.abs(array.astype(np.float64))
    return float(np.max(sizes, where=np.isfinite(sizes), initial=0.0))
