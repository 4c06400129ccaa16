"""Images whose channels are last in memory.

MLX convolves images with channels last; ONNX has them first. The result of a convolution is a view with channels first
of an array that has them last. An operation of MLX on two such views would write its result with channels first, and
the next convolution would copy it. So operations on such views are computed on the arrays behind them, which have
channels last.
"""

from collections.abc import Callable, Sequence

from triune.metal.library import Value, mx


def channels_last(x: Value) -> Value:
    """A view of (batch, channels, ...) as (batch, ..., channels)."""
    return mx.moveaxis(x, 1, -1)


def channels_first(x: Value) -> Value:
    """The inverse of `channels_last`."""
    return mx.moveaxis(x, -1, 1)


class Images:
    """Remembers the views with channels first that a run has made, and the array with channels last behind each."""

    def __init__(self) -> None:
        self._sources: dict[int, tuple[Value, Value]] = {}
        """By the `id` of each view: the view itself, so that its `id` is not used again, and the array behind it."""

    def first(self, source: Value) -> Value:
        """Make a view with channels first of an array that has channels last, and remember both."""
        view = channels_first(source)
        self._sources[id(view)] = view, source
        return view

    def last(self, x: Value) -> Value:
        """`x` with channels last. If `x` is a view that `Images.first` made, this is the array behind it."""
        found = self._sources.get(id(x))
        return channels_last(x) if found is None else found[1]

    def has(self, x: Value) -> bool:
        """Whether `x` is a view that `Images.first` made, so that an array with channels last is behind it."""
        return id(x) in self._sources

    def elementwise(self, function: Callable[..., Value], operands: Sequence[Value]) -> Value:
        """Compute `function(*operands)`, which is elementwise and broadcasts. If an operand is a view that
        `Images.first` made, compute with channels last, and return such a view.
        """
        if not self._sources or not any(map(self.has, operands)):
            return function(*operands)
        rank = max(x.ndim for x in operands)
        if any(self.has(x) and x.ndim < rank for x in operands):
            return function(*operands)
        return self.first(function(*(self._with_rank(x, rank) for x in operands)))

    def _with_rank(self, x: Value, rank: int) -> Value:
        """Give an operand `rank` axes, with axes of size 1 in front, and put its channels last. A scalar is returned
        unchanged.
        """
        if x.ndim == 0:
            return x
        return self.last(x if x.ndim == rank else x.reshape((*[1] * (rank - x.ndim), *x.shape)))

    def reduced(self, function: Callable[..., Value], x: Value, axes: Sequence[int], *, keepdims: bool) -> Value:
        """Compute `function(x, axis=axes, keepdims=keepdims)`, a reduction over non-negative axes. If `x` is a view
        that `Images.first` made, compute with channels last.
        """
        if not axes or not self.has(x):
            return function(x, axis=list(axes), keepdims=keepdims)
        found = self.first(function(self.last(x), axis=[_place(axis, x.ndim) for axis in axes], keepdims=True))
        return found if keepdims else mx.squeeze(found, list(axes))

    def joined(self, values: Sequence[Value], axis: int) -> Value:
        """Concatenate values along an axis >= 0: with channels last, if `Images.first` made all of them."""
        if not values or not all(map(self.has, values)):
            return mx.concatenate(list(values), axis)
        return self.first(mx.concatenate([self.last(x) for x in values], _place(axis, values[0].ndim)))


def _place(axis: int, rank: int) -> int:
    """The index that axis `axis` of an image of rank `rank` has when channels are last."""
    return axis if axis == 0 else rank - 1 if axis == 1 else axis - 1
