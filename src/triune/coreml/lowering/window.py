"""The padding of convolutions and pools. MIL requires constants for it."""

from collections.abc import Iterable

from triune.coreml.lowering.mb import Var, is_fixed
from triune.graph.conversion.problems import Refusal
from triune.graph.conversion.window import Window


def image_sizes(x: Var) -> list[int | None]:
    """The sizes of all dimensions after batch and channels; None for each that is not known."""
    return [int(size) if is_fixed(size) else None for size in x.shape[2:]]


def padding_of(x: Var, window: Window) -> list[tuple[int, int]]:
    """The window's padding before and after each spatial dimension of `x`, by the node's `pads` or `auto_pad`.

    Raises:
        Refusal: the padding depends on a size that is not known.
    """
    widths: list[tuple[int, int]] = []
    for axis, size in enumerate(image_sizes(x)):
        width = window.padding(axis, size)
        if width is None:
            raise Refusal(
                f"auto_pad {window.auto_pad} with strides needs the image's size; give fixed sizes with --shape"
            )
        widths.append(width)
    return widths


def flat(pairs: Iterable[tuple[int, int]]) -> list[int]:
    """Flatten pairs to the list begin, end, begin, end, ..., as MIL takes padding."""
    return [each for pair in pairs for each in pair]
