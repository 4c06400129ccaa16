"""Gather and Scatter operators. An index that is out of range is a fault (`MlxBuilder.within`)."""

from collections.abc import Mapping, Sequence

from triune.graph.axes import positive
from triune.graph.conversion.lowering.indices import scatter_mode
from triune.metal.context import Context, Lowering, builder_of
from triune.metal.library import Value, mx


def _axis(c: Context) -> int:
    return positive(int(c.attributes.get("axis", 0)), c.input(0).ndim)


def _within(c: Context, indices: Value, size: int) -> Value:
    return builder_of(c).within(indices, size, f"an index of {c.node.op_type} '{c.node.name or c.node.output[0]}'")


def _gather(c: Context) -> None:
    x, axis = c.input(0), _axis(c)
    c.give(mx.take(x, _within(c, c.input(1), x.shape[axis]), axis))


def _gather_elements(c: Context) -> None:
    x, axis, indices = c.input(0), _axis(c), c.input(1)
    # Along all dimensions but the axis, ONNX reads only as many elements of `x` as the indices have: slice it to these.
    x = x[tuple(slice(None if each == axis else size) for each, size in enumerate(indices.shape))]
    c.give(mx.take_along_axis(x, _within(c, indices, x.shape[axis]), axis))


def _columns(c: Context, indices: Value, sizes: Sequence[int]) -> list[Value]:
    """Split tuples of indices, which lie along the last axis, into an array of indices for each dimension."""
    return [_within(c, indices[..., place], size) for place, size in enumerate(sizes)]


def _gather_nd(c: Context) -> None:
    x, indices, batch = c.input(0), c.input(1), int(c.attributes.get("batch_dims", 0))
    own = [
        mx.arange(size).reshape([size if each == axis else 1 for each in range(indices.ndim - 1)])
        for axis, size in enumerate(indices.shape[:batch])
    ]
    columns = _columns(c, indices, x.shape[batch : batch + indices.shape[-1]])
    c.give(x[tuple(mx.broadcast_arrays(*own, *columns))])


def _update(c: Context, x: Value, places: tuple[Value, ...], updates: Value) -> Value:
    """`x` with `updates` written at the indices `places`, which has an array of indices for each of the first
    dimensions.
    """
    mode, kind = scatter_mode(c), x.dtype
    if kind == mx.bool_ and mode != "update":
        x, updates = x.astype(mx.int32), updates.astype(mx.int32)
    if updates.size == 0:
        return x.astype(kind)
    if mode == "update":
        changed = mx.array(x)
        changed[places] = updates
        return changed.astype(kind)
    found = getattr(x.at[places], {"add": "add", "mul": "multiply", "max": "maximum", "min": "minimum"}[mode])
    return found(updates).astype(kind)


def _scatter_elements(c: Context) -> None:
    x, axis, indices, updates = c.input(0), _axis(c), c.input(1), c.input(2)
    places = [
        mx.broadcast_to(
            mx.arange(size).reshape([size if place == each else 1 for place in range(x.ndim)]), indices.shape
        )
        for each, size in enumerate(indices.shape)
    ]
    places[axis] = _within(c, indices, x.shape[axis])
    c.give(_update(c, x, tuple(places), updates))


def _scatter_nd(c: Context) -> None:
    x, indices, updates = c.input(0), c.input(1), c.input(2)
    columns = _columns(c, indices, x.shape[: indices.shape[-1]])
    c.give(_update(c, x, tuple(columns), updates))


TABLE: Mapping[str, Lowering] = {
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "ScatterElements": _scatter_elements,
    "ScatterND": _scatter_nd,
}
