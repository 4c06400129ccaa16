"""Raise padding, and fuse it into the convolution or pool that follows."""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from triune.core.errors import UnsupportedError
from triune.coreai.raising.given import Given
from triune.coreai.raising.kernels import int64, wide
from triune.coreai.raising.region import Raise
from triune.graph.raising.graph import Graph, Tensor
from triune.graph.raising.types import DType

_MODES = MappingProxyType({"constant": "constant", "replicate": "edge", "reflect": "reflect", "circular": "wrap"})


def _pad(graph: Graph, given: Given) -> Tensor:
    """Write Pad. Core AI's amounts are (before, after) for each axis; ONNX has all amounts before, then all after."""
    x, amounts, mode = given["input"], int64(graph, given["padding"]), given.word("padding_mode")
    if mode == "symmetric":
        return _symmetric(graph, x, given.ints("padding"))
    if mode not in _MODES:
        raise UnsupportedError(f"the mode '{mode}' is not known")
    if amounts.constant is not None:
        if not amounts.constant.any():
            return x
        amounts = graph.constant(amounts.constant.reshape(-1, 2).T.reshape(-1), DType.INT64)
    else:
        pairs = graph.op("Transpose", graph.reshape(amounts, -1, 2), perm=[1, 0])
        amounts = graph.reshape(pairs, -1)
    value = given["padding_value"] if mode == "constant" else None
    carried = wide(graph, x)
    filled = None if value is None else graph.scalar(graph.cast(value, carried.dtype))
    return graph.cast(graph.op("Pad", carried, amounts, filled, mode=_MODES[mode]), x.dtype)


def _symmetric(graph: Graph, x: Tensor, amounts: list[int]) -> Tensor:
    """Write symmetric padding, which mirrors including the element at the border, axis by axis."""
    back = np.iinfo(np.int64).min + 1
    for axis in range(x.rank):
        before, after = amounts[2 * axis], amounts[2 * axis + 1]
        parts = [x]
        at, step = graph.ints(axis), graph.ints(-1)
        if before:
            parts.insert(0, graph.op("Slice", x, graph.ints(before - 1), graph.ints(back), at, step))
        if after:
            parts.append(graph.op("Slice", x, graph.ints(-1), graph.ints(-1 - after), at, step))
        if len(parts) > 1:
            x = Tensor(graph.op("Concat", *parts, axis=axis).name, x.dtype, x.shape)
    return x


def padded_by(given: Given, fill: float, kernel: list[int] | None) -> tuple[Tensor, list[int]] | None:
    """If a convolution or pool reads the result of a `pad` with the value `fill`, return the tensor that is padded, and
    ONNX's `pads`.

    Return None if there is no such `pad`, or if it cannot be fused: it must pad only spatial axes, and only this
    operation may read its result. If `kernel` is given, as for pools, the padding must also be smaller than the kernel.
    """
    before = given.producer("input", "coreai.pad")
    if before is None or before.word("padding_mode") != "constant":
        return None
    amounts, value = before["padding"].constant, before["padding_value"].constant
    if amounts is None or value is None or float(value.reshape(-1)[0]) != fill:
        return None
    pairs = amounts.reshape(-1, 2).astype(np.int64)
    if pairs[:2].any() or (pairs < 0).any():
        return None
    if kernel is not None and (pairs[2:] >= np.array(kernel)[:, None]).any():
        return None
    return before["input"], [*pairs[2:, 0].tolist(), *pairs[2:, 1].tolist()]


TABLE: Mapping[str, Raise] = MappingProxyType({"pad": _pad})
