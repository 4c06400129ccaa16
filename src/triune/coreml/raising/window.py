"""The padding of convolutions and pools: ONNX's attributes for MIL's pad types."""

from typing import Any

from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.coreml.raising.given import Given
from triune.graph.raising.graph import Tensor


def padding(given: Given, x: Tensor, kernel: list[int], strides: list[int], dilations: list[int]) -> dict[str, Any]:
    """ONNX's attribute `pads` or `auto_pad` for the operation's `pad_type` and `pad`.

    With "same" the output has ceil(size / stride) elements; if the padding is odd, the end gets one more, and with
    "same_lower" the start.

    Raises:
        InvalidArgumentError: the numbers of dimensions do not agree.
        UnsupportedError: the pad type is not known, or the padding is known only at run time.
    """
    count = x.rank - 2
    if not len(kernel) == len(strides) == len(dilations) == count:
        raise InvalidArgumentError(f"kernel {kernel}, strides {strides}, dilations {dilations} for {count} dimensions")
    kind = given.text("pad_type").lower()
    match kind:
        case "valid":
            return {"pads": [0] * count * 2}
        case "custom":
            pad = given.ints("pad")
            if len(pad) != 2 * count:
                raise InvalidArgumentError(f"'pad' is {pad} for {count} dimensions")
            return {"pads": [*pad[0::2], *pad[1::2]]}
        case "same" | "same_lower":
            totals = [_same(x.size(axis + 2), kernel[axis], strides[axis], dilations[axis]) for axis in range(count)]
            known = [total for total in totals if total is not None]
            if len(known) < count:
                if any(dilation != 1 for dilation in dilations):
                    raise UnsupportedError(f"'{kind}' padding of an unknown size with dilations {dilations}")
                return {"auto_pad": "SAME_UPPER" if kind == "same" else "SAME_LOWER"}
            less, more = [total // 2 for total in known], [total - total // 2 for total in known]
            return {"pads": [*less, *more] if kind == "same" else [*more, *less]}
        case _:
            raise UnsupportedError(f"the pad type '{kind}' is not known")


def _same(size: int | None, kernel: int, stride: int, dilation: int) -> int | None:
    """The total SAME padding of a dimension; None if it depends on an unknown size."""
    reach = (kernel - 1) * dilation + 1
    if size is None:
        return reach - 1 if stride == 1 else None
    return max(0, (-(-size // stride) - 1) * stride + reach - size)
