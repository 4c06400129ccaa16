"""Cases: operations that move, join, sort, gather and scatter elements."""

from typing import Any

import numpy as np

from contract.coreml.cases import Case, alike, inferred, known, op, uniform
from contract.coreml.elementwise import IMAGE, POSITIVE, X
from support.mil_programs import mb
from triune.coreml.mil import Array

_ROW = np.arange(6, dtype=np.float32)[None]


def _ints(values: Any) -> Array:
    return np.array(values, np.int32)


def _floats(values: Any) -> Array:
    return np.array(values, np.float32)


def _scatter(mode: str, answer: float) -> Case:
    return known(
        f"scatter {mode}",
        lambda v: mb.scatter(data=v.x, indices=v.i, updates=v.u, axis=1, mode=mode),
        [[1, answer, 3]],
        x=_floats([[1, 2, 3]]),
        i=_ints([1]),
        u=_floats([[4]]),
    )


_MOVED = [
    inferred("expand_dims", op("expand_dims", axes=[0, -1]), x=X),
    known("squeeze", op("squeeze", axes=[0]), X, x=X[None]),
    inferred("reshape", op("reshape", shape=[3, -1]), x=X),
    known("reshape with zeros", op("reshape", shape=[1, 0, -1, 0]), X.reshape(1, 2, 3, 4), x=X),
    inferred("transpose", op("transpose", perm=[2, -3, 1]), x=X),
    inferred("reverse", op("reverse", axes=[1]), x=X),
    known(
        "reverse_sequence",
        op("reverse_sequence", lengths=[2, 0, 3], seq_axis=1, batch_axis=0),
        [[1, 0, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5], [2, 1, 0, 3, 4, 5]],
        x=np.repeat(_ROW, 3, 0),
    ),
    inferred(
        "slice backwards",
        op(
            "slice_by_index",
            begin=[0, 2, -1],
            end=[2, 0, 0],
            stride=[1, -1, -2],
            end_mask=[False, False, True],
        ),
        x=X,
    ),
    inferred(
        "slice squeezed",
        op("slice_by_index", begin=[1, 0, 0], end=[0, 2, 9], squeeze_mask=[True, False, False]),
        x=X,
    ),
    known(
        "slice from a computed place",
        lambda v: mb.slice_by_index(x=v.x, begin=v.b, end=v.e),
        X[1:2, 0:2, 1:4],
        x=X,
        b=_ints([1, 0, 1]),
        e=_ints([2, -1, 4]),
    ),
    inferred(
        "slice_update",
        lambda v: mb.slice_update(x=v.x, update=v.u, begin=[0, 1, 0], end=[2, 3, 4], stride=[1, 1, 2]),
        x=X,
        u=uniform(2, 2, 2, seed=1),
    ),
    inferred("slice_by_size", op("slice_by_size", begin=[0, 1, 2], size=[2, 1, -1]), x=X),
    inferred("tile", op("tile", reps=[1, 2, 3]), x=X),
    inferred("flatten2d", op("flatten2d", axis=-1), x=X),
    known("crop", op("crop", crop_height=[1, 2], crop_width=[0, 1]), IMAGE[:, :, 1:3, :5], x=IMAGE),
    known(
        "depth_to_space",
        op("depth_to_space", block_size=2),
        [[[[0, 4, 1, 5], [8, 12, 9, 13]], [[2, 6, 3, 7], [10, 14, 11, 15]]]],
        x=np.arange(16, dtype=np.float32).reshape(1, 8, 1, 2),
    ),
    known(
        "pixel_shuffle",
        op("pixel_shuffle", upscale_factor=2),
        [[[[0, 2, 1, 3], [4, 6, 5, 7]], [[8, 10, 9, 11], [12, 14, 13, 15]]]],
        x=np.arange(16, dtype=np.float32).reshape(1, 8, 1, 2),
    ),
    known(
        "depth to space and back",
        lambda v: mb.space_to_depth(x=mb.depth_to_space(x=v.x, block_size=2), block_size=2),
        uniform(1, 8, 2, 3),
        x=uniform(1, 8, 2, 3),
    ),
    known(
        "pixels shuffled and back",
        lambda v: mb.pixel_unshuffle(x=mb.pixel_shuffle(x=v.x, upscale_factor=2), downscale_factor=np.uint32(2)),
        uniform(1, 8, 2, 3),
        x=uniform(1, 8, 2, 3),
    ),
    known(
        "space_to_batch",
        op("space_to_batch", block_shape=[1, 2], paddings=[[0, 0], [1, 0]]),
        [[[[0, 1]]], [[[0, 2]]]],
        x=_floats([[[[0, 1, 2]]]])[..., 0:3],
    ),
    known(
        "space to batch and back",
        lambda v: mb.batch_to_space(
            x=mb.space_to_batch(x=v.x, block_shape=[2, 3], paddings=[[1, 0], [2, 1]]),
            block_shape=[2, 3],
            crops=[[1, 0], [2, 1]],
        ),
        IMAGE,
        x=IMAGE,
    ),
    known("sliding_windows", op("sliding_windows", axis=1, size=3, stride=2), [[[0, 1, 2], [2, 3, 4]]], x=_ROW),
    known(
        "reshape_like",
        lambda v: mb.reshape_like(x=v.x, ref_tensors=[v.a, v.b], begins=[0, 1], ends=[1, 0], end_masks=[False, True]),
        X.reshape(6, 2, 2),
        x=X,
        a=uniform(6, 1),
        b=uniform(9, 2, 2),
    ),
]

