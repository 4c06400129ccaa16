"""Find the numbers of inputs near which what a model computes from them is nearly cancelled by a constant."""

import math
from collections.abc import Iterable

import numpy as np
from onnx import ModelProto, TensorProto

from triune.core.datatypes import Array
from triune.graph.cancellation import Curve, cancelling_curves, folded_means
from triune.graph.conversion.shapes import inputs_of
from triune.graph.core_ops import OPSET
from triune.graph.values import Values

_FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE)


def centers_of(model: ModelProto) -> dict[str, list[Array]]:
    """For each float input, the numbers for which a sum that is computed from it is 0 though its operands are not, in
    numpy's broadcasting of the input.

    Those sums are x - c, log(x * s) - c and the like, and layers whose bias cancels what they multiply.
    """
    graph, values = model.graph, Values(model.graph)
    version = max((each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), default=OPSET)
    floats = {value.name for value in inputs_of(graph) if value.type.tensor_type.elem_type in _FLOATS}
    found: dict[str, list[Array]] = {}
    for curve in cancelling_curves(graph, values, version).values():
        shape = values.shape(curve.source)
        center = _in_places(curve, values.static_shape(curve.source)) if shape is not None else None
        if center is not None and curve.source in floats and np.isfinite(center).any():
            found.setdefault(curve.source, []).append(np.nan_to_num(center, nan=0.0))
    copies = {name: name for name in floats}
    for node in graph.node:
        if node.op_type in ("Identity", "Cast") and node.input[0] in copies:
            copies[node.output[0]] = copies[node.input[0]]
    for each in folded_means(graph, values, copies):
        found.setdefault(copies[each.operand], []).append(each.mean)
    return {name: _distinct(centers) for name, centers in found.items()}


def _in_places(curve: Curve, shape: tuple[int, ...] | None) -> Array | None:
    """The numbers for which a sum is 0, in the places of the input's elements; None if these are not known."""
    if curve.crossed is None:
        return None
    if curve.places is None:
        return curve.crossed if curve.layout == curve.source else None
    if shape is None:
        return None
    center = np.full(math.prod(shape), np.nan)
    center[curve.places.reshape(-1)] = np.broadcast_to(curve.crossed, curve.places.shape).reshape(-1)
    return center.reshape(shape)


def _distinct(centers: Iterable[Array]) -> list[Array]:
    kept: list[Array] = []
    for each in centers:
        if not any(each.shape == other.shape and np.allclose(each, other, rtol=1e-3, atol=0) for other in kept):
            kept.append(each)
    return kept
