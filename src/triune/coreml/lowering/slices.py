"""Lowering of Slice."""

from typing import Any

import numpy as np

from triune.coreml.lowering.broadcast import as_vector, sizes_of
from triune.coreml.lowering.context import Context, Lowering, Refusal
from triune.coreml.lowering.mb import Var, is_fixed, mb
from triune.graph.axes import positive

_END = np.iinfo(np.int32).max


def _slice(c: Context) -> None:
    x = c.input(0)
    starts, ends = c.constant(1), c.constant(2)
    axes = c.ints(3, "the axes of a slice") if c.has(3) else list(range(_length(c.input(1))))
    steps = c.ints(4, "the steps of a slice") if c.has(4) else [1] * len(axes)
    plan = _SliceOperands(x)
    for index, (axis, step) in enumerate(zip(axes, steps, strict=True)):
        start = int(starts[index]) if starts is not None else _element(c.input(1), index)
        end = int(ends[index]) if ends is not None else _element(c.input(2), index)
        plan.cut(positive(axis, x.rank), start, end, step)
    c.give(plan.result())


def _length(vector: Var) -> int:
    if not is_fixed(vector.shape[0]):
        raise Refusal("the number of sliced axes is computed while the model runs; fix it")
    return int(vector.shape[0])


def _element(vector: Var, index: int) -> Var:
    return mb.gather(x=vector, indices=np.int32(index), axis=0)


class _SliceOperands:
    """The operands of slice_by_index for `x`, collected axis by axis."""

    def __init__(self, x: Var) -> None:
        self._x = x
        rank = x.rank
        self._begins: list[Any] = [0] * rank
        self._ends: list[Any] = [0] * rank
        self._strides = [1] * rank
        self._begin_masks = [True] * rank
        self._end_masks = [True] * rank
        self._sizes: list[Any] | None = None

    def cut(self, axis: int, start: Any, end: Any, step: int) -> None:
        """Slice `axis` from `start` to before `end` by `step`. Each bound is an int or a scalar of the program."""
        size = self._x.shape[axis]
        self._strides[axis] = step
        if is_fixed(size) and isinstance(start, int) and isinstance(end, int):
            self._cut_fixed(axis, range(*slice(start, end, step).indices(int(size))))
        elif step > 0:
            self._cut_forwards(axis, start, end)
        elif isinstance(start, int) and isinstance(end, int) and start in (-1, _END) and end <= -_END:
            # Write no bounds: the slice takes the whole dimension in reverse order, as the masks of begin and end
            # already say.
            return
        else:
            raise Refusal("a slice with a negative step whose bounds or size are computed; give fixed sizes")

    def _cut_fixed(self, axis: int, places: range) -> None:
        if len(places) == 0:
            raise Refusal("an empty slice: Core ML has no empty tensors")
        last = places[-1]
        self._begins[axis], self._begin_masks[axis] = places.start, False
        # A slice that goes back to the first element has no end index in MIL ("before the first element"): set the
        # end's mask, which means that there is no end.
        is_whole = places.step < 0 and last + places.step < 0
        self._end_masks[axis] = is_whole
        self._ends[axis] = 0 if is_whole else last + (1 if places.step > 0 else -1)

    def _cut_forwards(self, axis: int, start: Any, end: Any) -> None:
        if not (isinstance(start, int) and start == 0):
            self._begins[axis], self._begin_masks[axis] = self._bound(axis, start), False
        if not (isinstance(end, int) and end == _END):
            self._ends[axis], self._end_masks[axis] = self._bound(axis, end), False

    def _bound(self, axis: int, place: Any) -> Any:
        """Convert a bound to an index between 0 and the size, as ONNX does: a negative bound counts from the end."""
        if isinstance(place, int) and is_fixed(self._x.shape[axis]):
            size = int(self._x.shape[axis])
            return min(max(place + size if place < 0 else place, 0), size)
        if self._sizes is None:
            self._sizes = sizes_of(self._x)
        size = self._sizes[axis]
        limit = np.int32(size) if isinstance(size, int) else size
        if isinstance(place, int):
            if place >= 0:
                return mb.minimum(x=limit, y=np.int32(place))
            return mb.maximum(x=mb.add(x=limit, y=np.int32(max(place, -_END))), y=np.int32(0))
        if (
            place.sym_val is not None
            and not isinstance(place.sym_val, np.ndarray)
            and place.sym_val == size_symbol(self._x, axis)
        ):
            return place
        is_behind = mb.less(x=place, y=np.int32(0))
        front = mb.select(cond=is_behind, a=mb.add(x=place, y=limit), b=place)
        return mb.minimum(x=mb.maximum(x=front, y=np.int32(0)), y=limit)

    def result(self) -> Var:
        """Write the slice and return it."""
        return mb.slice_by_index(
            x=self._x,
            begin=as_vector(self._begins),
            end=as_vector(self._ends),
            stride=self._strides,
            begin_mask=self._begin_masks,
            end_mask=self._end_masks,
        )


def size_symbol(x: Var, axis: int) -> Any:
    """The size of dimension `axis`: an int, or coremltools' symbol for it."""
    return x.shape[axis]


TABLE: dict[str, Lowering] = {"Slice": _slice}
