"""Operations that only move elements."""

from typing import Any

import numpy as np

from triune.core.errors import InvalidArgumentError
from triune.coreml.interpreter.values import Family
from triune.coreml.mil import Array


def expand_dims(x: Array, axes: Array) -> Array:
    """Insert dimensions of size 1; `axes` are their indices in the result."""
    return np.expand_dims(x, tuple(int(axis) for axis in np.atleast_1d(axes)))


def squeeze(x: Array, axes: Array | None) -> Array:
    """Remove axes of size 1: those in `axes`, or all of them if `axes` is not given."""
    chosen = range(x.ndim) if axes is None else {int(axis) % x.ndim for axis in np.atleast_1d(axes)}
    return np.squeeze(x, tuple(axis for axis in chosen if x.shape[axis] == 1))


def reshape(x: Array, shape: Array) -> Array:
    """Reshape x. A size of -1 is computed from the others; 0 keeps the size of x at that index, counted from the right.

    If x has no dimension at that index, 0 means 1. Operator sets before iOS 17 count the index from the left, but
    require that the shape has the rank of x, so that both ways of counting give the same index.
    """
    sizes = [int(size) for size in np.atleast_1d(shape)]
    for at, size in enumerate(sizes):
        if size == 0 and x.size:
            of_x = at - len(sizes) + x.ndim
            sizes[at] = x.shape[of_x] if of_x >= 0 else 1
    return x.reshape(sizes)


def reshape_like(
    x: Array,
    ref_tensors: tuple[Array, ...],
    begins: tuple[Any, ...],
    ends: tuple[Any, ...],
    end_masks: tuple[Any, ...],
) -> Array:
    """Reshape x to the concatenation of shape[begin:end] of all `ref_tensors`; a true end mask means up to the end."""
    shape: list[int] = []
    for reference, begin, end, to_the_end in zip(ref_tensors, begins, ends, end_masks, strict=True):
        shape.extend(reference.shape[int(begin) : None if to_the_end else int(end)])
    return x.reshape(shape)


def reverse(x: Array, axes: Array | None) -> Array:
    """Reverse x along `axes`; None means all axes."""
    return np.flip(x, None if axes is None else tuple(int(axis) for axis in np.atleast_1d(axes)))


def reverse_sequence(x: Array, lengths: Array, seq_axis: Any, batch_axis: Any) -> Array:
    """Reverse the first `lengths[i]` elements of each sequence i of the batch."""
    by_batch = np.moveaxis(x, (int(batch_axis), int(seq_axis)), (0, 1)).copy()
    for row, length in zip(by_batch, lengths, strict=True):
        row[: int(length)] = row[: int(length)][::-1].copy()
    return np.moveaxis(by_batch, (0, 1), (int(batch_axis), int(seq_axis)))


def slices(
    x: Array,
    begin: Array,
    end: Array,
    stride: Array | None,
    begin_mask: Array | None,
    end_mask: Array | None,
    squeeze_mask: Array | None,
) -> tuple[slice | int, ...]:
    """The index, for numpy, of a slice begin:end:stride.

    Where `begin_mask` or `end_mask` is true, the slice begins or ends where the dimension does. Where `squeeze_mask` is
    true, one element is taken and the dimension is removed.

    Raises:
        InvalidArgumentError: a parameter does not have one value for each dimension, or a stride is 0.
    """
    given = [each for each in (begin, end, stride, begin_mask, end_mask, squeeze_mask) if each is not None]
    if any(each.shape != (x.ndim,) for each in given):
        raise InvalidArgumentError(f"a slice of {x.ndim} dimensions by {[list(each.shape) for each in given]} values")
    index: list[slice | int] = []
    for axis in range(x.ndim):
        first = None if begin_mask is not None and begin_mask[axis] else int(begin[axis])
        if squeeze_mask is not None and squeeze_mask[axis]:
            index.append(first or 0)
            continue
        last = None if end_mask is not None and end_mask[axis] else int(end[axis])
        step = 1 if stride is None else int(stride[axis])
        index.append(slice(first, last, step))
    return tuple(index)


def slice_by_index(x: Array, **parameters: Any) -> Array:
    """Take x[begin : end : stride]; see `slices`."""
    return x[slices(x, **parameters)]


def slice_update(x: Array, update: Array, **parameters: Any) -> Array:
    """Return x with x[begin : end : stride] replaced by `update`; see `slices`."""
    result = x.copy()
    index = slices(x, **parameters)
    result[index] = update.reshape(result[index].shape)
    return result


def slice_by_size(x: Array, begin: Array, size: Array) -> Array:
    """Take `size` elements from `begin` on, in each dimension; -1 takes all that follow.

    Raises:
        InvalidArgumentError: the slice exceeds x.
    """
    index: list[slice] = []
    for have, first, count in zip(x.shape, map(int, begin), map(int, size), strict=True):
        first = first + have if first < 0 else first
        last = have if count == -1 else first + count
        if not 0 <= first <= last <= have:
            raise InvalidArgumentError(f"elements {first} to {last} of a dimension of {have}")
        index.append(slice(first, last))
    return x[tuple(index)]


