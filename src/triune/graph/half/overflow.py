"""Find nodes whose results may leave fp16's range although their operands are within it."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto

from triune.graph.half.bounds import Bounds
from triune.graph.half.chains import factor_of
from triune.graph.half.constant_sizes import ConstantSizes
from triune.graph.half.exact import exact_producers
from triune.graph.half.intervals import magnitude
from triune.graph.half.levels import is_integral, is_of_integer_products
from triune.graph.half.limits import LARGEST, SMALLEST_INVERTED, SMALLEST_NORMAL, sizes_within
from triune.graph.half.near_zero import is_of_small
from triune.graph.half.operators import GROW_INTEGERS, MATRIX_PRODUCTS, READ_DIVISORS, SATURATING, TOTALS
from triune.graph.half.producers import Producers
from triune.graph.half.products import may_leave
from triune.graph.half.ranges import NONE, WIDE_INTEGERS, Range, Ranges

_ORDINARY = 512.0
"""The assumed absolute value of activations of unknown size."""

_ACTIVATION = 255.0
"""The assumed absolute value of activations that a layer's weights multiply."""

_INTEGERS = (TensorProto.INT32, TensorProto.INT64)
_LEVELS = (TensorProto.INT16, TensorProto.UINT16, TensorProto.INT32)
"""Integer types whose quantization levels fp16 cannot all represent: it skips integers beyond 2048, and ends at
65504.
"""


