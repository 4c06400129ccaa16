"""Operations that reorder or reshape a tensor's elements."""

from collections.abc import Mapping, Sequence
from functools import partial
from types import MappingProxyType

import numpy as np

from triune.core.errors import InvalidArgumentError
from triune.coreml.mil import Array, DType
from triune.coreml.raising.block import Raise
from triune.coreml.raising.given import Given
from triune.graph.axes import existing_axis
from triune.graph.raising.graph import Graph, Tensor

LARGEST = np.iinfo(np.int64).max
# The operator sets in which a 0 in a shape keeps the size at the same index. Later ones count indices from the right.
_OLDER = frozenset({"CoreML3", "CoreML4", "CoreML5", "CoreML6"})


def _depth_to_space(mode: str, name: str, graph: Graph, given: Given) -> Tensor:
    return graph.op("DepthToSpace", given["x"], blocksize=given.integer(name), mode=mode)


def _space_to_depth(graph: Graph, given: Given) -> Tensor:
    return graph.op("SpaceToDepth", given["x"], blocksize=given.integer("block_size"))


def _pixel_unshuffle(graph: Graph, given: Given) -> Tensor:
    """Move each f x f block of pixels to channels: [n, c, h * f, w * f] to [n, c * f * f, h, w].

    The pixels of a block become f * f neighbouring channels.
    """
    x, factor = given["x"], given.integer("downscale_factor")
    n, c, h, w = (graph.dim(x, axis) for axis in range(4))
    factors = graph.ints(factor)
    rows, columns = (graph.op("Div", each, factors) for each in (h, w))
    split = graph.op("Reshape", x, graph.concat(n, c, rows, factors, columns, factors))
    ordered = graph.op("Transpose", split, perm=[0, 1, 3, 5, 2, 4])
    return graph.op("Reshape", ordered, graph.concat(n, graph.ints(-1), rows, columns))


def _expand_dims(graph: Graph, given: Given) -> Tensor:
    x, axes = given["x"], given.ints("axes")
    return graph.unsqueeze(x, *sorted(existing_axis(axis, x.rank + len(axes), "axes") for axis in axes))


def _squeeze(graph: Graph, given: Given) -> Tensor:
    """Remove axes of size 1: those in `axes`, or all of them if `axes` is not given."""
    x, axes = given["x"], given.maybe_ints("axes")
    if axes is None:
        return graph.squeeze(x, *(axis for axis in range(x.rank) if x.size(axis) == 1))
    chosen = sorted(existing_axis(axis, x.rank, "axes") for axis in axes)
    return graph.squeeze(x, *(axis for axis in chosen if x.size(axis) in (1, None)))


def _reshape(graph: Graph, given: Given) -> Tensor:
    """Write Reshape. A 0 keeps the size of x at the same index, counted from the right from iOS 17 on.

    Where x has no such dimension, 0 means 1.
    """
    x, shape = given["x"], given["shape"]
    if shape.constant is None:
        return graph.op("Reshape", x, graph.cast(shape, DType.INT64))
    sizes = [int(size) for size in shape.constant.reshape(-1)]
    offset = 0 if given.opset in _OLDER else x.rank - len(sizes)
    parts: list[Tensor] = []
    for index, size in enumerate(sizes):
        if size != 0 or 0 in (x.shape or ()):
            parts.append(graph.ints(size))
        elif 0 <= index + offset < x.rank:
            parts.append(graph.dim(x, index + offset))
        else:
            parts.append(graph.ints(1))
    target = graph.concat(*parts) if parts else graph.ints()
    return graph.op("Reshape", x, target, allowzero=int(0 in (x.shape or ())))


def _reshape_like(graph: Graph, given: Given) -> Tensor:
    """Reshape x to the concatenation of shape[begin:end] of all `ref_tensors`; a true end mask means up to the end."""
    parts: list[Tensor] = []
    columns = [given.many(name) for name in ("ref_tensors", "begins", "ends", "end_masks")]
    if len({len(column) for column in columns}) != 1:
        raise InvalidArgumentError("its tuples are of different lengths")
    for tensor, begin, end, mask in zip(*columns, strict=True):
        if begin.constant is None or end.constant is None or mask.constant is None:
            raise InvalidArgumentError("a begin, end or mask is not a constant")
        stop = None if bool(mask.constant.reshape(-1)[0]) else int(end.constant.reshape(-1)[0])
        axes = range(tensor.rank)[int(begin.constant.reshape(-1)[0]) : stop]
        parts += [graph.dim(tensor, axis) for axis in axes]
    return graph.op("Reshape", given["x"], graph.concat(*parts) if parts else graph.ints())


def _reverse(graph: Graph, given: Given) -> Tensor:
    x, chosen = given["x"], given.maybe_ints("axes")
    axes = [existing_axis(axis, x.rank, "axes") for axis in (range(x.rank) if chosen is None else chosen)]
    if not axes:
        return x
    ones = [1] * len(axes)
    starts, ends = graph.ints(*(-one for one in ones)), graph.ints(*(-LARGEST for _ in ones))
    return graph.op("Slice", x, starts, ends, graph.ints(*axes), graph.ints(*(-one for one in ones)))


def _reverse_sequence(graph: Graph, given: Given) -> Tensor:
    """Reverse the first `lengths[i]` elements of each sequence i of the batch."""
    x = given["x"]
    batch, time = given.axis("batch_axis"), given.axis("seq_axis")
    if batch == time:
        raise InvalidArgumentError(f"the axes of the batch and the sequence are both {batch}")
    perm = [batch, time, *(axis for axis in range(x.rank) if axis not in (batch, time))]
    lengths = graph.cast(given["lengths"], DType.INT64)
    moved = graph.op("Transpose", x, perm=perm)
    result = graph.op("ReverseSequence", moved, lengths, batch_axis=0, time_axis=1)
    return graph.op("Transpose", result, perm=[perm.index(axis) for axis in range(x.rank)])


