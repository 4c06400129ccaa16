"""GridSample: an image read at places that are computed."""

import itertools

import numpy as np

from triune.coreai.library import Value, ops
from triune.coreai.lowering.context import Context, Lowering
from triune.coreai.lowering.dims import as_scalar, cut, dims_of, expand, product, shaped, spread, squeeze
from triune.coreai.lowering.unary import floor
from triune.coreai.lowering.values import axis, cast, dtype_of, is_float, like
from triune.graph.conversion.problems import Refusal


def _grid_sample(c: Context) -> None:
    x, grid = c.input(0), c.input(1)
    if not is_float(x):
        raise Refusal("GridSample of whole numbers; cast them to FLOAT")
    named = str(c.attributes.get("mode", "linear"))
    mode = {"bilinear": "linear", "bicubic": "cubic"}.get(named, named)
    padding = c.attributes.get("padding_mode", "zeros")
    c.give(_Sampler(x, grid, padding, aligned=bool(c.attributes.get("align_corners", 0))).sample(mode))


class _Sampler:
    """Sampling by gathers: for every place the elements around it, weighted."""

    def __init__(self, x: Value, grid: Value, padding: str, *, aligned: bool) -> None:
        self._batch, self._channels, *spatial = dims_of(x)
        self._target = dims_of(grid)[1:-1]
        self._count = product(self._target)
        self._image = shaped(x, [self._batch, self._channels, product(spatial)])
        self._padding = padding
        self._aligned = aligned
        self._x = x
        self._sizes = [as_scalar(size) for size in spatial]
        flat = shaped(grid, [self._batch, self._count, len(spatial)])
        # The grid's last coordinate is the first dimension's.
        parts = [squeeze(cut(flat, 2, place, place + 1), [2]) for place in reversed(range(len(spatial)))]
        self._places = [self._unnormalized(part, size) for part, size in zip(parts, self._sizes, strict=True)]

    def _last(self, size: Value) -> Value:
        return cast(ops.sub(size, axis(1)), dtype_of(self._x))

    def _unnormalized(self, place: Value, size: Value) -> Value:
        """From [-1, 1] to the indices of the elements."""
        half = like(place, 0.5)
        shifted = ops.broadcasting_mul(ops.broadcasting_add(place, like(place, 1)), half)
        if self._aligned:
            return ops.broadcasting_mul(shifted, self._last(size))
        return ops.broadcasting_sub(ops.broadcasting_mul(shifted, cast(size, dtype_of(place))), half)

    def sample(self, mode: str) -> Value:
        """The image at the grid's places."""
        if mode == "nearest":
            settled = [self._settled(place, size) for place, size in zip(self._places, self._sizes, strict=True)]
            result = self._read([ops.round_(place) for place in settled])
        elif mode in ("linear", "cubic"):
            result = self._weighted(is_cubic=mode == "cubic")
        else:
            raise Refusal(f"mode '{mode}'")
        return shaped(result, [self._batch, self._channels, *self._target])

    def _weighted(self, *, is_cubic: bool) -> Value:
        corners: list[list[tuple[Value, Value]]] = []
        for place, size in zip(self._places, self._sizes, strict=True):
            settled = place if is_cubic else self._settled(place, size)
            base = floor(settled)
            ratio = ops.sub(settled, base)
            corners.append(
                [
                    (ops.broadcasting_add(base, like(base, offset)), _weight(ratio, offset, is_cubic=is_cubic))
                    for offset in (range(-1, 3) if is_cubic else range(2))
                ]
            )
        total: Value | None = None
        for combination in itertools.product(*corners):
            weight = combination[0][1]
            for _, more in combination[1:]:
                weight = ops.mul(weight, more)
            indices = [index for index, _ in combination]
            if is_cubic:
                indices = [self._settled(i, size) for i, size in zip(indices, self._sizes, strict=True)]
            part = ops.broadcasting_mul(self._read(indices), expand(weight, [1]))
            total = part if total is None else ops.add(total, part)
        return total

    def _settled(self, place: Value, size: Value) -> Value:
        """A place brought into the image, as the padding says."""
        if self._padding == "zeros":
            return place
        if self._padding == "reflection":
            place = self._reflected(place, size)
        return _clipped(place, self._last(size))

    def _reflected(self, place: Value, size: Value) -> Value:
        """Mirrored at the image's borders: the centers of the outermost elements if aligned, else their edges."""
        low = like(place, 0.0 if self._aligned else -0.5)
        length = self._last(size) if self._aligned else cast(size, dtype_of(place))
        # An image of one aligned element: everything lies there, which the clipping after this sees to.
        length = ops.broadcasting_maximum(length, like(place, 1e-3))
        twice = ops.add(length, length)
        away = ops.abs_(ops.broadcasting_sub(place, low))
        within = ops.broadcasting_modulo(away, twice)
        folded = ops.broadcasting_minimum(within, ops.broadcasting_sub(twice, within))
        return ops.broadcasting_add(folded, low)

    def _read(self, indices: list[Value]) -> Value:
        """The elements at whole-numbered places, zero outside."""
        flat: Value | None = None
        inside: Value | None = None
        for index, size in zip(indices, self._sizes, strict=True):
            clipped = _clipped(index, self._last(size))
            is_in = ops.equal(clipped, index)
            inside = is_in if inside is None else ops.and_(inside, is_in)
            whole = cast(clipped, np.int32)
            flat = whole if flat is None else ops.add(ops.broadcasting_mul(flat, size), whole)
        places = spread(expand(flat, [1]), [self._batch, self._channels, self._count])
        values = ops.gather_along_axis(self._image, places, axis(2))
        if self._padding != "zeros":
            return values
        return ops.broadcasting_where(expand(inside, [1]), values, like(values, 0))


def _clipped(place: Value, last: Value) -> Value:
    return ops.broadcasting_minimum(ops.broadcasting_maximum(place, like(place, 0)), last)


def _weight(ratio: Value, offset: int, *, is_cubic: bool) -> Value:
    """Of the element `offset` from the one before the place."""
    one = like(ratio, 1)
    if not is_cubic:
        return ratio if offset else ops.broadcasting_sub(one, ratio)
    # Keys' kernel with a = -0.75, as ONNX has it for GridSample.
    a = -0.75
    distance = ops.abs_(ops.broadcasting_sub(ratio, like(ratio, offset)))
    terms = (a + 2, -(a + 3), 0.0, 1.0) if offset in (0, 1) else (a, -5 * a, 8 * a, -4 * a)
    total = ops.broadcasting_mul(distance, like(ratio, terms[0]))
    for term in terms[1:3]:
        total = ops.mul(ops.broadcasting_add(total, like(ratio, term)), distance)
    return ops.broadcasting_add(total, like(ratio, terms[3]))


TABLE: dict[str, Lowering] = {"GridSample": _grid_sample}
