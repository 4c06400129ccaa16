"""A unit that computes products and convolutions of arrays."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from triune.api.direct.arrays import EXACT_TERMS, MOST_TERMS, NAMES, array_of, dtype_name, require_memory
from triune.api.direct.executables import Executables
from triune.api.direct.graphs import Work
from triune.core.datatypes import Array
from triune.core.errors import InvalidArgumentError
from triune.core.tensors import format_shape
from triune.core.units import Unit

_CONV_RANK: Final = 4

_PRODUCTS: Final = {dtype: Work("MatMul", dtype, (2, 2)) for dtype in NAMES.values()}
"""The `Work` of a product of two matrices, by dtype: made once, since most direct work is such a product."""


class DirectUnit:
    """A unit for direct work. `triune.unit` makes it. Methods may be called from any thread.

    Attributes:
        unit: the unit.
        is_emulated: whether the unit is emulated. Results then have its precision, but are not computed at its speed.
    """

    def __init__(self, unit: Unit, executables: Executables, *, is_emulated: bool) -> None:
        """`executables` gives the compiled programs that compute products and convolutions on the unit."""
        self.unit = unit
        self.is_emulated = is_emulated
        self._executables = executables

    def matmul(self, a: Any, b: Any) -> Array:
        """The product of two arrays, as `numpy.matmul` defines it: batches are broadcast.

        Args:
            a: (..., m, k) of FP32, FP16, BF16 (ml_dtypes) or INT8: a numpy array, or one that can be read by DLPack.
            b: (..., k, n) of the same dtype.

        Returns:
            (..., m, n) of the same dtype; of int8, exact sums as INT32.

        Raises:
            InvalidArgumentError: shapes or dtypes do not fit each other, or are not supported.
            UnsupportedError: no installed runtime computes the product on the unit.
            UnavailableError: the result does not fit the memory.
        """
        first, second = array_of(a, "a"), array_of(b, "b")
        return self.product(first, second, dtype_name(first, second, ("a", "b")))

    def product(self, a: Array, b: Array, dtype: str) -> Array:
        """`matmul` of arrays whose dtype is known to be `dtype`."""
        shape = product_shape(a, b)
        if a.ndim == 2 and b.ndim == 2 and a.size and b.size and dtype != "int8":
            require_memory(shape, a.itemsize)
            return self._executables.run(self.unit, _PRODUCTS[dtype], (a, b))
        terms = a.shape[-1]
        require_memory(shape, 4 if dtype == "int8" else a.itemsize)
        if 0 in shape or not terms:
            return np.zeros(shape, np.int32 if dtype == "int8" else a.dtype)
        left, right = (a[np.newaxis] if a.ndim == 1 else a), (b[:, np.newaxis] if b.ndim == 1 else b)
        if right.ndim == 2:
            # If all batches share the second matrix, compute one product with the rows of all batches.
            left = left.reshape(-1, terms)
        work = Work("MatMul", dtype, (left.ndim, right.ndim))
        if dtype != "int8" or self.unit is Unit.CPU or terms <= EXACT_TERMS:
            return self._executables.run(self.unit, work, (left, right)).reshape(shape)
        # Add up products of at most EXACT_TERMS terms: units other than `cpu` add in fp32, which is exact for so many.
        parts = [slice(at, at + EXACT_TERMS) for at in range(0, terms, EXACT_TERMS)]
        total = self._executables.run(self.unit, work, (left[..., parts[0]], right[..., parts[0], :]))
        for part in parts[1:]:
            total += self._executables.run(self.unit, work, (left[..., part], right[..., part, :]))
        return total.reshape(shape)

    def conv2d(
        self,
        x: Any,
        w: Any,
        *,
        strides: Sequence[int] = (1, 1),
        padding: Sequence[int] = (0, 0),
        dilations: Sequence[int] = (1, 1),
        groups: int = 1,
    ) -> Array:
        """The convolution of images.

        Args:
            x: (batch, channels, height, width), of the dtypes that `matmul` takes.
            w: (filters, channels / groups, kernel height, kernel width) of the same dtype.
            strides: the strides along height and width, at least 1.
            padding: the number of zeros before and after height and width, at least 0.
            dilations: the dilations along height and width, at least 1.
            groups: the number of groups of channels.

        Returns:
            (batch, filters, height, width) of the same dtype; of int8, exact sums as INT32.

        Raises:
            The errors of `matmul`.
        """
        image, kernel = array_of(x, "x"), array_of(w, "w")
        dtype = dtype_name(image, kernel, ("x", "w"))
        settings = {
            "strides": _pair("strides", strides, 1),
            "padding": _pair("padding", padding, 0),
            "dilations": _pair("dilations", dilations, 1),
        }
        shape = _conv_shape(image, kernel, groups, settings)
        require_memory(shape, 4 if dtype == "int8" else image.itemsize)
        if 0 in shape or not kernel.size:
            return np.zeros(shape, np.int32 if dtype == "int8" else image.dtype)
        attributes = (
            ("dilations", settings["dilations"]),
            ("group", groups),
            ("pads", settings["padding"] * 2),
            ("strides", settings["strides"]),
        )
        work = Work("Conv", dtype, (_CONV_RANK, _CONV_RANK), attributes=attributes)
        area = kernel.shape[2] * kernel.shape[3]
        if dtype != "int8" or self.unit is Unit.CPU or kernel.shape[1] * area <= EXACT_TERMS:
            return self._executables.run(self.unit, work, (image, kernel))
        if groups > 1 or area > EXACT_TERMS:
            raise InvalidArgumentError(
                f"each sum of the convolution has {kernel.shape[1] * area} products of int8; with groups or a large "
                f"kernel '{self.unit.value}' adds {EXACT_TERMS} exactly: compute it on 'cpu'"
            )
        step = EXACT_TERMS // area
        parts = [slice(at, at + step) for at in range(0, kernel.shape[1], step)]
        total = self._executables.run(self.unit, work, (image[:, parts[0]], kernel[:, parts[0]]))
        for part in parts[1:]:
            total += self._executables.run(self.unit, work, (image[:, part], kernel[:, part]))
        return total

    def __repr__(self) -> str:
        return f"<triune.unit {self.unit.value}{', emulated' if self.is_emulated else ''}>"


def product_shape(a: Array, b: Array) -> tuple[int, ...]:
    """The shape of a product of arrays. Raises InvalidArgumentError if they do not fit each other."""
    if a.ndim == 2 and b.ndim == 2 and a.shape[1] == b.shape[0] <= MOST_TERMS:
        return (a.shape[0], b.shape[1])
    shapes = f"{format_shape(a.shape)} and {format_shape(b.shape)}"
    if not a.ndim or not b.ndim:
        raise InvalidArgumentError(f"a product is of arrays with at least one axis; these have the shapes {shapes}")
    inner = b.shape[-2 if b.ndim > 1 else 0]
    if a.shape[-1] != inner:
        raise InvalidArgumentError(
            f"the last axis of 'a' has {a.shape[-1]} elements and the one before the last of 'b' {inner}; they must be "
            f"equal: the shapes are {shapes}"
        )
    if inner > MOST_TERMS and a.dtype == np.int8:
        raise InvalidArgumentError(
            f"sums of {inner} products of int8 may be beyond int32, which holds {MOST_TERMS}; split the axis"
        )
    try:
        batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    except ValueError as error:
        raise InvalidArgumentError(f"the batches of {shapes} cannot be broadcast to each other") from error
    return (*batch, *a.shape[-2:-1], *(b.shape[-1:] if b.ndim > 1 else ()))


def _pair(name: str, value: Sequence[int], least: int) -> tuple[int, ...]:
    pair: tuple[Any, ...] = tuple(value)
    if len(pair) != 2 or any(not isinstance(each, int) or each < least for each in pair):
        raise InvalidArgumentError(f"{name} is {value!r}; give two whole numbers from {least} on: height and width")
    return pair


def _conv_shape(x: Array, w: Array, groups: int, settings: dict[str, tuple[int, ...]]) -> tuple[int, ...]:
    shapes = f"x {format_shape(x.shape)}, w {format_shape(w.shape)}"
    if x.ndim != _CONV_RANK or w.ndim != _CONV_RANK:
        raise InvalidArgumentError(f"a convolution is of arrays with four axes; these are {shapes}")
    if groups < 1 or x.shape[1] != w.shape[1] * groups or w.shape[0] % groups:
        raise InvalidArgumentError(
            f"{x.shape[1]} channels and {w.shape[0]} filters do not fit {groups} groups of {w.shape[1]} channels: "
            f"{shapes}"
        )
    sizes: list[int] = []
    for axis in (0, 1):
        extent = settings["dilations"][axis] * (w.shape[2 + axis] - 1) + 1
        room = x.shape[2 + axis] + 2 * settings["padding"][axis] - extent
        if w.shape[2 + axis] < 1 or room < 0:
            raise InvalidArgumentError(
                f"a kernel of {extent} does not fit {x.shape[2 + axis]} elements with {settings['padding'][axis]} "
                f"zeros on each side: {shapes}"
            )
        sizes.append(room // settings["strides"][axis] + 1)
    return (x.shape[0], w.shape[0], *sizes)