_MADE = [
    inferred("band_part", op("band_part", lower=0, upper=1), x=X),
    known(
        "concat by turns",
        lambda v: mb.concat(values=[v.x, v.y], axis=0, interleave=True),
        np.stack([X[0], POSITIVE[0], X[1], POSITIVE[1]]),
        x=X,
        y=POSITIVE,
    ),
    known("concat", lambda v: mb.concat(values=[v.x, v.y], axis=-2), np.concatenate([X, POSITIVE], 1), x=X, y=POSITIVE),
    known("stack", lambda v: mb.stack(values=[v.x, v.y], axis=1), np.stack([X, POSITIVE], 1), x=X, y=POSITIVE),
    known("split", op("split", split_sizes=[1, 3], axis=2), X[..., :1], X[..., 1:], x=X),
    known("split evenly", op("split", num_splits=2, axis=-1), X[..., :2], X[..., 2:], x=X),
    known(
        "cumsum",
        op("cumsum", axis=2, exclusive=True, reverse=True),
        np.cumsum(X[..., ::-1], 2)[..., ::-1] - X,
        x=X,
    ),
    inferred("pad", op("pad", pad=[1, 0, 0, 2], mode="constant", constant_val=np.float32(1.5)), x=X),
    inferred("pad by reflection", op("pad", pad=[1, 2], mode="reflect"), x=X),
    inferred("pad by replication", op("pad", pad=[1, 2, 1, 1], mode="replicate"), x=X),
    known(
        "one_hot",
        lambda v: mb.one_hot(indices=v.i, one_hot_vector_size=3, axis=0, on_value=2.0, off_value=-1.0),
        [[-1, 2], [-1, -1], [2, -1]],
        i=_ints([2, 0]),
    ),
    inferred("non_zero", op("non_zero"), x=_floats([[0, 1, 0], [2, 0, 3]])),
    known("fill_like", lambda v: mb.fill_like(ref_tensor=v.x, value=np.float32(3)), np.full(X.shape, 3.0), x=X),
    known("fill", lambda v: mb.fill(shape=v.s, value=np.float32(3)), np.full((2, 1), 3.0), s=_ints([2, 1])),
    known("shape", op("shape"), [2, 3, 4], x=X),
    known(
        "range_1d",
        lambda v: mb.range_1d(start=0, end=mb.squeeze(x=v.n), step=3),
        [0, 3, 6],
        n=_ints([7]),
    ),
    known("argsort of equals", op("argsort", axis=1), [[1, 3, 0, 2]], x=_floats([[1, 2, 1, 2]])),
    inferred("topk", op("topk", k=2, axis=-1), x=X),
    inferred("topk ascending", op("topk", k=2, axis=1, ascending=True), x=X),
    known("topk without indices", op("topk", k=1, return_indices=False), X.max(-1, keepdims=True), x=X),
]

_INDEXED = [
    inferred("gather", op("gather", indices=_ints([2, 0]), axis=1), x=X),
    inferred("gather a scalar", op("gather", indices=np.int32(2), axis=1), x=X),
    inferred(
        "gather in batches",
        lambda v: mb.gather(x=v.x, indices=v.i, axis=2, batch_dims=1),
        x=X,
        i=_ints([[3, 0], [1, 1]]),
    ),
    inferred(
        "gather_along_axis",
        lambda v: mb.gather_along_axis(x=v.x, indices=v.i, axis=2),
        x=X,
        i=np.argsort(X, 2).astype(np.int32),
    ),
    known("gather_nd", lambda v: mb.gather_nd(x=v.x, indices=v.i), X[[1, 0], [2, 1]], x=X, i=_ints([[1, 2], [0, 1]])),
    known(
        "gather_nd in batches",
        lambda v: mb.gather_nd(x=v.x, indices=v.i, batch_dims=1),
        X[[0, 1], [2, 1]],
        x=X,
        i=_ints([[2], [1]]),
    ),
    *(
        _scatter(mode, answer)
        for mode, answer in {"update": 4, "add": 6, "sub": -2, "mul": 8, "div": 0.5, "max": 4, "min": 2}.items()
    ),
    known(
        "scatter twice to one place",
        lambda v: mb.scatter(data=v.x, indices=v.i, updates=v.u, axis=0, mode="add"),
        [[6, 9], [1, 2]],
        x=_floats([[0, 0], [1, 2]]),
        i=_ints([0, 0]),
        u=_floats([[1, 3], [5, 6]]),
    ),
    known(
        "scatter_along_axis",
        lambda v: mb.scatter_along_axis(data=v.x, indices=v.i, updates=v.u, axis=0, mode="update"),
        [[5, 1], [0, 6]],
        x=_floats([[0, 1], [0, 1]]),
        i=_ints([[0, 1]]),
        u=_floats([[5, 6]]),
    ),
    known(
        "scatter_nd",
        lambda v: mb.scatter_nd(data=v.x, indices=v.i, updates=v.u, mode="add"),
        [[0, 11], [2, 3]],
        x=_floats([[0, 1], [2, 3]]),
        i=_ints([[0, 1]]),
        u=_floats([10]),
    ),
    alike(
        "scatter_nd of slices",
        lambda v: mb.scatter_nd(data=v.x, indices=v.i, updates=v.u, mode="update"),
        x=X,
        i=_ints([[1], [0]]),
        u=uniform(2, 3, 4, seed=3),
    ),
]

CASES = [*_MOVED, *_MADE, *_INDEXED]
