"""Which nodes fp16 cannot compute: their constants, or what they make, are not within its range."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import Enum, auto

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto

from triune.graph.half.bounds import Bounds, magnitude
from triune.graph.half.exact import Makers, exact_makers, score_makers, small_makers, square_partners, variance_makers
from triune.graph.half.levels import is_of_whole_products, is_whole, level_makers, scale_partners
from triune.graph.half.limits import LARGEST, SMALLEST_INVERTED, sizes_within
from triune.graph.half.reach import Reach
from triune.graph.values import Values, subgraphs_of


class Range(Enum):
    """In which way the values of a tensor may be beyond fp16."""

    GUARDED = auto()
    """Above 0, by a number so small that fp16 has it not: x + 1e-12."""
    TINY = auto()
    """All of it small: x * 1e-9."""
    LARGE = auto()
    """Beyond 65504: exponentials, x * 1e9."""
    SQUARE = auto()
    """Beyond 65504, as squares of numbers within fp16 are."""
    INVERSE = auto()
    """Beyond 65504, as the inverse of a guarded number may be."""
    SUM = auto()
    """Beyond 65504 perhaps, as sums of many numbers are."""
    WHOLE = auto()
    """Beyond 65504, as sums of products of whole numbers are, which scales bring back."""
    SETTLED = auto()
    """Within fp16, but made in fp32 by a node that compilers join with the next: 1 / sqrt(x) is one operation."""


_Ranges = frozenset[Range]
_NONE: _Ranges = frozenset()
_HIGH = frozenset([Range.LARGE, Range.SQUARE, Range.INVERSE, Range.SUM, Range.WHOLE])
_LOW = frozenset([Range.GUARDED, Range.TINY])

_ORDINARY = 512.0
"""How large activations are taken to be where nothing is known of them."""

_ACTIVATION = 255.0
"""How large what a constant multiplies is taken to be."""

_SUMS = frozenset(["ReduceSum", "CumSum"])
_COMPARES = frozenset(["Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"])
_PRODUCTS = frozenset(["MatMul", "Gemm", "Conv", "ConvTranspose"])
_NORMS = frozenset(["Softmax", "LayerNormalization", "InstanceNormalization", "BatchNormalization"])
_SETTLES = _PRODUCTS | _NORMS | {"Log"}
"""Operators whose results are ordinary numbers again."""

_SATURATES = frozenset(["Sigmoid", "HardSigmoid", "Tanh", "Erf", "Softsign"])
"""Operators to which infinite is no more than large."""

_BRINGS_BACK = frozenset(["Sqrt", "Div", "Reciprocal", "Log"])
_DIVIDES = _BRINGS_BACK | {"Clip", "Max", "Where", "Equal"}
"""A divisor may be kept from 0 on its way."""

_TOTALS = frozenset(["ReduceSum", "ReduceMean"])

_VIEWS = frozenset(["Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Expand"])
_JOINED = _VIEWS | frozenset(["Reciprocal", "Div", "Mul", "Add", "Sub", "BatchNormalization"])
"""Operators that compilers join with a root or a product before them."""

_FREE = frozenset(["LSTM", "GRU", "RNN", "If", "Loop", "Shape", "Size", "QuantizeLinear", "DequantizeLinear"])
"""Operators that are kept in fp32 by their constants alone."""
_INTEGERS = (TensorProto.INT32, TensorProto.INT64)
_WIDE_INTEGERS = (*_INTEGERS, TensorProto.UINT16, TensorProto.UINT32, TensorProto.UINT64)
_GROWS = frozenset(["MatMul", "Conv", "Mul", "ReduceSum", "ReduceProd", "CumSum"])
_LIMITS = frozenset(["Max", "Min", "Clip"])

_PASSES = frozenset(
    [
        *("Identity", "Cast", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Split", "Slice", "Expand", "Tile"),
        *("Gather", "GatherElements", "GatherND", "ScatterElements", "ScatterND", "Concat", "Pad", "Trilu", "Where"),
        *("DepthToSpace", "SpaceToDepth", "ReverseSequence", "TopK", "MaxPool", "AveragePool", "Resize", "GridSample"),
        *("Add", "Sub", "Max", "Min", "Clip", "Neg", "Abs", "Relu", "LeakyRelu", "PRelu", "Elu", "Gelu", "Softplus"),
        *("ReduceMax", "ReduceMin", "ReduceMean", "ReduceSum", "CumSum", "Floor", "Ceil", "Round", "Mod", "Sign"),
    ]
)
"""Operators whose results are of the sizes of their operands."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A node that is to compute in fp32.

    Attributes:
        value: the first result of the node, by whose name it is known.
        name: the node's own.
        op_type: its operator.
        reason: why, to be shown to a user; empty for one that only follows another.
    """

    value: str
    name: str
    op_type: str
    reason: str


def find_wide(graph: GraphProto, softmaxes: Collection[str] = (), *, constants_alone: bool = False) -> list[Kept]:
    """The nodes that are to compute in fp32, those of graphs within nodes too.

    Args:
        graph: normalized and narrowed.
        softmaxes: the results of those whose masks fp16 does not hold.
        constants_alone: look only for constants that fp16 does not hold at all, and for what follows of them.
    """
    return _Search(softmaxes, constants_alone=constants_alone).search(graph, None, None, None, {})


class _Search:
    def __init__(self, softmaxes: Collection[str], *, constants_alone: bool) -> None:
        self._softmaxes = softmaxes
        self._constants_alone = constants_alone
        self._least = 2.0**-24 if constants_alone else SMALLEST_INVERTED

    def search(
        self,
        graph: GraphProto,
        values: Values | None,
        bounds: Bounds | None,
        reach: Reach | None,
        outer: Mapping[str, _Ranges],
    ) -> list[Kept]:
        values = Values(graph, values)
        bounds, reach = Bounds(values, bounds), Reach(values, reach)
        makers = Makers(graph, values, bounds)
        ranges = dict(outer)
        if not outer and not self._constants_alone:
            ranges.update(_of_integers(graph))
        kept: dict[str, Kept] = {}
        inner: list[Kept] = []
        for node in graph.node:
            for subgraph in subgraphs_of(node):
                inner += self.search(subgraph, values, bounds, reach, ranges)
            bounds.learn(node)
            reach.learn(node)
            look = _Look(
                node, values, bounds, reach, ranges, makers, self._least, constants_alone=self._constants_alone
            )
            found, reason, is_kept = look.look()
            ranges.update((name, _within(found, bounds.of(name))) for name in node.output if name)
            if first_result(node) in self._softmaxes:
                is_kept, reason = True, reason or "its masks are beyond fp16"
            if is_kept:
                kept[first_result(node)] = _kept(node, reason)
        if not self._constants_alone:
            self._add_makers(graph, makers, ranges, kept)
        return [*kept.values(), *inner]

    def _add_makers(
        self, graph: GraphProto, makers: Makers, ranges: Mapping[str, _Ranges], kept: dict[str, Kept]
    ) -> None:
        """Keep what makes the operands of nodes to which more than fp16 counts."""
        for node in graph.node:
            for maker in exact_makers(node, makers):
                kept.setdefault(first_result(maker), _kept(maker, "fp16 is not exact enough"))
            for maker in variance_makers(node, makers):
                kept.setdefault(first_result(maker), _kept(maker, "fp16 is not exact enough"))
            for maker in level_makers(node, makers):
                kept.setdefault(first_result(maker), _kept(maker, "fp16 is not exact enough for its scale"))
            if node.op_type in ("Mul", "Div") and any(Range.WHOLE in ranges.get(name, _NONE) for name in node.input):
                for maker in scale_partners(node, makers):
                    kept.setdefault(first_result(maker), _kept(maker, ""))
            if node.op_type == "Log" and first_result(node) in kept:
                for maker in small_makers(node, makers):
                    kept.setdefault(first_result(maker), _kept(maker, ""))
            if node.op_type == "Softmax" and first_result(node) in kept:
                for maker in score_makers(node, makers):
                    kept.setdefault(first_result(maker), _kept(maker, ""))
            if node.op_type in ("Add", "Sub") and Range.SQUARE in ranges.get(node.output[0], _NONE):
                for maker in square_partners(node, makers):
                    kept.setdefault(first_result(maker), _kept(maker, ""))


def _of_integers(graph: GraphProto) -> dict[str, _Ranges]:
    """Whole numbers that the user gives may be beyond fp16: numbers of seconds, prices, hashes."""
    wide = [value.name for value in graph.input if value.type.tensor_type.elem_type in _WIDE_INTEGERS]
    return dict.fromkeys(wide, frozenset([Range.LARGE]))


def first_result(node: NodeProto) -> str:
    """The name by which a node is known: names of nodes need not differ, those of results do."""
    return next((name for name in node.output if name), "")


def _kept(node: NodeProto, reason: str) -> Kept:
    return Kept(first_result(node), node.name or first_result(node), node.op_type, reason)


def _within(ranges: _Ranges, interval: tuple[float, float]) -> _Ranges:
    """Those that the interval of the values leaves possible."""
    if magnitude(interval) <= LARGEST:
        ranges = ranges - _HIGH
    if interval[0] >= SMALLEST_INVERTED or interval[1] <= -SMALLEST_INVERTED:
        ranges = ranges - _LOW
    return ranges


class _Look:
    """What one node does to the ranges of its operands."""

    def __init__(
        self,
        node: NodeProto,
        values: Values,
        bounds: Bounds,
        reach: Reach,
        ranges: Mapping[str, _Ranges],
        makers: Makers,
        least: float,
        *,
        constants_alone: bool,
    ) -> None:
        self._node = node
        self._values = values
        self._bounds = bounds
        self._reach = reach
        self._makers = makers
        self._least = least
        self._constants_alone = constants_alone
        self._given = [ranges.get(name, _NONE) if self._counts(name) else _NONE for name in node.input]

    def _counts(self, name: str) -> bool:
        """Whole numbers are indices to an operator that does not cast them."""
        is_of_integers = self._values.elem_type(self._node.output[0]) != TensorProto.FLOAT
        return is_of_integers or self._node.op_type == "Cast" or self._values.elem_type(name) == TensorProto.FLOAT

    def look(self) -> tuple[_Ranges, str, bool]:
        """The ranges of the results, the reason where one begins here, and whether the node is to compute in fp32."""
        op = self._node.op_type
        given = _NONE.union(*self._given)
        if not self._is_of_floats():
            return (self._passed(given) if op in _PASSES or op in _RULES or op == "Range" else _NONE), "", False
        if op == "Cast" and self._values.elem_type(self._node.input[0]) != TensorProto.FLOAT:
            given = _NONE
        if op not in _JOINED:
            given -= {Range.SETTLED}
        found, reason = self._constants()
        if not self._constants_alone and not reason:
            made, reason = self._made(given)
            found |= made
        if op in _FREE or op in _SATURATES or not given | found:
            return _NONE, reason, bool(reason)
        is_kept = bool(reason) or bool(given - ({Range.SUM, Range.GUARDED} if op in _PRODUCTS else _NONE))
        if op in _SETTLES or op in _COMPARES or (op not in _PASSES and op not in _RULES):
            if Range.WHOLE in found:
                return found, reason, is_kept
            return (self._of_product(given) if op in _PRODUCTS and is_kept else _NONE), reason, is_kept
        if op not in _VIEWS:
            given -= {Range.SETTLED}
        return found | self._passed(given), reason, is_kept

    def _is_of_floats(self) -> bool:
        names = [*self._node.input, *self._node.output]
        return not names or any(self._values.elem_type(name) == TensorProto.FLOAT for name in names if name)

    def _of_product(self, given: _Ranges) -> _Ranges:
        """Sums of squares are squares, where what follows brings them back: x / sqrt(conv(x * x) + 1)."""
        is_brought_back = Range.SQUARE in given and self._makers.end_in(self._node.output[0], _BRINGS_BACK)
        return frozenset([Range.SQUARE if is_brought_back else Range.SETTLED])

    def _passed(self, given: _Ranges) -> _Ranges:
        rule = _RULES.get(self._node.op_type)
        if rule is not None:
            return rule(self, given)
        if self._node.op_type in ("Add", "Sub") and any(
            not each and not self._is_constant(place) for place, each in enumerate(self._given)
        ):
            # What is ordinary outweighs what is tiny.
            return given - {Range.TINY}
        return given

    def _constants(self) -> tuple[_Ranges, str]:
        """Does fp16 hold the constants that it reads?"""
        op = self._node.op_type
        # A limit beyond fp16 is none to a value within it.
        is_idle = op in _LIMITS and not any(each & _HIGH for each in self._given)
        largest = np.inf if is_idle else LARGEST
        for place, name in enumerate(self._node.input):
            array = self._constant(name)
            if array is None or op in ("Resize", "Reshape", "Cast", "Shape") or (op == "Pow" and place == 1):
                continue
            sizes = sizes_within(array)
            if sizes is None:
                continue
            least, most = sizes
            if most > largest:
                is_divisor = op == "Div" and place == 1
                return frozenset([Range.TINY if is_divisor else Range.LARGE]), f"{_short(most)} is beyond fp16"
            if most < self._least or (least < self._least and op == "Div" and place == 1):
                found = self._by_small(place)
                # `Halve` and coremltools round what guards from zero up, to the smallest number of fp16.
                if not (self._constants_alone and Range.GUARDED in found):
                    return found, f"{_short(least)} is too small for fp16"
        return _NONE, ""

    def _by_small(self, place: int) -> _Ranges:
        match self._node.op_type:
            case "Div":
                return frozenset([Range.LARGE if place == 1 else Range.TINY])
            case "Mul" | "MatMul" | "Gemm" | "Conv" | "ConvTranspose":
                return frozenset([Range.TINY])
            case _:
                return frozenset([Range.GUARDED])

    def _constant(self, name: str) -> NDArray[np.float32] | None:
        if not name or self._values.elem_type(name) != TensorProto.FLOAT:
            return None
        return self._values.constant(name)

    def _is_constant(self, place: int) -> bool:
        return self._values.tensor(self._node.input[place]) is not None

    def _made(self, given: _Ranges) -> tuple[_Ranges, str]:
        """Does it make numbers beyond fp16 of such as are within?"""
        node, bounds = self._node, self._bounds
        first = bounds.of(node.input[0]) if node.input else (0.0, 0.0)
        size = magnitude(first)
        match node.op_type:
            case "Exp" if first[1] > 11:
                return frozenset([Range.LARGE]), "its results may be beyond fp16"
            case "Sinh" | "Cosh" if size > 11:
                return frozenset([Range.LARGE]), "its results may be beyond fp16"
            case "Softplus" if first[1] > 11:
                return _NONE, "exponentials may be beyond fp16"
            case "Mul" if node.input[0] == node.input[1]:
                return self._square(size * size)
            case "Mul" if not given and self._is_scalar_product():
                return self._square(size * magnitude(bounds.of(node.input[1])))
            case "Pow":
                return self._power(size)
            case "ReduceProd" if size > 1:
                return frozenset([Range.LARGE]), "its results may be beyond fp16"
            case "ReduceSum" | "CumSum":
                num = bounds.count(node) if node.op_type == "ReduceSum" else self._length()
                # A sum that only divides makes any numbers ordinary: they may be as large as fp16 has them.
                is_divisor = self._makers.end_in(node.output[0], _DIVIDES)
                ordinary = LARGEST if is_divisor else _ORDINARY
                if not given and num * min(size, ordinary if size == np.inf else size) > LARGEST:
                    return frozenset([Range.SUM]), "sums may be beyond fp16"
            case "MatMul" | "Gemm" | "Conv" if all(is_whole(name, self._makers) for name in node.input[:2]):
                return frozenset([Range.WHOLE]), "sums of whole numbers may be beyond fp16"
            case "Cast" if self._is_of_integers() and is_of_whole_products(node.input[0], self._makers):
                return frozenset([Range.WHOLE]), "sums of whole numbers may be beyond fp16"
            case "Cast" if self._is_of_given_integers():
                return frozenset([Range.LARGE]), "whole numbers that are given may be beyond fp16"
            case "Cast" if self._is_of_known_integers():
                return frozenset([Range.LARGE]), "whole numbers may be beyond fp16"
            case "Cast" if self._is_of_large_integers():
                return frozenset([Range.SUM]), "sums of whole numbers may be beyond fp16"
            case "DequantizeLinear" if self._values.elem_type(node.input[0]) == TensorProto.INT32:
                return _NONE, "whole numbers of 32 bits may be beyond fp16"
            case "Sin" | "Cos" | "Tan" if size > 8 and exact_makers(node, self._makers):
                return _NONE, "fp16 is not exact enough for large angles"
            case "Add" | "Sub" | "Mul" | "Div" if self._leaves_fp16():
                return frozenset([Range.LARGE]), "its results may be beyond fp16"
            case _:
                pass
        return _NONE, ""

    def _leaves_fp16(self) -> bool:
        """Do numbers within fp16, of which the largest are known, give such as are beyond?"""
        names, result = self._node.input, self._node.output[0]
        size = magnitude(self._bounds.of(result))
        if size <= LARGEST:
            return False
        is_large = np.inf > size and all(magnitude(self._bounds.of(name)) <= LARGEST for name in names)
        return (
            is_large
            or self._factor() * _ACTIVATION > LARGEST
            or self._reach.of(result) > LARGEST >= max(self._reach.of(name) for name in names)
        )

    def _factor(self) -> float:
        """What the largest constant multiplies a value of which nothing is known by; 0 where it does not."""
        node = self._node
        if node.op_type == "Mul":
            found = [array for name in node.input if (array := self._constant(name)) is not None]
            return (sizes_within(found[0]) or (0.0, 0.0))[1] if found else 0.0
        divisor = self._constant(node.input[1]) if node.op_type == "Div" else None
        sizes = None if divisor is None else sizes_within(divisor)
        return 1 / sizes[0] if sizes else 0.0

    def _is_of_known_integers(self) -> bool:
        """Does it cast places or elements of a table of whole numbers, the largest of which are beyond fp16?"""
        ends = [abs(end) for end in self._bounds.of(self._node.input[0])]
        return self._is_of_integers() and any(LARGEST < end < np.inf for end in ends)

    def _is_of_large_integers(self) -> bool:
        """Does it cast sums or products of whole numbers to floats? Those may be made in floats that are exact."""
        node = self._node
        maker = self._makers.of(node.input[0])
        if maker is None or self._values.elem_type(node.output[0]) != TensorProto.FLOAT:
            return False
        if (
            magnitude(self._bounds.of(node.input[0])) <= LARGEST
            or self._values.elem_type(node.input[0]) not in _INTEGERS
        ):
            return False
        return maker.op_type in _GROWS or (maker.op_type == "Cast" and bool(exact_makers(maker, self._makers)))

    def _is_of_integers(self) -> bool:
        return self._values.elem_type(self._node.input[0]) in _WIDE_INTEGERS

    def _is_of_given_integers(self) -> bool:
        is_given = self._is_of_integers() and Range.LARGE in self._given[0]
        return is_given and self._makers.is_scaled_down(self._node.output[0])

    def _is_scalar_product(self) -> bool:
        """Are two computed values multiplied to be summed, as squares are?"""
        is_computed = not self._is_constant(0) and not self._is_constant(1)
        return is_computed and self._makers.are_read_by(self._node.output[0], _TOTALS)

    def _power(self, size: float) -> tuple[_Ranges, str]:
        exponent = self._values.constant(self._node.input[1])
        if exponent is None or exponent.size != 1:
            return frozenset([Range.LARGE]), "its results may be beyond fp16"
        power = float(exponent.reshape(-1)[0])
        if power < -1 and magnitude(self._bounds.of(self._node.output[0])) > LARGEST:
            return frozenset([Range.LARGE]), "its results may be beyond fp16"
        if power <= 1:
            return _NONE, ""
        return self._square(np.inf if size == np.inf else float(np.float64(size) ** power))

    def _square(self, size: float) -> tuple[_Ranges, str]:
        if size <= LARGEST or self._makers.end_in(self._node.output[0], _SATURATES):
            return _NONE, ""
        return frozenset([Range.SQUARE]), "squares may be beyond fp16"

    def _length(self) -> float:
        shape = self._values.shape(self._node.input[0])
        known = [size for size in shape or () if size is not None]
        return max(known, default=0) if shape is not None and len(known) == len(shape) else np.inf

    def multiply(self, given: _Ranges) -> _Ranges:
        """Large times tiny is ordinary, and so is a number times the inverse of one of its size."""
        given = self._without_whole(given)
        one, other = self._given
        constants = [self._constant(name) for name in self._node.input]
        for place, array in enumerate(constants):
            if array is not None and array.size:
                _, most = sizes_within(array) or (0.0, 0.0)
                extra = _NONE
                if most > LARGEST:
                    extra = frozenset([Range.LARGE])
                elif 0 < most < self._least:
                    extra = frozenset([Range.TINY])
                one, other = (one | extra, other) if place == 0 else (one, other | extra)
        if (Range.TINY in one and other & _HIGH) or (Range.TINY in other and one & _HIGH):
            return _NONE
        for each, rest, place in ((one, other, 1), (other, one, 0)):
            if Range.INVERSE in each and not rest and not self._is_constant(place):
                return _NONE
        return given

    def _without_whole(self, given: _Ranges) -> _Ranges:
        """A scale brings a sum of whole numbers back, the last of them if there are several."""
        is_last = not self._makers.are_read_by(self._node.output[0], ("Mul", "Div"))
        return given - {Range.WHOLE} if is_last else given

    def divide(self, given: _Ranges) -> _Ranges:
        """Sizes of both operands cancel; the inverse of a guarded number may be large."""
        one, other = (self._without_whole(each) for each in self._given)
        if other & _LOW and self._is_constant(0):
            return frozenset([Range.INVERSE])
        return one - _HIGH if other & _HIGH else one | (given & {Range.GUARDED} if one & _LOW else _NONE)

    def invert(self, given: _Ranges) -> _Ranges:
        """1 / x."""
        return frozenset([Range.INVERSE]) if given & _LOW else _NONE

    def root(self, given: _Ranges) -> _Ranges:
        """A root is within fp16 where its square is but a little beyond."""
        return given - {Range.SQUARE, Range.SUM, Range.LARGE} | {Range.SETTLED}

    def raise_to(self, given: _Ranges) -> _Ranges:
        """Powers: negative ones are inverses."""
        exponent = self._values.constant(self._node.input[1])
        power = float(exponent.reshape(-1)[0]) if exponent is not None and exponent.size == 1 else 2.0
        if power < 0:
            return self.invert(given)
        return self.root(given) if power < 1 else given

    def small(self, given: _Ranges) -> _Ranges:
        """Exponentials of what may be large; of small numbers they are 1."""
        return given & _HIGH


_RULES: Mapping[str, Callable[[_Look, _Ranges], _Ranges]] = {
    "Mul": _Look.multiply,
    "Div": _Look.divide,
    "Reciprocal": _Look.invert,
    "Sqrt": _Look.root,
    "Pow": _Look.raise_to,
    "Exp": _Look.small,
    "Sinh": _Look.small,
    "Cosh": _Look.small,
    "ReduceProd": _Look.small,
}


def _short(value: float) -> str:
    return f"{value:.3g}"


def told(kept: Collection[Kept]) -> list[str]:
    """What a user is told of it: one note, the first nodes by name."""
    first = [each for each in kept if each.reason]
    if not first:
        return []
    shown = [f"{each.op_type} '{each.name}' ({each.reason})" for each in first[:4]]
    more = f", and {len(first) - len(shown)} more" if len(first) > len(shown) else ""
    return [f"fp16 does not hold what some nodes compute; {len(kept)} compute in fp32: {', '.join(shown)}{more}"]
