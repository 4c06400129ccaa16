"""Scale the result of a matrix product by scaling its operands: (a @ b) * s = (a * s) @ b."""

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto, helper

from triune.core.errors import InternalError
from triune.graph.half.bounds import MOST_ELEMENTS
from triune.graph.half.levels import is_integral
from triune.graph.half.producers import Producers
from triune.graph.half.scale import Scale
from triune.graph.names import Names
from triune.graph.passes.conv_affine import along_channels
from triune.graph.values import Values, attributes_of
from triune.graph.weight_files import WeightFile

_SMALLEST_SCALE = 2.0**-10
"""The smallest factor by which an operand is multiplied: a smaller one would make more of its elements subnormal in
fp16.
"""

_SMALLEST_WEIGHT = 2.0**-10
"""A weight is scaled down only so far that the largest element of the layer, or of the channel if each channel has a
scale, is at least this. Smaller elements may then be rounded to 0 without harm.
"""


class Operands:
    """Scales the operands of matrix products in one graph.

    Attributes:
        nodes: the nodes of the graph in order, including new ones.
    """

    def __init__(
        self,
        graph: GraphProto,
        values: Values,
        names: Names,
        file: WeightFile,
        reads: Counter[str],
        producers: Producers,
    ) -> None:
        """`reads` has the number of nodes that read each value. `producers` finds nodes as they were before any
        scaling.
        """
        self.nodes = list(graph.node)
        self._graph = graph
        self._values = values
        self._names = names
        self._file = file
        self._reads = reads
        self._producers = producers

    def is_own_constant(self, product: NodeProto, position: int) -> bool:
        """Whether an operand is a constant that only this node reads, so that it can be replaced."""
        name = product.input[position]
        tensor = self._values.tensor(name)
        return tensor is not None and tensor.data_type == TensorProto.FLOAT and self._reads[name] == 1

    def movable_part(self, products: Iterable[NodeProto], scale: Scale) -> Scale | None:
        """The part of a scale that the operands of all these products can take within fp16; None if they can take
        none.
        """
        if scale.name:
            return scale
        least = np.zeros(())
        for product in products:
            least = np.maximum(least, self._smallest_scale(product, scale))
        factors = _clipped_factors(scale, least)
        return None if np.all(np.abs(factors) == 1) else Scale("Mul", "", factors)

    def scale_product(self, product: NodeProto, scale: Scale) -> None:
        """Scale the operands of a matrix product so that its result is scaled, and scale its bias."""
        position = self._weight_position(product, scale)
        if scale.name:
            self._scale_operand(product, self._activation(product), scale)
        elif position is not None:
            taken = _clipped_factors(scale, self._smallest_scale_of_weight(product, position, scale))
            product.input[position] = self._weight(product, position, taken)
            self._scale_operand(product, 1 - position, Scale("Mul", "", scale.factors / taken))
        else:
            first = 1 if scale.factors.size > 1 else self._activation(product)
            taken = _clipped_factors(scale, np.asarray(_SMALLEST_SCALE))
            self._scale_operand(product, first, Scale("Mul", "", taken))
            self._scale_operand(product, 1 - first, Scale("Mul", "", scale.factors / taken))
        if len(product.input) > 2 and product.input[2]:
            product.input[2] = self.scaled(product.input[2], _flat(scale), product)

    def _scale_operand(self, product: NodeProto, position: int, scale: Scale) -> None:
        if scale.name or not np.all(scale.factors == 1):
            product.input[position] = self.scaled(product.input[position], _flat(scale), product)

    def scaled(self, name: str, scale: Scale, reader: NodeProto) -> str:
        """Insert a node that scales a value before `reader`; returns the name of the result."""
        array = self._values.constant(name) if self._values.tensor(name) is not None else None
        if array is not None and not scale.name and array.size <= MOST_ELEMENTS:
            return self._constant(f"{name}/scaled", array * scale.factors)
        by = scale.name or self._constant(f"{name}/scale", scale.factors)
        result = self._names.value(f"{name}/scaled")
        self._insert(helper.make_node(scale.op_type, [name, by], [result], name=result), self._index_of(reader))
        return result

    def inserted_after(self, node: NodeProto, scale: Scale) -> str:
        """Insert a node that scales the result of `node` after it; returns the name of the scaled result."""
        result = self._names.value(f"{node.output[0]}/scaled")
        by = self._constant(f"{node.output[0]}/scale", scale.factors)
        self._insert(helper.make_node("Mul", [node.output[0], by], [result], name=result), self._index_of(node) + 1)
        return result

    def rescale(self, node: NodeProto, name: str, factors: NDArray[np.float64]) -> None:
        """Change `node` to Mul(name, factors)."""
        node.op_type = "Mul"
        node.input[:] = [name, self._constant(f"{node.output[0]}/scale", factors)]

    def remove(self, node: NodeProto) -> None:
        """Remove a node."""
        self.nodes = [each for each in self.nodes if each is not node]

    def move_chain_before(self, last: NodeProto, chain: Sequence[NodeProto]) -> None:
        """Move the nodes of a chain to just before `last`: they will read the scale, which may be computed after
        them.
        """
        end, ids = self._index_of(last), {id(node) for node in chain}
        moved = [node for node in self.nodes[:end] if id(node) in ids]
        self.nodes[: end + 1] = [*(node for node in self.nodes[:end] if id(node) not in ids), *moved, last]

    def _smallest_scale(self, product: NodeProto, scale: Scale) -> NDArray[np.float64]:
        """The smallest factors that can be multiplied into the operands of a product without making these too small for
        fp16.

        A scale that is one number may be split between both operands, so that the product of two smallest scales is
        allowed; a scale with a number for each channel may not.
        """
        position = self._weight_position(product, scale)
        least = (
            np.asarray(_SMALLEST_SCALE)
            if position is None
            else self._smallest_scale_of_weight(product, position, scale)
        )
        return least * _SMALLEST_SCALE if scale.factors.size == 1 else least

    def _smallest_scale_of_weight(self, product: NodeProto, position: int, scale: Scale) -> NDArray[np.float64]:
        array = np.abs(self._constant_of(product.input[position]))
        axis = self._axis(product, array.ndim) if scale.factors.size > 1 else None
        others = None if axis is None else tuple(each for each in range(array.ndim) if each != axis)
        largest = np.asarray(array.max(axis=others, initial=0), np.float64)
        with np.errstate(divide="ignore"):
            return _SMALLEST_WEIGHT / (largest.reshape(scale.factors.shape) if axis is not None else largest)

    def _constant_of(self, name: str) -> NDArray[np.float32]:
        array = self._values.constant(name)
        if array is None:
            raise InternalError(f"the weight '{name}' is not a constant")
        return array

    def _weight_position(self, product: NodeProto, scale: Scale) -> int | None:
        """Which input of a product is a weight that can be scaled; None if none is, or if both operands are integers,
        which should stay exact.
        """
        if all(is_integral(name, self._producers) for name in product.input[:2]):
            return None
        positions = (1, 0) if product.op_type == "MatMul" and scale.factors.size == 1 else (1,)
        return next((position for position in positions if self.is_own_constant(product, position)), None)

    def _activation(self, product: NodeProto) -> int:
        """The position of the operand that is scaled at run time: one that is not a constant. Scaling a large weight
        instead would take longer in each run.
        """
        return 0 if self._values.tensor(product.input[0]) is None else 1

    def _axis(self, product: NodeProto, rank: int) -> int | None:
        """The axis of a weight that becomes the channel axis of the result; None if no axis, or more than one, does."""
        attributes = attributes_of(product)
        match product.op_type:
            case "Gemm":
                return 0 if attributes.get("transB", 0) else 1
            case "MatMul":
                return rank - 1
            case "ConvTranspose":
                return 1 if attributes.get("group", 1) == 1 else None
            case _:
                return 0

    def _weight(self, product: NodeProto, position: int, factors: NDArray[np.float64]) -> str:
        """Add a copy of a weight that is multiplied by `factors`; returns its name."""
        name = product.input[position]
        array, row = self._constant_of(name), factors.reshape(-1)
        form = row
        if row.size > 1 and product.op_type in ("Conv", "ConvTranspose"):
            form = along_channels(row, array, product)
        elif row.size > 1 and self._axis(product, array.ndim) == 0:
            form = row[:, None]
        return self._constant(f"{name}/scaled", array * form.astype(np.float32))

    def _constant(self, wanted: str, array: NDArray[np.generic]) -> str:
        name = self._names.value(wanted)
        self._graph.initializer.append(self._file.tensor(name, array.astype(np.float32)))
        self._reads[name] = 1
        return name

    def _index_of(self, node: NodeProto) -> int:
        return next(index for index, each in enumerate(self.nodes) if each is node)

    def _insert(self, node: NodeProto, index: int) -> None:
        self.nodes.insert(index, node)


def _clipped_factors(scale: Scale, least: NDArray[np.float64]) -> NDArray[np.float64]:
    """The factors of a scale, with their absolute values clipped to `least` and 1."""
    return np.sign(scale.factors) * np.minimum(np.maximum(np.abs(scale.factors), least), 1)


def _flat(scale: Scale) -> Scale:
    """The scale with its factors as a vector, so that they broadcast along the last axis; a single factor stays."""
    return scale if scale.factors.size == 1 else Scale(scale.op_type, scale.name, scale.factors.reshape(-1))