def _transpose(graph: Graph, given: Given) -> Tensor:
    x = given["x"]
    perm = [existing_axis(axis, x.rank, "perm") for axis in given.ints("perm")]
    if sorted(perm) != list(range(x.rank)):
        raise InvalidArgumentError(f"'perm' {perm} is not an order of {x.rank} dimensions")
    return graph.op("Transpose", x, perm=perm) if perm else x


def _space_to_batch(graph: Graph, given: Given) -> Tensor:
    """Move the pixels of each block to the batch: [n, c, H, W], padded, to [n * blocks, c, H / block, W / block].

    The position in the block is the slower part of the new batch index.
    """
    (down, right), pads = _blocks(given), given.array("paddings").reshape(2, 2)
    starts_and_ends = graph.ints(0, 0, *(int(pad) for pad in pads[:, 0]), 0, 0, *(int(pad) for pad in pads[:, 1]))
    padded = graph.op("Pad", given["x"], starts_and_ends)
    n, c, h, w = (_size(graph, padded, axis) for axis in range(4))
    blocks = [graph.ints(down), graph.ints(right)]
    rows, columns = (graph.op("Div", size, block) for size, block in zip((h, w), blocks, strict=True))
    split = graph.op("Reshape", padded, graph.concat(n, c, rows, blocks[0], columns, blocks[1]))
    ordered = graph.op("Transpose", split, perm=[3, 5, 0, 1, 2, 4])
    return graph.op("Reshape", ordered, graph.concat(graph.ints(-1), c, rows, columns))


def _batch_to_space(graph: Graph, given: Given) -> Tensor:
    """Do the inverse of `_space_to_batch`: move batch elements to the pixels of blocks, then crop the result."""
    x, (down, right), crops = given["x"], _blocks(given), given.array("crops").reshape(2, 2)
    c, h, w = (graph.dim(x, axis) for axis in (1, 2, 3))
    split = graph.op("Reshape", x, graph.concat(graph.ints(down, right, -1), c, h, w))
    ordered = graph.op("Transpose", split, perm=[2, 3, 4, 0, 5, 1])
    sizes = [graph.op("Mul", size, graph.ints(block)) for size, block in ((h, down), (w, right))]
    whole = graph.op("Reshape", ordered, graph.concat(graph.ints(-1), c, *sizes))
    return cropped(graph, whole, (2, 3), crops)


def _blocks(given: Given) -> tuple[int, int]:
    blocks = given.ints("block_shape")
    if len(blocks) != 2 or given["x"].rank != 4:
        raise InvalidArgumentError(f"blocks of {blocks} for {given['x'].rank} dimensions; 2 of 4 are known")
    return blocks[0], blocks[1]


def _size(graph: Graph, tensor: Tensor, axis: int) -> Tensor:
    """The size of dimension `axis`, computed at run time by a Shape node: an INT64 vector of one element."""
    return graph.op("Shape", tensor, dtype=DType.INT64, start=axis, end=axis + 1)


def cropped(graph: Graph, tensor: Tensor, axes: Sequence[int], crops: Array) -> Tensor:
    """Cut off the first `crops[i, 0]` and the last `crops[i, 1]` elements along `axes[i]`, for each i."""
    starts = graph.ints(*(int(first) for first in crops[:, 0]))
    ends = graph.ints(*(-int(last) if last else LARGEST for last in crops[:, 1]))
    return graph.op("Slice", tensor, starts, ends, graph.ints(*axes))


def _sliding_windows(graph: Graph, given: Given) -> Tensor:
    """Collect all windows of `size` along an axis; their elements are a new axis after it."""
    x, axis = given["x"], given.axis()
    size, stride = given.integer("size"), given.integer("stride")
    within = graph.constant(np.arange(size).reshape(1, size), DType.INT64)
    length = x.size(axis)
    if length is not None:
        starts = graph.constant(np.arange(0, length - size + 1, stride).reshape(-1, 1), DType.INT64)
        return graph.op("Gather", x, _sum(graph, starts, within), axis=axis)
    last = graph.op("Sub", graph.scalar(graph.dim(x, axis)), graph.constant(size - 1, DType.INT64))
    starts = graph.op("Range", graph.constant(0, DType.INT64), last, graph.constant(stride, DType.INT64))
    return graph.op("Gather", x, graph.op("Add", graph.unsqueeze(starts, 1), within), axis=axis)


def _sum(graph: Graph, first: Tensor, second: Tensor) -> Tensor:
    if first.constant is None or second.constant is None:
        return graph.op("Add", first, second)
    return graph.constant(first.constant + second.constant, first.dtype)


TABLE: Mapping[str, Raise] = MappingProxyType(
    {
        "batch_to_space": _batch_to_space,
        "depth_to_space": partial(_depth_to_space, "DCR", "block_size"),
        "expand_dims": _expand_dims,
        "pixel_shuffle": partial(_depth_to_space, "CRD", "upscale_factor"),
        "pixel_unshuffle": _pixel_unshuffle,
        "reshape": _reshape,
        "reshape_like": _reshape_like,
        "reverse": _reverse,
        "reverse_sequence": _reverse_sequence,
        "sliding_windows": _sliding_windows,
        "space_to_batch": _space_to_batch,
        "space_to_depth": _space_to_depth,
        "squeeze": _squeeze,
        "transpose": _transpose,
    }
)
