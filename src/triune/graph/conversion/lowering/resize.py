"""Resize along one dimension: matrix products with interpolation weights, nearest elements, and extrapolation.

Coordinates and weights come from `graph.conversion.resize`.
"""

import numpy as np

from triune.graph.conversion.context import NodeContext
from triune.graph.conversion.lowering.builder import Builder
from triune.graph.conversion.problems import Refusal
from triune.graph.conversion.resize import Axis, Floats, is_cropped
from triune.graph.conversion.scope import V


def mode_of(c: NodeContext[V]) -> str:
    """The node's mode: nearest, linear or cubic.

    Raises:
        Refusal: the mode is another one, or integers would be interpolated.
    """
    mode = str(c.attributes.get("mode", "nearest"))
    if mode not in ("nearest", "linear", "cubic"):
        raise Refusal(f"mode '{mode}'")
    if mode != "nearest" and not c.builder.is_float(c.input(0)):
        raise Refusal(f"{mode} interpolation of integers; cast them to FLOAT")
    return mode


def product_along(b: Builder[V], x: V, weights: V, axis: int) -> V:
    """Multiply `x` along one dimension by the matrix `weights` (size before, size after)."""
    rank = b.rank(x)
    order = [*(each for each in range(rank) if each != axis), axis]
    if rank == 1:
        return b.squeeze(b.matmul(b.unsqueeze(x, [0]), weights), [0])
    if axis == rank - 1:
        return b.matmul(x, weights)
    product = b.matmul(b.transpose(x, order), weights)
    return b.transpose(product, [int(each) for each in np.argsort(order)])


def extrapolated(c: NodeContext[V], x: V, each: Axis, coordinates: Floats) -> V:
    """Set elements outside the image to `extrapolation_value`. `coordinates` are the source coordinates."""
    inside = (coordinates >= 0) & (coordinates <= each.size - 1)
    if not is_cropped(c.attributes) or inside.all():
        return x
    broadcast_shape = [1] * c.builder.rank(x)
    broadcast_shape[each.axis] = each.target
    value = float(c.attributes.get("extrapolation_value", 0.0))
    return c.builder.where(c.builder.constant(inside.reshape(broadcast_shape)), x, value)


def nearest(c: NodeContext[V], coordinates: V) -> V:
    """The indices of the elements nearest to coordinates that the program computes. They may be outside the image."""
    b = c.builder
    match mode := c.attributes.get("nearest_mode", "round_prefer_floor"):
        case "round_prefer_floor":
            return b.ceil(b.sub(coordinates, 0.5))
        case "round_prefer_ceil":
            return b.floor(b.add(coordinates, 0.5))
        case "floor":
            return b.floor(coordinates)
        case "ceil":
            return b.ceil(coordinates)
        case _:
            raise Refusal(f"nearest_mode '{mode}'")
