"""Operators that change shapes, or create tensors from a shape."""

import math
from collections.abc import Mapping

import numpy as np

from triune.graph.axes import positive
from triune.metal.context import Context, Lowering, builder_of
from triune.metal.library import from_numpy, mx


def _shape(c: Context) -> None:
    x = c.input(0)
    start, end = (int(c.attributes.get(name, default)) for name, default in (("start", 0), ("end", x.ndim)))
    start, end = (min(max(positive(each, x.ndim), 0), x.ndim) for each in (start, end))
    c.give(from_numpy(np.array(x.shape[start:end], np.int64)))


def _reshape(c: Context) -> None:
    x = c.input(0)
    dims = c.ints(1, "the shape of a Reshape")
    if not c.attributes.get("allowzero", 0):
        dims = [x.shape[place] if size == 0 else size for place, size in enumerate(dims)]
    if x.size == 0 and -1 in dims:
        rest = math.prod(size for size in dims if size != -1)
        dims = [0 if size == -1 and rest else max(size, 0) for size in dims]
    c.give(mx.reshape(x, dims))


def _expand(c: Context) -> None:
    x = c.input(0)
    c.give(mx.broadcast_to(x, np.broadcast_shapes(x.shape, tuple(c.ints(1, "the shape of an Expand")))))


def _constant_of_shape(c: Context) -> None:
    tensor = c.attributes.get("value")
    filler = mx.array(0.0) if tensor is None else c.scope.make(tensor).reshape(())
    c.give(mx.broadcast_to(filler, c.ints(0, "the shape of a ConstantOfShape")))


def _range(c: Context) -> None:
    start, limit, delta = (c.known(index, "a limit of a Range").reshape(()) for index in range(3))
    # As ONNX specifies, element i is start + i * delta.
    kind = np.float64 if start.dtype.kind == "f" else start.dtype
    count = max(math.ceil((limit.astype(np.float64) - start) / delta), 0)
    found = start.astype(kind) + np.arange(count, dtype=kind) * delta.astype(kind)
    c.give(from_numpy(found.astype(start.dtype)))


def _split(c: Context) -> None:
    x, count = c.input(0), len(c.node.output)
    axis = positive(int(c.attributes.get("axis", 0)), x.ndim)
    if c.has(1):
        sizes = c.ints(1, "the sizes of a Split")
    else:
        step = -(-x.shape[axis] // int(c.attributes.get("num_outputs", count)))
        sizes = [max(min(step, x.shape[axis] - step * index), 0) for index in range(count)]
    if sum(sizes) != x.shape[axis]:
        raise ValueError(f"sizes {sizes} of a Split of a dimension of {x.shape[axis]}")
    for index, (size, end) in enumerate(zip(sizes, np.cumsum(sizes).tolist(), strict=True)):
        c.give(c.builder.slice(x, axis, end - size, end), index)


def _tile(c: Context) -> None:
    c.give(mx.tile(c.input(0), c.ints(1, "the repeats of a Tile")))


def _concat(c: Context) -> None:
    values = [c.input(index) for index in range(len(c.node.input))]
    c.give(builder_of(c).images.joined(values, positive(int(c.attributes["axis"]), values[0].ndim)))


def _cumsum(c: Context) -> None:
    x = c.input(0)
    axis = positive(c.ints(1, "the axis of a running sum")[0], x.ndim)
    found = mx.cumsum(
        c.builder.summable(x),
        axis,
        reverse=bool(c.attributes.get("reverse", 0)),
        inclusive=not c.attributes.get("exclusive", 0),
    )
    c.give(found.astype(x.dtype))


TABLE: Mapping[str, Lowering] = {
    "Shape": _shape,
    "Reshape": _reshape,
    "Expand": _expand,
    "ConstantOfShape": _constant_of_shape,
    "Range": _range,
    "Split": _split,
    "Tile": _tile,
    "Concat": _concat,
    "CumSum": _cumsum,
}