class Overflow:
    """Finds whether one node's results may leave fp16's range, and why."""

    def __init__(
        self,
        node: NodeProto,
        bounds: Bounds,
        constant_sizes: ConstantSizes,
        producers: Producers,
        operand_ranges: Sequence[Ranges],
    ) -> None:
        """`operand_ranges` has the ranges of each operand."""
        self._node = node
        self._values = producers.values
        self._bounds = bounds
        self._constant_sizes = constant_sizes
        self._producers = producers
        self._operand_ranges = operand_ranges

    def constant(self, name: str) -> NDArray[np.float32] | None:
        """The value of a constant of floats; None for any other value."""
        if not name or self._values.elem_type(name) != TensorProto.FLOAT:
            return None
        return self._values.constant(name)

    def is_constant(self, position: int) -> bool:
        """Whether an operand is a constant."""
        return self._values.tensor(self._node.input[position]) is not None

    def newly_entered(self, given: Ranges) -> tuple[Ranges, str]:
        """The ranges beyond fp16 into which this node brings values from within fp16, and why; `NONE` and "" if it
        brings none.

        `given` is the union of the operands' ranges.
        """
        node, bounds = self._node, self._bounds
        first = bounds.of(node.input[0]) if node.input else (0.0, 0.0)
        size = magnitude(first)
        match node.op_type:
            case "Exp" if first[1] > 11:
                return frozenset([Range.LARGE]), "its results may be beyond fp16"
            case "Sinh" | "Cosh" if size > 11:
                return frozenset([Range.LARGE]), "its results may be beyond fp16"
            case "Softplus" if first[1] > 11:
                return NONE, "exponentials may be beyond fp16"
            case "Mul" if node.input[0] == node.input[1]:
                return self._square(size * size)
            case "Mul" if not given and self._is_scalar_product():
                return self._square(size * magnitude(bounds.of(node.input[1])))
            case "Pow" if not is_of_small(node, self._producers):
                return self._power(size)
            case "ReduceProd" if size > 1:
                return frozenset([Range.LARGE]), "its results may be beyond fp16"
            case "ReduceSum" | "CumSum":
                num = bounds.count(node) if node.op_type == "ReduceSum" else self._length()
                # If the sum of x is a divisor, assume that elements of x are as large as fp16 allows: the result of x /
                # sum(x) does not tell how large x is.
                is_divisor = self._producers.end_in(node.output[0], READ_DIVISORS)
                ordinary = LARGEST if is_divisor else _ORDINARY
                if not given and num * min(size, ordinary if size == np.inf else size) > LARGEST:
                    return frozenset([Range.SUM]), "sums may be beyond fp16"
            case "MatMul" | "Gemm" | "Conv" if all(is_integral(name, self._producers) for name in node.input[:2]):
                return frozenset([Range.INTEGER]), "sums of integers may be beyond fp16"
            case op if op in MATRIX_PRODUCTS and may_leave(node, self._producers, _ORDINARY, _ACTIVATION):
                return frozenset([Range.LARGE]), "sums of products may be beyond fp16"
            case "Cast" if self._is_of_integers() and is_of_integer_products(node.input[0], self._producers):
                return frozenset([Range.INTEGER]), "sums of integers may be beyond fp16"
            case "Cast" if self._is_of_given_integers():
                return frozenset([Range.LARGE]), "integer inputs may be beyond fp16"
            case "Cast" if self._is_of_known_integers():
                return frozenset([Range.LARGE]), "integers may be beyond fp16"
            case "Cast" if self._is_of_large_integers():
                return frozenset([Range.SUM]), "sums of integers may be beyond fp16"
            case "QuantizeLinear" | "DequantizeLinear":
                return self.levels()
            case "Reciprocal" | "Div" | "Pow" if is_of_small(node, self._producers):
                return frozenset([Range.INVERSE]), "its divisor may be too small for fp16"
            case "Sin" | "Cos" | "Tan" if size > 8 and exact_producers(node, self._producers):
                return NONE, "fp16 is not exact enough for large angles"
            case "Add" | "Sub" | "Mul" | "Div" if self._leaves_fp16():
                return frozenset([Range.LARGE]), "its results may be beyond fp16"
            case _:
                pass
        return NONE, ""

    def is_too_small(self) -> bool:
        """Whether all results are below fp16's smallest normal number, according to their bounds or to successive
        constant factors.
        """
        node = self._node
        if node.op_type not in ("Mul", "Div") or self._values.elem_type(node.output[0]) != TensorProto.FLOAT:
            return False
        size = magnitude(self._bounds.of(node.output[0]))
        return 0 < size < SMALLEST_NORMAL or factor_of(node.output[0], self._producers) < SMALLEST_INVERTED

    def levels(self) -> tuple[Ranges, str]:
        """Returns `NONE`, and a reason to compute in fp32 if the node reads or writes quantization levels of more than
        8 bits, else "".
        """
        node = self._node
        kinds = {"DequantizeLinear": node.input, "QuantizeLinear": node.output}
        is_wide = any(self._values.elem_type(name) in _LEVELS for name in kinds.get(node.op_type, ())[:1])
        return NONE, "integers of more than 8 bits may be beyond fp16" if is_wide else ""

    def _leaves_fp16(self) -> bool:
        """Whether bounds or constants show that operands within fp16 may give results beyond it."""
        names, result = self._node.input, self._node.output[0]
        size = magnitude(self._bounds.of(result))
        if size <= LARGEST:
            return False
        is_large = np.inf > size and all(magnitude(self._bounds.of(name)) <= LARGEST for name in names)
        return (
            is_large
            or self._factor() * _ACTIVATION > LARGEST
            or self._constant_sizes.of(result) > LARGEST >= max(self._constant_sizes.of(name) for name in names)
        )

    def _factor(self) -> float:
        """The largest constant factor by which a node multiplies a value; 0 where there is none."""
        node = self._node
        if node.op_type == "Mul":
            found = [array for name in node.input if (array := self.constant(name)) is not None]
            return (sizes_within(found[0]) or (0.0, 0.0))[1] if found else 0.0
        divisor = self.constant(node.input[1]) if node.op_type == "Div" else None
        sizes = None if divisor is None else sizes_within(divisor)
        return 1 / sizes[0] if sizes else 0.0

    def _is_of_known_integers(self) -> bool:
        """Whether the node casts integers with known bounds (indices, elements of a constant) that may be beyond
        fp16.
        """
        ends = [abs(end) for end in self._bounds.of(self._node.input[0])]
        return self._is_of_integers() and any(LARGEST < end < np.inf for end in ends)

    def _is_of_large_integers(self) -> bool:
        """Whether the node casts sums or products of integers that may be beyond fp16."""
        node = self._node
        producer = self._producers.of(node.input[0])
        if producer is None or self._values.elem_type(node.output[0]) != TensorProto.FLOAT:
            return False
        if (
            magnitude(self._bounds.of(node.input[0])) <= LARGEST
            or self._values.elem_type(node.input[0]) not in _INTEGERS
        ):
            return False
        return producer.op_type in GROW_INTEGERS or (
            producer.op_type == "Cast" and bool(exact_producers(producer, self._producers))
        )

    def _is_of_integers(self) -> bool:
        return self._values.elem_type(self._node.input[0]) in WIDE_INTEGERS

    def _is_of_given_integers(self) -> bool:
        is_input = self._is_of_integers() and Range.LARGE in self._operand_ranges[0]
        return is_input and self._producers.is_scaled_down(self._node.output[0])

    def _is_scalar_product(self) -> bool:
        """Whether the node multiplies two values that are not constants, and only sums or means read the result, as in
        a dot product.
        """
        is_computed = not self.is_constant(0) and not self.is_constant(1)
        return is_computed and self._producers.are_read_by(self._node.output[0], TOTALS)

    def _power(self, size: float) -> tuple[Ranges, str]:
        exponent = self._values.constant(self._node.input[1])
        if exponent is None or exponent.size != 1:
            return frozenset([Range.LARGE]), "its results may be beyond fp16"
        power = float(exponent.reshape(-1)[0])
        if power < -1 and magnitude(self._bounds.of(self._node.output[0])) > LARGEST:
            return frozenset([Range.LARGE]), "its results may be beyond fp16"
        if power <= 1:
            return NONE, ""
        return self._square(np.inf if size == np.inf else float(np.float64(size) ** power))

    def _square(self, size: float) -> tuple[Ranges, str]:
        if size <= LARGEST or self._producers.end_in(self._node.output[0], SATURATING):
            return NONE, ""
        return frozenset([Range.SQUARE]), "squares may be beyond fp16"

    def _length(self) -> float:
        shape = self._values.shape(self._node.input[0])
        known = [size for size in shape or () if size is not None]
        return max(known, default=0) if shape is not None and len(known) == len(shape) else np.inf