def crop(x: Array, crop_height: Array, crop_width: Array) -> Array:
    """Remove rows at the top and bottom, and columns at the left and right."""
    (top, bottom), (left, right) = map(int, crop_height.ravel()), map(int, crop_width.ravel())
    return x[..., top : x.shape[-2] - bottom, left : x.shape[-1] - right]


def sliding_windows(x: Array, axis: Any, size: Any, stride: Any) -> Array:
    """Collect all windows along an axis; their elements are a new axis after it."""
    axis, size = int(axis) % x.ndim, int(size)
    starts = range(0, x.shape[axis] - size + 1, int(stride))
    places = np.array([range(start, start + size) for start in starts], np.int64).reshape(-1, size)
    return np.take(x, places, axis)


def transpose(x: Array, perm: Array) -> Array:
    """Permute the dimensions."""
    return np.transpose(x, [int(axis) for axis in perm])


def depth_to_space(x: Array, block_size: Any) -> Array:
    """Move channels to b x b blocks of pixels. In the channel index, the position in the block varies slowest.

    So (n, b * b * c, h, w) becomes (n, c, h * b, w * b).
    """
    n, c, h, w = x.shape
    b = int(block_size)
    blocks = x.reshape(n, b, b, c // (b * b), h, w)
    return blocks.transpose(0, 3, 4, 1, 5, 2).reshape(n, c // (b * b), h * b, w * b)


def space_to_depth(x: Array, block_size: Any) -> Array:
    """Invert `depth_to_space`."""
    n, c, h, w = x.shape
    b = int(block_size)
    blocks = x.reshape(n, c, h // b, b, w // b, b)
    return blocks.transpose(0, 3, 5, 1, 2, 4).reshape(n, c * b * b, h // b, w // b)


def pixel_shuffle(x: Array, upscale_factor: Any) -> Array:
    """Move channels to f x f blocks of pixels. In the channel index, the position in the block varies fastest.

    So (n, c * f * f, h, w) becomes (n, c, h * f, w * f).
    """
    n, c, h, w = x.shape
    f = int(upscale_factor)
    blocks = x.reshape(n, c // (f * f), f, f, h, w)
    return blocks.transpose(0, 1, 4, 2, 5, 3).reshape(n, c // (f * f), h * f, w * f)


def pixel_unshuffle(x: Array, downscale_factor: Any) -> Array:
    """Invert `pixel_shuffle`."""
    n, c, h, w = x.shape
    f = int(downscale_factor)
    blocks = x.reshape(n, c, h // f, f, w // f, f)
    return blocks.transpose(0, 1, 3, 5, 2, 4).reshape(n, c * f * f, h // f, w // f)


def space_to_batch(x: Array, block_shape: Array, paddings: Array) -> Array:
    """Pad images (n, c, h, w), and move the a x b pixels of each block to the batch: (n * a * b, c, h / a, w / b).

    In the batch index, the image varies fastest, and the position in the block slowest.
    """
    pads = [(int(before), int(after)) for before, after in paddings]
    x = np.pad(x, [(0, 0), (0, 0), *pads])
    n, c, h, w = x.shape
    a, b = map(int, block_shape)
    blocks = x.reshape(n, c, h // a, a, w // b, b)
    return blocks.transpose(3, 5, 0, 1, 2, 4).reshape(n * a * b, c, h // a, w // b)


def batch_to_space(x: Array, block_shape: Array, crops: Array) -> Array:
    """Invert `space_to_batch`."""
    a, b = map(int, block_shape)
    n, c, h, w = x.shape
    blocks = x.reshape(a, b, n // (a * b), c, h, w)
    whole = blocks.transpose(2, 3, 4, 0, 5, 1).reshape(n // (a * b), c, h * a, w * b)
    return crop(whole, crops[0], crops[1])


FAMILY: Family = {
    "batch_to_space": batch_to_space,
    "crop": crop,
    "depth_to_space": depth_to_space,
    "expand_dims": expand_dims,
    "pixel_shuffle": pixel_shuffle,
    "pixel_unshuffle": pixel_unshuffle,
    "reshape": reshape,
    "reshape_like": reshape_like,
    "reverse": reverse,
    "reverse_sequence": reverse_sequence,
    "slice_by_index": slice_by_index,
    "slice_by_size": slice_by_size,
    "slice_update": slice_update,
    "sliding_windows": sliding_windows,
    "space_to_batch": space_to_batch,
    "space_to_depth": space_to_depth,
    "squeeze": squeeze,
    "transpose": transpose,
}
