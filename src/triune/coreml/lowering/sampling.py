"""GridSample: an image read at places that are computed."""

import itertools
from typing import Any

import numpy as np

from triune.coreml.lowering.broadcast import select
from triune.coreml.lowering.context import Context, Lowering, Refusal, dtype_of, is_float, like, static_shape
from triune.coreml.lowering.mb import Var, mb


def _grid_sample(c: Context) -> None:
    x, grid = c.input(0), c.input(1)
    if not is_float(x):
        raise Refusal("GridSample of whole numbers; cast them to FLOAT")
    mode = {"bilinear": "linear", "bicubic": "cubic"}.get(c.attributes.get("mode", "linear"), c.attributes.get("mode"))
    mode = mode or "linear"
    padding = c.attributes.get("padding_mode", "zeros")
    aligned = bool(c.attributes.get("align_corners", 0))
    if x.rank == 4 and mode == "linear" and padding in ("zeros", "border"):
        sampled = mb.resample(
            x=x,
            coordinates=grid,
            sampling_mode="bilinear",
            padding_mode="constant" if padding == "zeros" else "border",
            padding_value=like(x, 0),
            coordinates_mode="normalized_minus_one_to_one",
            align_corners=aligned,
        )
        c.give(sampled)
        return
    c.give(_Sampler(x, grid, padding, aligned=aligned).sample(mode))


class _Sampler:
    """Sampling by gathers: for every place the elements around it, weighted."""

    def __init__(self, x: Var, grid: Var, padding: str, *, aligned: bool) -> None:
        self._shape = static_shape(x, "the sampled image's shape")
        self._target = static_shape(grid, "the grid's shape")[1:-1]
        self._spatial = self._shape[2:]
        self._count = int(np.prod(self._target))
        batch, channels = self._shape[:2]
        self._image = mb.reshape(x=x, shape=[batch, channels, int(np.prod(self._spatial))])
        self._padding = padding
        self._aligned = aligned
        self._kind = dtype_of(x)
        self._x = x
        flat = mb.reshape(x=grid, shape=[batch, self._count, len(self._spatial)])
        parts = mb.split(x=flat, split_sizes=[1] * len(self._spatial), axis=2)
        # The grid's last coordinate is the first dimension's.
        self._places = [
            self._unnormalized(mb.squeeze(x=part, axes=[2]), size)
            for part, size in zip(reversed(parts), self._spatial, strict=True)
        ]

    def _unnormalized(self, place: Var, size: int) -> Var:
        """From [-1, 1] to the indices of the elements."""
        one, half = like(place, 1), like(place, 0.5)
        shifted = mb.add(x=place, y=one)
        if self._aligned:
            return mb.mul(x=shifted, y=like(place, (size - 1) / 2))
        return mb.sub(x=mb.mul(x=shifted, y=like(place, size / 2)), y=half)

    def sample(self, mode: str) -> Var:
        """The image at the grid's places."""
        if mode == "nearest":
            indices = [mb.round(x=self._settled(place, size)) for place, size in self._sized()]
            result = self._read(indices)
        else:
            result = self._weighted(cubic=mode == "cubic")
        return mb.reshape(x=result, shape=[*self._shape[:2], *self._target])

    def _sized(self) -> list[tuple[Var, int]]:
        return list(zip(self._places, self._spatial, strict=True))

    def _weighted(self, *, cubic: bool) -> Var:
        corners: list[list[tuple[Var, Var]]] = []
        for place, size in self._sized():
            settled = place if cubic else self._settled(place, size)
            base = mb.floor(x=settled)
            ratio = mb.sub(x=settled, y=base)
            offsets = range(-1, 3) if cubic else range(2)
            corners.append(
                [(mb.add(x=base, y=like(base, offset)), _weight(ratio, offset, cubic=cubic)) for offset in offsets]
            )
        total: Var | None = None
        for combination in itertools.product(*corners):
            weight = combination[0][1]
            for _, more in combination[1:]:
                weight = mb.mul(x=weight, y=more)
            indices = [index for index, _ in combination]
            if cubic:
                indices = [self._settled(i, size) for i, size in zip(indices, self._spatial, strict=True)]
            part = mb.mul(x=self._read(indices), y=mb.expand_dims(x=weight, axes=[1]))
            total = part if total is None else mb.add(x=total, y=part)
        return total

    def _settled(self, place: Var, size: int) -> Var:
        """A place brought into the image, as the padding says."""
        if self._padding == "zeros":
            return place
        if self._padding == "reflection":
            place = self._reflected(place, size)
        return mb.clip(x=place, alpha=like(place, 0), beta=like(place, size - 1))

    def _reflected(self, place: Var, size: int) -> Var:
        """Mirrored at the image's borders: the centers of the outermost elements if aligned, else their edges."""
        low, high = (0.0, size - 1.0) if self._aligned else (-0.5, size - 0.5)
        length = high - low
        if length == 0:
            return mb.mul(x=place, y=like(place, 0))
        away = mb.abs(x=mb.sub(x=place, y=like(place, low)))
        within = mb.mod(x=away, y=like(place, 2 * length))
        folded = mb.minimum(x=within, y=mb.sub(x=like(place, 2 * length), y=within))
        return mb.add(x=folded, y=like(place, low))

    def _read(self, indices: list[Var]) -> Var:
        """The elements at whole-numbered places, zero outside."""
        batch, channels = self._shape[:2]
        flat: Any = None
        inside: Any = None
        for index, size in zip(indices, self._spatial, strict=True):
            clipped = mb.clip(x=index, alpha=like(index, 0), beta=like(index, size - 1))
            is_in = mb.equal(x=clipped, y=index)
            inside = is_in if inside is None else mb.logical_and(x=inside, y=is_in)
            whole = mb.cast(x=clipped, dtype="int32")
            flat = whole if flat is None else mb.add(x=mb.mul(x=flat, y=np.int32(size)), y=whole)
        spread = mb.tile(x=mb.expand_dims(x=flat, axes=[1]), reps=[1, channels, 1])
        values = mb.gather_along_axis(x=self._image, indices=spread, axis=2)
        if self._padding != "zeros":
            return values
        zeros = mb.const(val=np.zeros((batch, channels, self._count), self._kind))
        return select(mb.expand_dims(x=inside, axes=[1]), values, zeros)


def _weight(ratio: Var, offset: int, *, cubic: bool) -> Var:
    """Of the element `offset` from the one before the place."""
    one = like(ratio, 1)
    if not cubic:
        return ratio if offset else mb.sub(x=one, y=ratio)
    # Keys' kernel with a = -0.75, as ONNX has it for GridSample.
    a = -0.75
    distance = mb.abs(x=mb.sub(x=ratio, y=like(ratio, offset)))
    terms = (a + 2, -(a + 3), 0.0, 1.0) if offset in (0, 1) else (a, -5 * a, 8 * a, -4 * a)
    total = mb.mul(x=distance, y=like(ratio, terms[0]))
    for term in terms[1:3]:
        total = mb.mul(x=mb.add(x=total, y=like(ratio, term)), y=distance)
    return mb.add(x=total, y=like(ratio, terms[3]))


TABLE: dict[str, Lowering] = {"GridSample": _grid_sample}
