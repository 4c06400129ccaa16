"""Find numbers near which a model loses precision: for inputs near them, a constant nearly cancels what is computed."""

import math
from collections.abc import Iterable

import numpy as np
from onnx import ModelProto, TensorProto

from triune.core.datatypes import Array
from triune.graph.cancellation import Curve, cancelling_curves, first_elements, folded_means
from triune.graph.conversion.shapes import inputs_of
from triune.graph.core_ops import OPSET
from triune.graph.values import Values

_FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE)


def centers_of(model: ModelProto) -> dict[str, list[Array]]:
    """For each float input, the numbers at which a sum computed from the input is 0 though its operands are not. Each
    array broadcasts to the input.

    Such sums are x - c and log(x * s) - c, and layers whose bias cancels the product.
    """
    graph, values = model.graph, Values(model.graph)
    version = max((each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), default=OPSET)
    floats = {value.name for value in inputs_of(graph) if value.type.tensor_type.elem_type in _FLOATS}
    first = first_elements(graph, values)
    found: dict[str, list[Array]] = {}
    for curve in cancelling_curves(graph, values, version).values():
        if curve.crossed is None:
            continue
        for name in curve.sources:
            center = _in_places(curve, curve.crossed, first.get(name), values.static_shape(name))
            if name in floats and np.isfinite(center).any():
                found.setdefault(name, []).append(np.nan_to_num(center, nan=0.0))
    copies = {name: name for name in floats}
    for node in graph.node:
        if node.op_type in ("Identity", "Cast") and node.input[0] in copies:
            copies[node.output[0]] = copies[node.input[0]]
    for each in folded_means(graph, values, copies):
        found.setdefault(copies[each.operand], []).append(each.mean)
    return {name: _distinct(centers) for name, centers in found.items()}


def _in_places(curve: Curve, crossed: Array, first: int | None, shape: tuple[int, ...] | None) -> Array:
    """Arrange the numbers for which a sum is 0 in the shape of the input; as a 1-D array if it is not known which
    elements they belong to.

    Args:
        curve: the sum.
        crossed: the numbers, `curve.crossed`.
        first: the number of the input's first element, where the elements of all inputs are numbered together.
        shape: the input's shape.
    """
    if curve.is_in_place:
        return crossed
    if curve.places is None or shape is None or first is None or not _fits(crossed, curve.places):
        return crossed[np.isfinite(crossed)].reshape(-1)
    places = curve.places.reshape(-1) - first
    is_own = (places >= 0) & (places < math.prod(shape))
    center = np.full(math.prod(shape), np.nan)
    center[places[is_own]] = np.broadcast_to(crossed, curve.places.shape).reshape(-1)[is_own]
    return center.reshape(shape)


def _fits(crossed: Array, places: Array) -> bool:
    """Whether `crossed`, the numbers for which a sum is 0, broadcasts to the shape of `Curve.places`.

    It does not if one element is compared with a row of constants.
    """
    return np.broadcast_shapes(crossed.shape, places.shape) == places.shape


def _distinct(centers: Iterable[Array]) -> list[Array]:
    kept: list[Array] = []
    for each in centers:
        if not any(each.shape == other.shape and np.allclose(each, other, rtol=1e-3, atol=0) for other in kept):
            kept.append(each)
    return kept
