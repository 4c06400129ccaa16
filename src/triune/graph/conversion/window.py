"""Where the windows of convolutions and pools lie."""

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
        strides: how far it moves.
        dilations: the distance of its elements.
        auto_pad: ONNX's.
        pads: as written: all begins, then all ends; none where `auto_pad` says so.
    """

    kernel: list[int]
    strides: list[int]
    dilations: list[int]
    auto_pad: str
    pads: list[int]

    def extent(self, axis: int) -> int:
        """From its first element to its last."""
        return (self.kernel[axis] - 1) * self.dilations[axis] + 1

    def padding(self, axis: int, size: int | None) -> tuple[int, int] | None:
        """What is put before and after a dimension of the image; None where its size decides and is not known."""
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
        """How many places it takes; with `is_ceil` also one that begins inside and ends behind the padding."""
        begin, end = self.padding(axis, size) or (0, 0)
        room = size + begin + end - self.extent(axis)
        places = (math.ceil(room / self.strides[axis]) if is_ceil else room // self.strides[axis]) + 1
        if is_ceil and (places - 1) * self.strides[axis] >= size + begin:
            places -= 1
        return places

    def require_room(self, sizes: Sequence[int | None], *, is_ceil: bool = False) -> None:
        """Raises Refusal for an image in which the window has no place. `sizes`: of the image, None if not known."""
        for axis, size in enumerate(sizes):
            if size is not None and self.count(axis, size, is_ceil=is_ceil) < 1:
                begin, end = self.padding(axis, size) or (0, 0)
                raise Refusal(
                    f"a window of {self.extent(axis)} has no place in an image of {size} with padding of {begin} and "
                    f"{end}, and the result would be empty; give the input larger sizes"
                )

    def overhang(self, axis: int, size: int) -> int:
        """How far its one place reaches behind an image that is smaller than it is, by less than a stride; else 0.

        ONNX has no place there. ONNX Runtime has one, as ONNX's shape inference: both round towards 0.
        """
        begin, end = self.padding(axis, size) or (0, 0)
        behind = self.extent(axis) - (size + begin + end)
        return behind if 0 < behind < self.strides[axis] else 0

    def reach(self, axis: int, end: int) -> int:
        """How many elements lie behind a dimension of any size where `ceil_mode` takes places that end there.

        With `end` of padding there. A place begins in the image, or in the padding before it.
        """
        return min(end + self.strides[axis] - 1, self.extent(axis) - 1)

    def needed(self, axis: int, count: int) -> int:
        """How far `count` windows reach."""
        return (count - 1) * self.strides[axis] + self.extent(axis)

    def parts(self, counts: Sequence[int]) -> Iterator[tuple[slice, ...]]:
        """Of the padded image what lies under each element in turn, where the window takes so many places."""
        for offsets in itertools.product(*(range(size) for size in self.kernel)):
            begins = [offset * dilation for offset, dilation in zip(offsets, self.dilations, strict=True)]
            yield tuple(
                slice(begin, begin + (count - 1) * stride + 1, stride)
                for begin, count, stride in zip(begins, counts, self.strides, strict=True)
            )


def window_of(attributes: Mapping[str, Any], kernel: Sequence[int]) -> Window:
    """The window of a node of those attributes.

    Raises:
        Refusal: pads are negative.
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
    """How much of a ConvTranspose's full result is cut at the begin and the end of each spatial dimension.

    `total_padding = stride * (size - 1) + output_padding + extent - output_shape`, says ONNX's standard.

    Args:
        attributes: of the node.
        extents: of the kernel, from its first element to its last.
        strides: how far the kernel moves.
        sizes: of the image; None where they are not known.

    Returns:
        Begin and end of each; negative where zeros are added instead.

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
        # The size by the stride, which SAME wants, is a stride more than the full result without the window's extent.
        total = more[axis] + extents[axis] - strides[axis]
        if wanted is not None:
            if size is None:
                raise Refusal("an output_shape, where the image's size is not fixed; give a fixed size with --shape")
            total += strides[axis] * size - wanted[axis - spatial]
        # ONNX's standard text and its own evaluator differ: the evaluator and ONNX Runtime agree on this.
        before = max(total // 2 if auto == "SAME_UPPER" else total - total // 2, 0)
        # Where the kernel is smaller than the stride SAME cuts nothing, nor adds: decision 13.
        behind = total if wanted is not None else max(total, 0)
        cuts.append((before, behind - before - more[axis]))
    return cuts


def flat_indices(shape: Sequence[int], *, is_column_major: bool) -> NDArray[np.int32]:
    """Of each element of an image (batch, channels, spatial...), its index in memory."""
    plane = math.prod(shape[2:])
    within = np.arange(plane).reshape(shape[2:], order="F" if is_column_major else "C")
    images = np.arange(shape[0] * shape[1]).reshape(*shape[:2], *[1] * (len(shape) - 2))
    return (images * plane + within).astype(np.int32)
