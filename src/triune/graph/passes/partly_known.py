"""Follow integer vectors that are computed from shapes, element by element: some of their elements may be unknown."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, helper

from triune.graph.values import Values, attributes_of


class PartlyKnown:
    """An integer tensor of rank 0 or 1 with some known elements, for instance a shape with a free batch size."""

    def __init__(self, elements: Sequence[int | None], *, is_scalar: bool, dtype: np.dtype[Any]) -> None:
        self.elements = tuple(elements)
        self.is_scalar = is_scalar
        self.dtype = dtype

    @property
    def is_known(self) -> bool:
        """Whether every element is known."""
        return None not in self.elements

    def cast(self, dtype: np.dtype[Any]) -> "PartlyKnown":
        """The tensor in another integer type. Values that do not fit wrap around, as in ONNX Runtime."""
        elements = [None if each is None else int(np.int64(each).astype(dtype)) for each in self.elements]
        return PartlyKnown(elements, is_scalar=self.is_scalar, dtype=dtype)

    def array(self) -> NDArray[Any]:
        """The tensor as an array. Every element must be known."""
        array = np.array(self.elements, self.dtype)
        return array[0] if self.is_scalar else array


def partly_known(
    node: NodeProto, values: Values, constant: Any, parts: Mapping[str, PartlyKnown]
) -> PartlyKnown | None:
    """The known elements of a node's result, if the node computes on shapes (Shape, Gather, Concat ...); else None."""

    def part(name: str) -> PartlyKnown | None:
        if name in parts:
            return parts[name]
        if len(values.shape(name) or ()) > 1:
            return None
        array = constant(name)
        if array is None or array.ndim > 1 or array.dtype.kind != "i" or array.size > 64:
            return None
        return PartlyKnown([int(each) for each in array.reshape(-1)], is_scalar=array.ndim == 0, dtype=array.dtype)

    attributes = attributes_of(node)
    int64 = np.dtype(np.int64)
    match node.op_type:
        case "Shape":
            shape = values.shape(node.input[0])
            if shape is None:
                return None
            return PartlyKnown(shape[attributes.get("start", 0) : attributes.get("end")], is_scalar=False, dtype=int64)
        case "Size":
            shape = values.static_shape(node.input[0])
            return None if shape is None else PartlyKnown([math.prod(shape)], is_scalar=True, dtype=int64)
        case "Identity" | "Unsqueeze" | "Squeeze" | "Cast":
            given = part(node.input[0])
            if given is None:
                return None
            if node.op_type == "Unsqueeze":
                # In older operator sets `axes` is an attribute, not an input.
                axes = attributes.get("axes") if len(node.input) < 2 else constant(node.input[1])
                if not given.is_scalar or axes is None or len(axes) != 1:
                    return None
            if node.op_type == "Squeeze" and len(given.elements) != 1:
                return None
            if node.op_type == "Cast":
                if attributes["to"] not in helper.get_all_tensor_dtypes():
                    return None
                dtype = helper.tensor_dtype_to_np_dtype(attributes["to"])
                return given.cast(dtype) if dtype.kind == "i" else None
            is_scalar = {"Unsqueeze": False, "Squeeze": True}.get(node.op_type, given.is_scalar)
            return PartlyKnown(given.elements, is_scalar=is_scalar, dtype=given.dtype)
        case "Gather":
            given, indices = part(node.input[0]), constant(node.input[1])
            if given is None or given.is_scalar or indices is None or indices.ndim > 1:
                return None
            size = len(given.elements)
            positions = [int(each) for each in indices.reshape(-1)]
            if any(not -size <= position < size for position in positions):
                return None
            return PartlyKnown(
                [given.elements[position] for position in positions], is_scalar=indices.ndim == 0, dtype=given.dtype
            )
        case "Slice":
            given = part(node.input[0])
            limits = [constant(name) if name else None for name in (*node.input[1:], "", "", "")[:4]]
            if given is None or given.is_scalar or limits[0] is None or limits[1] is None:
                return None
            if (len(node.input) > 4 and node.input[4] and limits[3] is None) or limits[0].size != 1:
                return None
            step = 1 if limits[3] is None else int(limits[3].reshape(-1)[0])
            begin, end = int(limits[0].reshape(-1)[0]), int(limits[1].reshape(-1)[0])
            if step <= 0:
                return None
            return PartlyKnown(given.elements[begin:end:step], is_scalar=False, dtype=given.dtype)
        case "Concat":
            given_parts = [part(name) for name in node.input]
            if any(each is None or each.is_scalar for each in given_parts):
                return None
            elements = [element for each in given_parts if each is not None for element in each.elements]
            return PartlyKnown(
                elements, is_scalar=False, dtype=next(each for each in given_parts if each is not None).dtype
            )
        case _:
            return None
