"""Symbolic shapes: each unknown size of a graph has a name, and sizes of the same name are equal. ONNX's own inference
loses the names at a Slice, at a Reshape to a shape that nodes compute, and at a Gemm of reshaped rows.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from onnx import GraphProto, NodeProto, TensorProto, ValueInfoProto

from triune.core.errors import InvalidArgumentError
from triune.graph.conversion.problems import called
from triune.graph.dims import OF_SIZES, Dim, Dims, broadcast, is_size, product, remaining_size
from triune.graph.values import attributes_of

Ints: TypeAlias = Callable[[str], list[int] | None]
"""A function that returns the elements of a small constant of integers, by name; None for any other value."""

_LIKE_FIRST = frozenset(
    [
        *("Softmax", "LayerNormalization", "Gelu", "Relu", "Sigmoid", "Tanh", "Erf", "Exp", "Sqrt", "Neg", "Abs"),
        *("Cast", "Clip", "Identity", "Reciprocal", "Not", "BatchNormalization", "HardSigmoid", "LeakyRelu", "Elu"),
    ]
)
BROADCASTING = frozenset(
    ["Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Where", "And", "Or", "Equal", "Greater", "Less"]
)
"""Elementwise operators of several operands, whose shapes are broadcast."""

_HOLDING_SIZES = frozenset([TensorProto.INT32, TensorProto.INT64, TensorProto.FLOAT, TensorProto.DOUBLE])
"""The types to which a Cast keeps the value of a size."""

_WINDOWED = frozenset(["Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool"])

_NO_NAMES = frozenset(["none", "unknown", "unk", "dynamic", "any"])


class Sizes:
    """Computes the symbolic shapes of a graph's values."""

    def __init__(self, graph: GraphProto, ints: Ints, constants: Mapping[str, Dims]) -> None:
        """`constants` has the shapes of all constants."""
        self._ints = ints
        self._dims: dict[str, Dims] = dict(constants)
        self._vectors: dict[str, Dims] = {}
        self._same: dict[str, Dim] = {}
        declared = {value.name: value for value in (*graph.input, *graph.value_info, *graph.output)}
        for name, value in declared.items():
            self._declare(name, value)
        outputs = {value.name for value in graph.output}
        for node in graph.node:
            self._vector(node)
            for name in node.output:
                found = self._output_shape(node, name)
                if found is not None:
                    given = self._dims.get(name) or found
                    # Do not trust declared names in outputs: exporters write them for human readers, and equal names
                    # often do not mean equal sizes.
                    is_sure = name not in outputs
                    self._dims[name] = tuple(
                        self._same_size(a, b) if is_sure or a is None else a for a, b in zip(found, given, strict=True)
                    )

    def get(self, name: str) -> Dims | None:
        """The shape of a value; None if not even the rank is known."""
        dims = self._dims.get(name)
        return None if dims is None else tuple(self._canonical(dim) for dim in dims)

    def learn(self, name: str, like: str) -> None:
        """Record that the value `name` has the shape of `like`."""
        if name not in self._dims and like in self._dims:
            self._dims[name] = self._dims[like]

    def _same_size(self, found: Dim, declared: Dim) -> Dim:
        """Record that two sizes are equal, so that they have the same name from now on; returns the name, or the size
        if it is known.
        """
        found, declared = self._canonical(found), self._canonical(declared)
        if found is None or declared is None or found == declared:
            return declared if found is None else found
        for name, other in ((declared, found), (found, declared)):
            # A name is not replaced by a product that contains the name itself.
            if isinstance(name, str) and "*" not in name and name not in str(other).split("*"):
                self._same[name] = other
                break
        return self._canonical(found)

    def _canonical(self, dim: Dim) -> Dim:
        """The size `dim`, where a name is replaced by the one name that stands for all names of equal sizes."""
        if isinstance(dim, str) and "*" in dim:
            return product([self._canonical(part) for part in dim.split("*")])
        while isinstance(dim, str) and dim in self._same:
            dim = self._same[dim]
        return dim

    def _declare(self, name: str, value: ValueInfoProto) -> None:
        if name in self._dims or not value.type.tensor_type.HasField("shape"):
            return
        self._dims[name] = tuple(
            dim.dim_value if dim.HasField("dim_value") else _symbol(dim.dim_param) or f"{name}[{axis}]"
            for axis, dim in enumerate(value.type.tensor_type.shape.dim)
        )

    def _output_shape(self, node: NodeProto, name: str) -> Dims | None:
        """The shape of a node's output, computed from the shapes of its operands; None if it is not known.

        Raises InvalidArgumentError for operands whose ranks do not fit the node.
        """
        try:
            return self._shape_of(node, name)
        except (IndexError, ValueError, ZeroDivisionError) as error:
            ranks = ", ".join(f"'{each}' of rank {len(self._dims.get(each, ()))}" for each in node.input if each)
            raise InvalidArgumentError(
                f"{called(node)} does not take inputs of these ranks, {ranks}: the model is not valid ONNX; "
                "export it again"
            ) from error

    def _shape_of(self, node: NodeProto, name: str) -> Dims | None:
        """Compute the shape of a node's output; raises any error if the ranks of its operands do not fit."""
        if node.op_type == "Range":
            start, limit, step = (self.elements(each) for each in node.input)
            return limit if (start, step) == ((0,), (1,)) and is_size(limit) else None
        given = [self.get(each) for each in node.input if each]
        first = given[0] if given else None
        if first is None:
            return None
        found: Dims | None = None
        attributes = attributes_of(node)
        rank = len(first)
        if node.op_type in _LIKE_FIRST:
            found = first if name == node.output[0] else None
        elif node.op_type in BROADCASTING:
            found = broadcast(given)
        elif node.op_type == "Transpose":
            perm: Sequence[int] = attributes.get("perm", range(rank - 1, -1, -1))
            found = tuple(first[axis] for axis in perm)
        elif node.op_type == "Reshape":
            found = self._reshaped(node, first)
        elif node.op_type == "Expand":
            found = broadcast([first, self.elements(node.input[1])])
        elif node.op_type == "Slice":
            axes = self._ints(node.input[3]) if len(node.input) > 3 and node.input[3] else None
            cut = {axis % rank for axis in axes} if axes is not None else set(range(rank))
            found = tuple(None if axis in cut else dim for axis, dim in enumerate(first))
        elif node.op_type == "MatMul" and len(given) > 1 and given[1] is not None and min(rank, len(given[1])) > 1:
            rows = broadcast([first[:-2], given[1][:-2]])
            found = None if rows is None else (*rows, first[-2], given[1][-1])
        elif node.op_type == "Gemm" and not attributes.get("transA", 0):
            weight = given[1] or (None, None)
            found = (first[0], weight[0 if attributes.get("transB", 0) else 1])
        elif node.op_type in ("Squeeze", "Unsqueeze"):
            found = self._with_ones(node, first)
        elif node.op_type == "Conv" and given[1] is not None and _is_pointwise(given[1], attributes):
            found = (first[0], given[1][0], *first[2:])
        elif node.op_type in _WINDOWED:
            # The channels of a pool are those of its operand; a convolution's are left to ONNX's own shape inference.
            found = (first[0], first[1] if len(given) == 1 else None, *[None] * (rank - 2))
        elif node.op_type == "Pad":
            found = self._padded(node, first)
        elif node.op_type == "Tile":
            found = self._tiled(node, first)
        elif node.op_type == "Gather":
            axis = attributes.get("axis", 0) % rank
            found = None if given[1] is None else (*first[:axis], *given[1], *first[axis + 1 :])
        elif node.op_type == "GatherElements":
            found = given[1]
        elif node.op_type in ("Concat", "Split", "TopK"):
            along = attributes.get("axis", -1 if node.op_type == "TopK" else 0) % rank
            found = tuple(None if axis == along else dim for axis, dim in enumerate(first))
        elif node.op_type.startswith("Reduce") and attributes.get("keepdims", 1):
            axes = self._ints(node.input[1]) if len(node.input) > 1 else None
            found = None if not axes else _reduced(first, axes)
        known = self._dims.get(name)
        return found if found is not None and (known is None or len(known) == len(found)) else None

    def _reshaped(self, node: NodeProto, given: Dims) -> Dims | None:
        wanted = self.elements(node.input[1])
        if wanted is None or (attributes_of(node).get("allowzero", 0) and 0 in wanted):
            return None
        dims = [given[axis] if dim == 0 and axis < len(given) else dim for axis, dim in enumerate(wanted)]
        if -1 in dims:
            dims[dims.index(-1)] = remaining_size(given, [dim for dim in dims if dim != -1])
        return tuple(dims)

    def _tiled(self, node: NodeProto, given: Dims) -> Dims | None:
        """The shape that Tile gives: an axis keeps the name of its size if it is not repeated."""
        repeats = self._ints(node.input[1])
        if repeats is None:
            return None
        return tuple(
            dim if times == 1 else dim * times if isinstance(dim, int) else None
            for dim, times in zip(given, repeats, strict=True)
        )

    def _padded(self, node: NodeProto, given: Dims) -> Dims | None:
        """The shape that Pad gives: an axis keeps the name of its size if nothing is added to it."""
        amounts = self.elements(node.input[1])
        axes = self._ints(node.input[3]) if len(node.input) > 3 and node.input[3] else list(range(len(given)))
        if amounts is None or axes is None or len(amounts) != 2 * len(axes):
            return None
        dims = list(given)
        for place, axis in enumerate(axes):
            dim, before, after = dims[axis], amounts[place], amounts[place + len(axes)]
            if isinstance(dim, int) and isinstance(before, int) and isinstance(after, int):
                dims[axis] = dim + before + after
            elif (before, after) != (0, 0):
                dims[axis] = None
        return tuple(dims)

    def _with_ones(self, node: NodeProto, given: Dims) -> Dims | None:
        axes = self._ints(node.input[1]) if len(node.input) > 1 else None
        if axes is None:
            return None
        if node.op_type == "Squeeze":
            dropped = {axis % len(given) for axis in axes}
            return tuple(dim for axis, dim in enumerate(given) if axis not in dropped)
        rank = len(given) + len(axes)
        added = {axis % rank for axis in axes}
        rest = iter(given)
        return tuple(1 if axis in added else next(rest) for axis in range(rank))

    def elements(self, name: str) -> Dims | None:
        """The elements of a 1-D tensor of sizes, as numbers or names; None if nothing is known of it."""
        constant = self._ints(name)
        found = tuple(constant) if constant is not None else self._vectors.get(name)
        return None if found is None else tuple(self._canonical(dim) for dim in found)

    def _vector(self, node: NodeProto) -> None:
        """If a node's output is a 1-D tensor of sizes, find and record its elements."""
        attributes = attributes_of(node)
        found: Dims | None = None
        if node.op_type == "Shape":
            dims = self.get(node.input[0])
            found = None if dims is None else dims[attributes.get("start", 0) : attributes.get("end")]
        elif node.op_type in ("Identity", "Squeeze", "Unsqueeze") or attributes.get("to") in _HOLDING_SIZES:
            found = self.elements(node.input[0])
        elif node.op_type == "Concat":
            parts = [self.elements(name) for name in node.input]
            if all(part is not None for part in parts):
                found = tuple(dim for part in parts for dim in part or ())
        elif node.op_type == "Gather":
            given, indices = self.elements(node.input[0]), self._ints(node.input[1])
            if given is not None and indices is not None and all(-len(given) <= i < len(given) for i in indices):
                found = tuple(given[i] for i in indices)
        elif node.op_type == "Slice":
            given = self.elements(node.input[0])
            limits = [self._ints(name) for name in node.input[1:]]
            if given is not None and all(each is not None and len(each) == 1 for each in limits):
                begin, end, *rest = (each[0] for each in limits if each)
                step = rest[1] if len(rest) > 1 else 1
                found = given[begin:end:step] if step > 0 else None
        elif node.op_type in OF_SIZES:
            parts = [self.elements(name) for name in node.input]
            known = [part for part in parts if part is not None]
            if len(known) == len(parts) and len({len(part) for part in known}) == 1:
                rule = OF_SIZES[node.op_type]
                found = tuple(rule(*each) for each in zip(*known, strict=True))
        if found is not None and len(found) <= 16:
            self._vectors[node.output[0]] = found


def _reduced(given: Dims, axes: Sequence[int]) -> Dims:
    reduced = {axis % len(given) for axis in axes}
    return tuple(1 if axis in reduced else dim for axis, dim in enumerate(given))


def _is_pointwise(weight: Dims, attributes: Mapping[str, Any]) -> bool:
    """Whether a Conv with a weight of this shape is 1x1, without strides and padding."""
    is_plain = not any(attributes.get("pads", ())) and all(step == 1 for step in attributes.get("strides", ()))
    return all(size == 1 for size in weight[2:]) and is_plain and attributes.get("auto_pad", "NOTSET") == "NOTSET"


def _symbol(text: str) -> str | None:
    # Only text that begins like an identifier is a name: some exporters write "?" or "None" for every size that they do
    # not know.
    return text if text and (text[0].isalpha() or text[0] == "_") and text.lower() not in _NO_NAMES else None
