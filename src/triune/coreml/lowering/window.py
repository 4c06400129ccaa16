"""The padding of convolutions and pools. MIL requires it as constants, or as one of the words "same" and
"same_lower".
"""

from collections.abc import Iterable, Mapping
from typing import Any

from triune.coreml.lowering.mb import Var, is_fixed
from triune.coreml.lowering.options import Target
from triune.graph.conversion.problems import Refusal
from triune.graph.conversion.window import SAME, Window


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


def pad_words(x: Var, window: Window, target: Target) -> Mapping[str, Any] | None:
    """MIL's `pad_type` for a window with strides over a dimension of unknown size; None if the padding is known.

    MIL's "same" is SAME_UPPER, and "same_lower" is SAME_LOWER: ceil(size / stride) windows, and one element more at the
    end or at the start if the padding is odd.

    Raises:
        Refusal: the target is too old for "same_lower", or the window is dilated, for which MIL does not define these
            words.
    """
    if all(window.padding(axis, size) is not None for axis, size in enumerate(image_sizes(x))):
        return None
    if any(each != 1 for each in window.dilations):
        padding_of(x, window)
    if window.auto_pad == SAME[0]:
        return {"pad_type": "same"}
    if target.value < Target.IOS16.value:
        raise Refusal(
            "auto_pad SAME_LOWER of an unknown size; give --target iOS16 or later, or fixed sizes with --shape"
        )
    return {"pad_type": "same_lower"}


def flat(pairs: Iterable[tuple[int, int]]) -> list[int]:
    """Flatten pairs to the list begin, end, begin, end, ..., as MIL takes padding."""
    return [each for pair in pairs for each in pair]
