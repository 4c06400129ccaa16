"""The windows of convolutions and pools: padding, output sizes, and the elements that they cover."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triune.graph.conversion.problems import Refusal

SAME = ("SAME_UPPER", "SAME_LOWER")
"""The values of `auto_pad` with which the padding depends on the image's size."""


@dataclass(frozen=True, slots=True)
class Window:
    """The kernel of a convolution or pool as it moves over an image. Lists have an element for each spatial dimension.

    Attributes:
        kernel: the size of the kernel.
        strides: the distances between successive positions of the window.
        dilations: the distances between neighbouring elements of the kernel.
        auto_pad: ONNX's attribute `auto_pad`.
        pads: ONNX's attribute `pads`, all begins, then all ends; zeros unless `auto_pad` is NOTSET.
    """

    kernel: list[int]
    strides: list[int]
    dilations: list[int]
    auto_pad: str
    pads: list[int]

    def extent(self, axis: int) -> int:
        """The number of elements of the image that the dilated kernel spans: (kernel - 1) * dilation + 1."""
        return (self.kernel[axis] - 1) * self.dilations[axis] + 1

    def padding(self, axis: int, size: int | None) -> tuple[int, int] | None:
        """The padding before and after a spatial dimension; None if it depends on a size that is not known."""
        if self.auto_pad not in SAME:
            return self.pads[axis], self.pads[axis + len(self.kernel)]
        stride, extent = self.strides[axis], self.extent(axis)
        if stride == 1:
            total = extent - 1
        elif size is None:
            return None
        else:
            total = max((-(-size // stride) - 1) * stride + extent - size, 0)
        before = total // 2 if self.auto_pad == "SAME_UPPER" else total - total // 2
        return before, total - before

    def count(self, axis: int, size: int, *, is_ceil: bool = False) -> int:
        """The output size: floor((padded size - extent) / stride) + 1.

        With `is_ceil` (ONNX's `ceil_mode`) it is rounded up, but a window that begins in the padding at the end does
        not count.
        """
        begin, end = self.padding(axis, size) or (0, 0)
        room = size + begin + end - self.extent(axis)
        num_positions = (math.ceil(room / self.strides[axis]) if is_ceil else room // self.strides[axis]) + 1
        if is_ceil and (num_positions - 1) * self.strides[axis] >= size + begin:
            num_positions -= 1
        return num_positions

    def require_room(self, sizes: Sequence[int | None], *, is_ceil: bool = False) -> None:
        """Raise Refusal if the window does not fit into the padded image. `sizes` are the image's spatial sizes (None
        if not known).
        """
        for axis, size in enumerate(sizes):
            if size is not None and self.count(axis, size, is_ceil=is_ceil) < 1:
                begin, end = self.padding(axis, size) or (0, 0)
                raise Refusal(
                    f"a window of {self.extent(axis)} does not fit into an image of {size} with padding of {begin} and "
                    f"{end}, and the result would be empty; give the input larger sizes"
                )

    def overhang(self, axis: int, size: int) -> int:
        """By how many elements the window exceeds the padded image, if they are fewer than the stride; else 0.

        For a window that exceeds the image so, ONNX's formula gives the output size 0. ONNX Runtime and ONNX's shape
        inference round towards 0, which gives 1.
        """
        begin, end = self.padding(axis, size) or (0, 0)
        excess = self.extent(axis) - (size + begin + end)
        return excess if 0 < excess < self.strides[axis] else 0

    def reach(self, axis: int, end: int) -> int:
        """The largest number of elements by which a window can reach beyond the end of a dimension with `ceil_mode`,
        for any size.

        `end` is the padding after the dimension. Every window begins in the image or in the padding before it.
        """
        return min(end + self.strides[axis] - 1, self.extent(axis) - 1)

    def needed(self, axis: int, count: int) -> int:
        """The number of elements that `count` windows span: (count - 1) * stride + extent."""
        return (count - 1) * self.strides[axis] + self.extent(axis)

    def parts(self, counts: Sequence[int]) -> Iterator[tuple[slice, ...]]:
        """Yield, for each element of the kernel, the slice of the padded image with which it is multiplied. `counts`
        are the output sizes.
        """
        for offsets in itertools.product(*(range(size) for size in self.kernel)):
            begins = [offset * dilation for offset, dilation in zip(offsets, self.dilations, strict=True)]
            yield tuple(
                slice(begin, begin + (count - 1) * stride + 1, stride)
                for begin, count, stride in zip(begins, counts, self.strides, strict=True)
            )


def window_of(attributes: Mapping[str, Any], kernel: Sequence[int]) -> Window:
    """Create the window of a node from its attributes.

    Raises:
        Refusal: a pad is negative.
    """
    spatial = len(kernel)
    auto = attributes.get("auto_pad", "NOTSET")
    pads = list(attributes.get("pads", [0] * 2 * spatial)) if auto == "NOTSET" else [0] * 2 * spatial
    if any(each < 0 for each in pads):
        raise Refusal("negative pads; use Slice")
    strides = list(attributes.get("strides", [1] * spatial))
    return Window(list(kernel), strides, list(attributes.get("dilations", [1] * spatial)), auto, pads)


def pool_window(attributes: Mapping[str, Any], sizes: Sequence[int | None]) -> Window:
    """Create the window of a pool over an image with these spatial sizes; None for one that is not known.

    Raises:
        Refusal: a pad is negative, or the window does not fit into the padded image.
    """
    window = window_of(attributes, attributes["kernel_shape"])
    window.require_room(sizes, is_ceil=bool(attributes.get("ceil_mode", 0)))
    return window


def cuts_of(
    attributes: Mapping[str, Any], extents: Sequence[int], strides: Sequence[int], sizes: Sequence[int | None]
) -> list[tuple[int, int]]:
    """How many elements of a ConvTranspose's full result are cut off at the begin and the end of each spatial
    dimension.

    By ONNX's specification, total_padding = stride * (size - 1) + output_padding + extent - output_shape.

    Args:
        attributes: the node's attributes.
        extents: the extents of the dilated kernel.
        strides: the node's strides.
        sizes: the image's spatial sizes; None if not known.

    Returns:
        the number at the begin and at the end of each dimension, negative if zeros are added instead.

    Raises:
        Refusal: there is an `output_shape`, and a size is not known.
    """
    spatial = len(extents)
    more = list(attributes.get("output_padding", [0] * spatial))
    auto = attributes.get("auto_pad", "NOTSET")
    wanted = attributes.get("output_shape")
    if wanted is None and auto not in SAME:
        pads = list(attributes.get("pads", [0] * 2 * spatial)) if auto == "NOTSET" else [0] * 2 * spatial
        return [(pads[axis], pads[spatial + axis] - more[axis]) for axis in range(spatial)]
    cuts: list[tuple[int, int]] = []
    for axis, size in enumerate(sizes):
        # The uncut result has (size - 1) * stride + extent elements. With SAME, the output has only size * stride of
        # them, so extent - stride elements are cut off, and output_padding more.
        total = more[axis] + extents[axis] - strides[axis]
        if wanted is not None:
            if size is None:
                raise Refusal("an output_shape, where the image's size is not fixed; give a fixed size with --shape")
            total += strides[axis] * size - wanted[axis - spatial]
        # As in ONNX Runtime, SAME_UPPER cuts the smaller half off the beginning, every other mode the larger half.
        before = max(total // 2 if auto == "SAME_UPPER" else total - total // 2, 0)
        # If the kernel is smaller than the stride, SAME neither removes nor adds elements: see decision 13.
        excess = total if wanted is not None else max(total, 0)
        cuts.append((before, excess - before - more[axis]))
    return cuts


def flat_indices(shape: Sequence[int], *, is_column_major: bool) -> NDArray[np.int32]:
    """The index of each element of an image (batch, channels, spatial...) in the flattened image.

    If `is_column_major`, elements of a channel are counted along the first spatial axis first, else along the last.
    """
    plane = math.prod(shape[2:])
    within = np.arange(plane).reshape(shape[2:], order="F" if is_column_major else "C")
    images = np.arange(shape[0] * shape[1]).reshape(*shape[:2], *[1] * (len(shape) - 2))
    return (images * plane + within).astype(np.int32)
