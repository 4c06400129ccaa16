"""Lowering of GridSample: an image is interpolated at coordinates that the program computes."""

import itertools
from collections.abc import Mapping
from typing import Any, Generic

from triune.graph.conversion.context import Lowering, NodeContext
from triune.graph.conversion.lowering.builder import Dim
from triune.graph.conversion.problems import Refusal
from triune.graph.conversion.scope import V

_MODES: Mapping[str, str] = {"bilinear": "linear", "bicubic": "cubic"}
"""Maps the names that the modes have in operator set 16 to their present names."""


def mode_of(c: NodeContext[V]) -> str:
    """The node's mode: linear, cubic or nearest. Raises Refusal for another mode, and for images of integers."""
    if not c.builder.is_float(c.input(0)):
        raise Refusal("GridSample of integers; cast them to FLOAT")
    named = str(c.attributes.get("mode", "linear"))
    mode = _MODES.get(named, named)
    if mode not in ("linear", "cubic", "nearest"):
        raise Refusal(f"mode '{mode}'")
    return mode


def grid_sample(c: NodeContext[V]) -> None:
    """GridSample by gathers: for each coordinate the weighted sum of the elements around it."""
    c.give(_Sampler(c, mode_of(c)).sample())


class _Sampler(Generic[V]):
    def __init__(self, c: NodeContext[V], mode: str) -> None:
        b = self._b = c.builder
        self._x, grid = c.input(0), c.input(1)
        self._mode = mode
        self._padding = c.attributes.get("padding_mode", "zeros")
        self._aligned = bool(c.attributes.get("align_corners", 0))
        self._batch, self._channels, *self._sizes = b.dims(self._x)
        self._target = b.dims(grid)[1:-1]
        self._count = b.product(self._target)
        self._image = b.reshape(self._x, [self._batch, self._channels, b.product(self._sizes)])
        flat = b.reshape(grid, [self._batch, self._count, len(self._sizes)])
        # The grid's coordinates are (x, y[, z]): the last one belongs to the first spatial axis.
        parts = reversed(b.split(flat, [1] * len(self._sizes), 2))
        self._coordinates = [
            self._unnormalized(b.squeeze(part, [2]), size) for part, size in zip(parts, self._sizes, strict=True)
        ]

    def _length(self, size: Dim[V], less: int = 0) -> V | float:
        """`size - less`: a number if the size is known, else a value of the program, in the image's element type."""
        if isinstance(size, int):
            return float(size - less)
        return self._b.cast(self._b.sub(size, less) if less else size, self._b.dtype(self._x))

    def _half(self, length: V | float) -> V | float:
        return length / 2 if isinstance(length, float) else self._b.mul(length, 0.5)

    def _unnormalized(self, coordinate: V, size: Dim[V]) -> V:
        """Map coordinates from [-1, 1] to indices of elements."""
        b, shifted = self._b, self._b.add(coordinate, 1)
        if self._aligned:
            return b.mul(shifted, self._half(self._length(size, 1)))
        return b.sub(b.mul(shifted, self._half(self._length(size))), 0.5)

    def sample(self) -> V:
        """Compute the node's output: the image's elements, interpolated at the grid's coordinates."""
        if self._mode == "nearest":
            result = self._read(
                [
                    self._nearest(coordinate, size)
                    for coordinate, size in zip(self._coordinates, self._sizes, strict=True)
                ]
            )
        else:
            result = self._weighted(is_cubic=self._mode == "cubic")
        return self._b.reshape(result, [self._batch, self._channels, *self._target])

    def _nearest(self, coordinate: V, size: Dim[V]) -> V:
        """The index of the element nearest to a coordinate, on an axis of `size` elements.

        ONNX rounds first and reflects then, which differs for ties: of 6 elements, -3.5 becomes -4 and then 3. (PyTorch
        reflects first: 2.5, then 2.) The second rounding removes errors of the reflection's arithmetic.
        """
        rounded = self._b.elementwise("Round", coordinate)
        if self._padding != "reflection":
            return self._padded(rounded, size)
        return self._b.elementwise("Round", self._padded(rounded, size))

    def _weighted(self, *, is_cubic: bool) -> V:
        b = self._b
        corners: list[list[tuple[V, V]]] = []
        for coordinate, size in zip(self._coordinates, self._sizes, strict=True):
            padded = coordinate if is_cubic else self._padded(coordinate, size)
            base = b.floor(padded)
            ratio = b.sub(padded, base)
            offsets = range(-1, 3) if is_cubic else range(2)
            corners.append([(b.add(base, each), self._weight(ratio, each, is_cubic=is_cubic)) for each in offsets])
        total: Any = None
        for combination in itertools.product(*corners):
            weight = combination[0][1]
            for _, more in combination[1:]:
                weight = b.mul(weight, more)
            indices = [index for index, _ in combination]
            if is_cubic:
                indices = [self._padded(index, size) for index, size in zip(indices, self._sizes, strict=True)]
            part = b.mul(self._read(indices), b.unsqueeze(weight, [1]))
            total = part if total is None else b.add(total, part)
        return total

    def _weight(self, ratio: V, offset: int, *, is_cubic: bool) -> V:
        """The weight of the element at floor(coordinate) + offset, where `ratio` = coordinate - floor(coordinate)."""
        b = self._b
        if not is_cubic:
            return ratio if offset else b.sub(1, ratio)
        # Keys's cubic convolution kernel with a = -0.75, as in ONNX, as a polynomial of the distance (Horner's scheme).
        a = -0.75
        distance = b.elementwise("Abs", b.sub(ratio, offset))
        terms = (a + 2, -(a + 3), 0.0, 1.0) if offset in (0, 1) else (a, -5 * a, 8 * a, -4 * a)
        total = b.mul(distance, terms[0])
        for term in terms[1:3]:
            total = b.mul(b.add(total, term), distance)
        return b.add(total, terms[3])

    def _padded(self, coordinate: V, size: Dim[V]) -> V:
        """Move coordinates into the image, by the node's padding_mode."""
        if self._padding == "zeros":
            return coordinate
        if self._padding == "reflection":
            coordinate = self._reflected(coordinate, size)
        return self._b.clip(coordinate, 0.0, self._length(size, 1))

    def _reflected(self, coordinate: V, size: Dim[V]) -> V:
        """Reflect coordinates at the image's borders: with align_corners these are the centers of the outermost
        elements, without it their outer edges.
        """
        b = self._b
        low = 0.0 if self._aligned else -0.5
        length = self._length(size, 1 if self._aligned else 0)
        # With align_corners an axis of one element has length 0: use a small length instead, so that `mod` does not
        # divide by 0. The coordinate is clipped to 0 afterwards in any case.
        length = max(length, 1e-3) if isinstance(length, float) else b.maximum(length, 1e-3)
        twice = 2 * length if isinstance(length, float) else b.add(length, length)
        away = b.elementwise("Abs", b.sub(coordinate, low))
        within = b.mod(away, twice)
        return b.add(b.minimum(within, b.sub(twice, within)), low)

    def _read(self, indices: list[V]) -> V:
        """The elements at integral coordinates; 0 outside the image if padding_mode is "zeros"."""
        b = self._b
        flat: Any = None
        inside: Any = None
        for index, size in zip(indices, self._sizes, strict=True):
            clipped = b.clip(index, 0.0, self._length(size, 1))
            is_inside = b.equal(clipped, index)
            inside = is_inside if inside is None else b.both(inside, is_inside)
            whole = b.cast(clipped, "int32")
            flat = whole if flat is None else b.add(b.mul(flat, size), whole)
        flat_indices = b.expand(b.unsqueeze(flat, [1]), [self._batch, self._channels, self._count])
        values = b.gather_elements(self._image, flat_indices, 2)
        return values if self._padding != "zeros" else b.where(b.unsqueeze(inside, [1]), values, 0)


TABLE: Mapping[str, Lowering] = {"GridSample": grid_sample}
