"""The windows of convolutions and pools: padding, output sizes, and slices of the input."""

from collections.abc import Iterator, Sequence

import numpy as np

from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.coreml.mil import Array


def padding(
    pad_type: str,
    sizes: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    pad: Sequence[int],
) -> list[tuple[int, int]]:
    """The numbers of elements to add before and after each spatial dimension.

    With "same" there are ceil(size / stride) windows; if the padding is odd, the end gets one more, and with
    "same_lower" the start.

    Raises:
        UnsupportedError: the `pad_type` is not known.
        InvalidArgumentError: a custom `pad` has the wrong length.
    """
    match pad_type.lower():
        case "valid":
            return [(0, 0)] * len(sizes)
        case "custom":
            if len(pad) != 2 * len(sizes):
                raise InvalidArgumentError(f"{len(pad)} values of padding for {len(sizes)} spatial dimensions")
            return [(int(pad[2 * i]), int(pad[2 * i + 1])) for i in range(len(sizes))]
        case "same" | "same_lower":
            pads: list[tuple[int, int]] = []
            for size, length, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
                span = (length - 1) * dilation + 1
                total = max(0, (-(-size // stride) - 1) * stride + span - size)
                small, large = total // 2, total - total // 2
                pads.append((small, large) if pad_type.lower() == "same" else (large, small))
            return pads
        case _:
            raise UnsupportedError(f"there is no pad_type '{pad_type}'")


def num_windows(size: int, span: int, stride: int, before: int, after: int, is_ceil: bool = False) -> int:
    """The number of windows of `span` elements that fit.

    With `is_ceil` the last window may end beyond the padding, but must begin in the input or the padding before it.
    """
    free = size + before + after - span
    if not is_ceil:
        return free // stride + 1
    count = -(-free // stride) + 1
    if before + after > 0 and (count - 1) * stride >= size + before:
        count -= 1
    return count


def taps(
    x: Array, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int], counts: Sequence[int]
) -> Iterator[tuple[tuple[int, ...], Array]]:
    """For each position in the kernel, yield the elements of the padded input that this position covers in each of the
    windows.

    Yields:
        the position, and a view (n, channels, *counts) of the input; `counts` are the numbers of windows.
    """
    for position in np.ndindex(*kernel):
        slices = [
            slice(at * dilation, at * dilation + (count - 1) * stride + 1, stride)
            for at, dilation, count, stride in zip(position, dilations, counts, strides, strict=True)
        ]
        yield position, x[(..., *slices)]
