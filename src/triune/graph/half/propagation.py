"""Find which ranges beyond fp16 a node passes on from its operands to its results, and whether it must compute in
fp32.
"""

from collections.abc import Callable, Mapping

import numpy as np
from onnx import NodeProto, TensorProto

from triune.graph.half.bounds import Bounds
from triune.graph.half.constant_sizes import ConstantSizes
from triune.graph.half.limits import LARGEST, SMALLEST_INVERTED, SMALLEST_NORMAL, sizes_within
from triune.graph.half.operators import (
    COMPARISONS,
    FP32_BY_CONSTANTS,
    FUSED_VIEWS,
    FUSED_WITH_PREVIOUS,
    KEEP_SIZE,
    LIMITS,
    MATRIX_PRODUCTS,
    MULTIPLICATIONS,
    NORMALIZE_SIZE,
    QUANTIZERS,
    SATURATING,
    UNDO_SQUARES,
)
from triune.graph.half.overflow import Overflow
from triune.graph.half.producers import Producers
from triune.graph.half.ranges import HIGH, LOW, NONE, Range, Ranges
from triune.graph.values import Values

_FAR = 32.0
"""If the largest element is this many times as large as another element, the rounding of the smaller one does not
matter.
"""


class Propagation:
    """Computes the ranges of one node's results from the ranges of its operands."""

    def __init__(
        self,
        node: NodeProto,
        values: Values,
        bounds: Bounds,
        constant_sizes: ConstantSizes,
        ranges: Mapping[str, Ranges],
        producers: Producers,
    ) -> None:
        self._node = node
        self._values = values
        self._bounds = bounds
        self._producers = producers
        self._operand_ranges = [ranges.get(name, NONE) if self._is_relevant(name) else NONE for name in node.input]
        self._overflow = Overflow(node, bounds, constant_sizes, producers, self._operand_ranges)

    def _is_relevant(self, name: str) -> bool:
        """Whether the range of an operand affects the results. Integer operands, unless cast, are indices and do
        not.
        """
        is_of_integers = self._values.elem_type(self._node.output[0]) != TensorProto.FLOAT
        return is_of_integers or self._node.op_type == "Cast" or self._values.elem_type(name) == TensorProto.FLOAT

    def result(self) -> tuple[Ranges, str, bool]:
        """The ranges of the results, the reason if values leave fp16's range at this node (else ""), and whether the
        node must compute in fp32.
        """
        op = self._node.op_type
        given = NONE.union(*self._operand_ranges)
        if not self._is_of_floats():
            return (self._passed(given) if op in KEEP_SIZE or op in _RULES or op == "Range" else NONE), "", False
        if op == "Cast" and self._values.elem_type(self._node.input[0]) != TensorProto.FLOAT:
            given = NONE
        if op not in FUSED_WITH_PREVIOUS:
            given -= {Range.SETTLED}
        found, reason = self._constants()
        if not reason:
            made, reason = self._overflow.newly_entered(given)
            found |= made
        if not reason and not given & (LOW | HIGH) and self._overflow.is_too_small():
            found, reason = frozenset([Range.TINY]), "its results may be too small for fp16"
        if op in FP32_BY_CONSTANTS or op in SATURATING or not given | found:
            return NONE, reason, bool(reason)
        is_kept = bool(reason) or bool(given - ({Range.SUM, Range.GUARDED} if op in MATRIX_PRODUCTS else NONE))
        if op in NORMALIZE_SIZE or op in COMPARISONS or (op not in KEEP_SIZE and op not in _RULES):
            if op in MATRIX_PRODUCTS and found & {Range.INTEGER, Range.LARGE}:
                return found, reason, is_kept
            if Range.TINY in found and not given & HIGH and not self._adds_ordinary():
                return frozenset([Range.TINY]), reason, is_kept
            return (self._of_product(given) if op in MATRIX_PRODUCTS and is_kept else NONE), reason, is_kept
        if op not in FUSED_VIEWS:
            given -= {Range.SETTLED}
        return found | self._passed(given), reason, is_kept

    def _is_of_floats(self) -> bool:
        names = [*self._node.input, *self._node.output]
        return not names or any(self._values.elem_type(name) == TensorProto.FLOAT for name in names if name)

    def _of_product(self, given: Ranges) -> Ranges:
        """The ranges of a matrix product.

        `Range.SQUARE` if operands are squares and the result is read by a root, a logarithm or as a divisor, as in x /
        sqrt(conv(x * x) + 1); else `Range.SETTLED`.
        """
        is_brought_back = Range.SQUARE in given and self._producers.end_in(self._node.output[0], UNDO_SQUARES)
        return frozenset([Range.SQUARE if is_brought_back else Range.SETTLED])

    def _passed(self, given: Ranges) -> Ranges:
        rule = _RULES.get(self._node.op_type)
        if rule is not None:
            return rule(self, given)
        if self._node.op_type in ("Add", "Sub") and any(
            not each and not self._overflow.is_constant(position) for position, each in enumerate(self._operand_ranges)
        ):
            # The sum of a tiny operand and one of ordinary size is of ordinary size.
            return given - {Range.TINY}
        return given

    def _constants(self) -> tuple[Ranges, str]:
        """The ranges of the results, and the reason, if fp16 cannot represent a constant operand; else `NONE` and
        "".
        """
        op = self._node.op_type
        # A limit beyond fp16, such as Min(x, 1e9), has no effect on values within fp16.
        is_idle = op in LIMITS and not any(each & HIGH for each in self._operand_ranges)
        largest = np.inf if is_idle else LARGEST
        for position, name in enumerate(self._node.input):
            array = self._overflow.constant(name)
            if array is None or op in ("Resize", "Reshape", "Cast", "Shape") or (op == "Pow" and position == 1):
                continue
            sizes = sizes_within(array)
            if sizes is None:
                continue
            least, most = sizes
            # In a sum, a constant above 32752 is too large: with another number of its size the result is beyond fp16.
            if most > (largest / 2 if op in ("Add", "Sub") else largest):
                is_divisor = op == "Div" and position == 1
                return frozenset([Range.TINY if is_divisor else Range.LARGE]), f"{_three_digits(most)} is beyond fp16"
            size = least if op == "Div" and position == 1 else most
            if size < SMALLEST_INVERTED or self._is_subnormal(least, most):
                return self._ranges_of_small_constant(position), f"{_three_digits(least)} is too small for fp16"
        return NONE, ""

    def _is_subnormal(self, least: float, most: float) -> bool:
        """Whether a constant has factors that are subnormal in fp16 (below 6.1e-5), which compilers may round to 0.

        For instance, Core AI (1.0.0b3) makes 2e-7 of 3e-5 when it multiplies constants. Subnormal factors do not matter
        if the largest factor of the constant is far larger.
        """
        op = self._node.op_type
        if least >= SMALLEST_NORMAL:
            return False
        return (
            op in QUANTIZERS
            or (op in MULTIPLICATIONS and most < _FAR * SMALLEST_NORMAL)
            or (op in MATRIX_PRODUCTS and most < SMALLEST_NORMAL)
        )

    def _adds_ordinary(self) -> bool:
        """Whether the node, a layer or a normalization, adds a bias that is of ordinary size or not known."""
        if len(self._node.input) < 3 or not self._node.input[2]:
            return False
        bias = self._overflow.constant(self._node.input[2])
        return bias is None or (sizes_within(bias) or (0.0, 0.0))[1] >= SMALLEST_NORMAL

    def _ranges_of_small_constant(self, position: int) -> Ranges:
        match self._node.op_type:
            case "Div":
                return frozenset([Range.LARGE if position == 1 else Range.TINY])
            case "Mul" | "MatMul" | "Gemm" | "Conv" | "ConvTranspose":
                return frozenset([Range.TINY])
            case "LayerNormalization" | "InstanceNormalization" | "BatchNormalization" if position == 1:
                return frozenset([Range.TINY])
            case _:
                return frozenset([Range.GUARDED])

    def multiply(self, given: Ranges) -> Ranges:
        """The ranges of a product.

        A large number times a tiny one is taken to be of ordinary size, as is x * (1 / y), where x is about as large as
        y.
        """
        given = self._after_last_scale(given)
        one, other = self._operand_ranges
        constants = [self._overflow.constant(name) for name in self._node.input]
        for position, array in enumerate(constants):
            if array is not None and array.size:
                _, most = sizes_within(array) or (0.0, 0.0)
                extra = NONE
                if most > LARGEST:
                    extra = frozenset([Range.LARGE])
                elif 0 < most < SMALLEST_INVERTED:
                    extra = frozenset([Range.TINY])
                one, other = (one | extra, other) if position == 0 else (one, other | extra)
        if (Range.TINY in one and other & HIGH) or (Range.TINY in other and one & HIGH):
            return NONE
        for each, rest, position in ((one, other, 1), (other, one, 0)):
            if Range.INVERSE in each and not rest and not self._overflow.is_constant(position):
                return NONE
        return given

    def _after_last_scale(self, given: Ranges) -> Ranges:
        """Remove `Range.INTEGER` from the ranges if no Mul or Div reads this node's result: then this node multiplies a
        sum of integers by the last of its scales, and the result is within fp16.
        """
        is_last = not self._producers.are_read_by(self._node.output[0], ("Mul", "Div"))
        return given - {Range.INTEGER} if is_last else given

    def divide(self, given: Ranges) -> Ranges:
        """The ranges of a quotient.

        If both operands are large, the quotient is of ordinary size. 1 / x is large if x may be near 0.
        """
        one, other = (self._after_last_scale(each) for each in self._operand_ranges)
        if other & LOW and self._overflow.is_constant(0):
            return frozenset([Range.INVERSE])
        return one - HIGH if other & HIGH else one | (given & {Range.GUARDED} if one & LOW else NONE)

    def invert(self, given: Ranges) -> Ranges:
        """The ranges of 1 / x."""
        return frozenset([Range.INVERSE]) if given & LOW else NONE

    def root(self, given: Ranges) -> Ranges:
        """The ranges of a square root, which is within fp16 even if its operand is a square or a sum beyond it."""
        return given - {Range.SQUARE, Range.SUM, Range.LARGE} | {Range.SETTLED}

    def raise_to(self, given: Ranges) -> Ranges:
        """The ranges of the result of Pow: those of the operand, of a root if the exponent is below 1, or of an inverse
        if it is negative. An unknown exponent counts as 2.
        """
        exponent = self._values.constant(self._node.input[1])
        power = float(exponent.reshape(-1)[0]) if exponent is not None and exponent.size == 1 else 2.0
        if power < 0:
            return self.invert(given)
        return self.root(given) if power < 1 else given

    def exponential(self, given: Ranges) -> Ranges:
        """The ranges of an exponential: exp of a number near 0 is near 1, so `Range.TINY` and `Range.GUARDED` are
        removed.
        """
        return given & HIGH


_RULES: Mapping[str, Callable[[Propagation, Ranges], Ranges]] = {
    "Mul": Propagation.multiply,
    "Div": Propagation.divide,
    "Reciprocal": Propagation.invert,
    "Sqrt": Propagation.root,
    "Pow": Propagation.raise_to,
    "Exp": Propagation.exponential,
    "Sinh": Propagation.exponential,
    "Cosh": Propagation.exponential,
    "ReduceProd": Propagation.exponential,
}


def _three_digits(value: float) -> str:
    return f"{value:.3g}"
