"""The geometry of the windows of convolutions and pools: padding, output sizes, covered elements."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triune.graph.conversion.problems import Refusal

SAME = ("SAME_UPPER", "SAME_LOWER")
"""The values of `auto_pad` by which the padding depends on the image's size."""


@dataclass(frozen=True, slots=True)
class Window:
    """A window that moves over spatial dimensions; a list has an element for each of them.

    Attributes:
        kernel: its size.
        strides: the distances between successive windows.
        dilations: the distances between neighbouring elements of the window.
        auto_pad: ONNX's attribute.
        pads: ONNX's attribute: all begins, then all ends; empty if `auto_pad` decides.
    """

    kernel: list[int]
    strides: list[int]
    dilations: list[int]
    auto_pad: str
    pads: list[int]

    def extent(self, axis: int) -> int:
        """The extent of the dilated window: (kernel - 1) * dilation + 1."""
        return (self.kernel[axis] - 1) * self.dilations[axis] + 1

    def padding(self, axis: int, size: int | None) -> tuple[int, int] | None:
        """The padding before and after a spatial dimension; None if it depends on a size that is unknown."""
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

        With `is_ceil` a window counts too that begins inside and ends after the padding.
        """
        begin, end = self.padding(axis, size) or (0, 0)
        room = size + begin + end - self.extent(axis)
        places = (math.ceil(room / self.strides[axis]) if is_ceil else room // self.strides[axis]) + 1
        if is_ceil and (places - 1) * self.strides[axis] >= size + begin:
            places -= 1
        return places

    def require_room(self, sizes: Sequence[int | None], *, is_ceil: bool = False) -> None:
        """Raise Refusal if the window does not fit into the padded image of spatial sizes `sizes` (None if unknown)."""
        for axis, size in enumerate(sizes):
            if size is not None and self.count(axis, size, is_ceil=is_ceil) < 1:
                begin, end = self.padding(axis, size) or (0, 0)
                raise Refusal(
                    f"a window of {self.extent(axis)} does not fit into an image of {size} with padding of {begin} and "
                    f"{end}, and the result would be empty; give the input larger sizes"
                )

    def overhang(self, axis: int, size: int) -> int:
        """How far the window exceeds the padded image, if that is by less than a stride; else 0.

        ONNX's formula then gives the output size 0; ONNX Runtime and ONNX's shape inference round towards 0 and give 1.
        """
        begin, end = self.padding(axis, size) or (0, 0)
        behind = self.extent(axis) - (size + begin + end)
        return behind if 0 < behind < self.strides[axis] else 0

    def reach(self, axis: int, end: int) -> int:
        """How far windows reach beyond a dimension of any size with `ceil_mode`, at most.

        `end` is the padding after the dimension. A window begins in the image or in the padding before it.
        """
        return min(end + self.strides[axis] - 1, self.extent(axis) - 1)

    def needed(self, axis: int, count: int) -> int:
        """The length that `count` windows cover: (count - 1) * stride + extent."""
        return (count - 1) * self.strides[axis] + self.extent(axis)

    def parts(self, counts: Sequence[int]) -> Iterator[tuple[slice, ...]]:
        """For each element of the kernel, the slice of the padded image that it covers; `counts`: the output sizes."""
        for offsets in itertools.product(*(range(size) for size in self.kernel)):
            begins = [offset * dilation for offset, dilation in zip(offsets, self.dilations, strict=True)]
            yield tuple(
                slice(begin, begin + (count - 1) * stride + 1, stride)
                for begin, count, stride in zip(begins, counts, self.strides, strict=True)
            )


def window_of(attributes: Mapping[str, Any], kernel: Sequence[int]) -> Window:
    """The window of a node with these attributes.

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


def cuts_of(
    attributes: Mapping[str, Any], extents: Sequence[int], strides: Sequence[int], sizes: Sequence[int | None]
) -> list[tuple[int, int]]:
    """How much of a ConvTranspose's full result is cut off at the begin and the end of each spatial dimension.

    ONNX's standard: `total_padding = stride * (size - 1) + output_padding + extent - output_shape`.

    Args:
        attributes: the node's attributes.
        extents: the extents of the dilated kernel.
        strides: the node's strides.
        sizes: the image's spatial sizes; None where unknown.

    Returns:
        The begin and end of each dimension; negative where zeros are added instead.

    Raises:
        Refusal: there is an `output_shape`, and a size is unknown.
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
        # SAME wants size * stride elements; the full result has (size - 1) * stride + extent: cut extent - stride.
        total = more[axis] + extents[axis] - strides[axis]
        if wanted is not None:
            if size is None:
                raise Refusal("an output_shape, where the image's size is not fixed; give a fixed size with --shape")
            total += strides[axis] * size - wanted[axis - spatial]
        # ONNX's text and its reference evaluator differ; ONNX Runtime agrees with the evaluator.
        before = max(total // 2 if auto == "SAME_UPPER" else total - total // 2, 0)
        # If the kernel is smaller than the stride, SAME neither cuts nor adds: see decision 13.
        behind = total if wanted is not None else max(total, 0)
        cuts.append((before, behind - before - more[axis]))
    return cuts


def flat_indices(shape: Sequence[int], *, is_column_major: bool) -> NDArray[np.int32]:
    """The flat index of each element of an image (batch, channels, spatial...)."""
    plane = math.prod(shape[2:])
    within = np.arange(plane).reshape(shape[2:], order="F" if is_column_major else "C")
    images = np.arange(shape[0] * shape[1]).reshape(*shape[:2], *[1] * (len(shape) - 2))
    return (images * plane + within).astype(np.int32)
