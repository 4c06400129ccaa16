"""Where the windows of convolutions and pools lie."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from triune.coreml.lowering.context import Context, Refusal
from triune.coreml.lowering.mb import Var, is_fixed


@dataclass(frozen=True, slots=True)
class Window:
    """A window that moves over spatial dimensions; a list has an element for each of them.

    Attributes:
        kernel: its size.
        strides: how far it moves.
        dilations: the distance of its elements.
        begins: the padding before each dimension.
        ends: the padding after it.
    """

    kernel: list[int]
    strides: list[int]
    dilations: list[int]
    begins: list[int]
    ends: list[int]

    def extent(self, axis: int) -> int:
        """From its first element to its last."""
        return (self.kernel[axis] - 1) * self.dilations[axis] + 1

    def count(self, axis: int, size: int, *, is_ceil: bool = False) -> int:
        """How many places it takes; with `is_ceil` also one that begins inside and ends behind the padding."""
        room = size + self.begins[axis] + self.ends[axis] - self.extent(axis)
        places = (math.ceil(room / self.strides[axis]) if is_ceil else room // self.strides[axis]) + 1
        if is_ceil and (places - 1) * self.strides[axis] >= size + self.begins[axis]:
            places -= 1
        return places


def window_of(c: Context, x: Var, kernel: Sequence[int]) -> Window:
    """The window of a node over the spatial dimensions of `x`, which follow the batch and the channels."""
    spatial = len(kernel)
    strides = list(c.attributes.get("strides", [1] * spatial))
    dilations = list(c.attributes.get("dilations", [1] * spatial))
    pads = list(c.attributes.get("pads", [0] * 2 * spatial))
    auto = c.attributes.get("auto_pad", "NOTSET")
    if auto == "VALID":
        pads = [0] * 2 * spatial
    if auto not in ("SAME_UPPER", "SAME_LOWER"):
        if any(each < 0 for each in pads):
            raise Refusal("negative pads; use Slice")
        return Window(list(kernel), strides, dilations, pads[:spatial], pads[spatial:])
    begins: list[int] = []
    ends: list[int] = []
    for axis in range(spatial):
        size = x.shape[2 + axis]
        extent = (kernel[axis] - 1) * dilations[axis] + 1
        if strides[axis] == 1:
            total = extent - 1
        elif is_fixed(size):
            total = max((-(-int(size) // strides[axis]) - 1) * strides[axis] + extent - int(size), 0)
        else:
            raise Refusal(f"auto_pad {auto} with strides needs the image's size; give fixed sizes with --shape")
        before = total // 2 if auto == "SAME_UPPER" else total - total // 2
        begins.append(before)
        ends.append(total - before)
    return Window(list(kernel), strides, dilations, begins, ends)


def pairs(window: Window) -> list[int]:
    """The padding as MIL has it: begin and end of each dimension in turn."""
    return [each for pair in zip(window.begins, window.ends, strict=True) for each in pair]
