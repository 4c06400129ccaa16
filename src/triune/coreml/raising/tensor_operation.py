"""The functions that raise operations that create, concatenate, split, sort and fill tensors."""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from onnx import helper

from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.coreml.mil import DType
from triune.coreml.raising.block import Raise
from triune.coreml.raising.given import Given
from triune.graph.axes import existing_axis
from triune.graph.raising.graph import Graph, Tensor, elem_type

_PAD_MODES = MappingProxyType({"constant": "constant", "reflect": "reflect", "replicate": "edge"})
_NARROW = frozenset({DType.INT8, DType.INT16, DType.UINT8, DType.UINT16})


def _band_part(graph: Graph, given: Given) -> Tensor:
    """Keep `lower` diagonals below the main one and `upper` above it, and set the rest to 0. A negative number keeps
    all diagonals on its side.
    """
    x = given["x"]
    lower, upper = given.integer("lower"), given.integer("upper")
    # Write Trilu in int64: ONNX has it for int32, too, but ONNX Runtime lacks that.
    part = graph.cast(x, DType.INT64) if x.dtype is DType.INT32 else x
    if lower >= 0:
        part = graph.op("Trilu", part, graph.constant(-lower, DType.INT64), upper=1)
    if upper >= 0:
        part = graph.op("Trilu", part, graph.constant(upper, DType.INT64), upper=0)
    return graph.cast(part, x.dtype)


def _cumsum(graph: Graph, given: Given) -> Tensor:
    axis = graph.constant(given.axis(), DType.INT64)
    return graph.op(
        "CumSum", given["x"], axis, exclusive=int(given.flag("exclusive")), reverse=int(given.flag("reverse"))
    )


def filled(graph: Graph, shape: Tensor, value: object, dtype: DType) -> Tensor:
    """Make a tensor of the given shape with `value` in all elements."""
    array = np.asarray(value).reshape(1).astype(dtype.numpy)
    tensor = helper.make_tensor("value", elem_type(dtype), [1], array.tobytes(), raw=True)
    return graph.op("ConstantOfShape", graph.cast(shape, DType.INT64), dtype=dtype, value=tensor)


def _fill(graph: Graph, given: Given) -> Tensor:
    return filled(graph, given["shape"], given.array("value"), given.dtype)


def _fill_like(graph: Graph, given: Given) -> Tensor:
    return filled(graph, graph.shape_of(given["ref_tensor"]), given.array("value"), given.dtype)


def _non_zero(graph: Graph, given: Given) -> Tensor:
    """Return the indices of nonzero elements: (count, rank)."""
    x = given["x"]
    if x.dtype in _NARROW:
        x = graph.cast(x, DType.INT32)
    return graph.op("Transpose", graph.op("NonZero", x, dtype=DType.INT64), perm=[1, 0])


def _one_hot(graph: Graph, given: Given) -> Tensor:
    """Write `on_value` where the position along the new axis equals the index, else `off_value`.

    An index out of range gives only `off_value`.
    """
    indices = graph.cast(given["indices"], DType.INT32)
    rank = indices.rank + 1
    axis = existing_axis(given.integer("axis"), rank)
    size = graph.scalar(graph.cast(given["one_hot_vector_size"], DType.INT32))
    zero, one = graph.constant(0, DType.INT32), graph.constant(1, DType.INT32)
    positions = graph.op("Range", zero, size, one)
    along = graph.reshape(positions, *[-1 if each == axis else 1 for each in range(rank)])
    is_on = graph.op("Equal", graph.unsqueeze(indices, axis), along, dtype=DType.BOOL)
    dtype = given.dtype
    on, off = given.array("on_value"), given.array("off_value")
    if dtype is DType.BOOL:
        chosen = graph.op(
            "Where", is_on, graph.constant(on, DType.INT32), graph.constant(off, DType.INT32), dtype=DType.INT32
        )
        return graph.cast(chosen, dtype)
    return graph.op("Where", is_on, graph.constant(on, dtype), graph.constant(off, dtype), dtype=dtype)


def _pad(graph: Graph, given: Given) -> Tensor:
    """Write Pad. The amounts are pairs (before, after) for each of the last dimensions."""
    x, pad, mode = given["x"], given["pad"], given.text("mode")
    if mode not in _PAD_MODES:
        raise UnsupportedError(f"the mode '{mode}' is not known")
    if pad.constant is not None:
        pairs = pad.constant.reshape(-1, 2)
        pads = graph.constant(pairs.T.reshape(-1), DType.INT64)
        count = len(pairs)
    else:
        pads = graph.reshape(graph.op("Transpose", graph.reshape(pad, -1, 2), perm=[1, 0]), -1)
        pads, count = graph.cast(pads, DType.INT64), x.rank
    if count > x.rank:
        raise InvalidArgumentError(f"padding for {count} dimensions of {x.rank}")
    value = graph.like(given.array("constant_val").reshape(()), x) if mode == "constant" else None
    axes = graph.ints(*range(x.rank - count, x.rank))
    return graph.op("Pad", x, pads, value, axes, mode=_PAD_MODES[mode])


def _range_1d(graph: Graph, given: Given) -> Tensor:
    dtype = given["start"].dtype
    # ONNX has no Range for fp16, so it is computed in fp32.
    wide = DType.FP32 if dtype is DType.FP16 else dtype
    limits = [graph.scalar(graph.cast(given[name], wide)) for name in ("start", "end", "step")]
    return graph.cast(graph.op("Range", *limits), dtype)


def _tile(graph: Graph, given: Given) -> Tensor:
    return graph.op("Tile", given["x"], graph.cast(given["reps"], DType.INT64))


def _sorted(graph: Graph, x: Tensor, count: Tensor, axis: int, is_ascending: bool) -> tuple[Tensor, Tensor]:
    wide = graph.cast(x, DType.INT32) if x.dtype in _NARROW else x
    values, indices = graph.ops(
        "TopK", [wide, count], [wide.dtype, DType.INT64], axis=axis, largest=int(not is_ascending), sorted=1
    )
    return graph.cast(values, x.dtype), indices


def _argsort(graph: Graph, given: Given) -> Tensor:
    x, axis = given["x"], given.axis()
    return _sorted(graph, x, graph.dim(x, axis), axis, given.flag("ascending"))[1]


def _topk(graph: Graph, given: Given) -> list[Tensor]:
    """Return the k largest or smallest elements along an axis, sorted, and their indices; k = -1 means all."""
    x, axis, k = given["x"], given.axis(), given.integer("k")
    count = graph.dim(x, axis) if k == -1 else graph.ints(k)
    values, indices = _sorted(graph, x, count, axis, given.flag("ascending"))
    return [values, indices] if given.flag("return_indices") else [values]


def _flatten2d(graph: Graph, given: Given) -> Tensor:
    return graph.op("Flatten", given["x"], axis=given.integer("axis"))


def _shape(graph: Graph, given: Given) -> Tensor:
    return graph.cast(graph.shape_of(given["x"]), DType.INT32)


def _concat(graph: Graph, given: Given) -> Tensor:
    """Write Concat. Scalars become a vector. With `interleave` the first slices of all tensors come first, then their
    second slices, and so on.
    """
    values = given.many("values")
    if values[0].rank == 0:
        return graph.op("Concat", *(graph.unsqueeze(value, 0) for value in values), axis=0)
    rank = values[0].rank
    axis = existing_axis(given.integer("axis"), rank)
    if not given.flag("interleave"):
        return graph.op("Concat", *values, axis=axis)
    stacked = graph.op("Concat", *(graph.unsqueeze(value, axis + 1) for value in values), axis=axis + 1)
    sizes = [graph.ints(-1) if each == axis else graph.dim(values[0], each) for each in range(rank)]
    return graph.op("Reshape", stacked, graph.concat(*sizes))


def _split(graph: Graph, given: Given) -> list[Tensor]:
    x, axis = given["x"], given.axis()
    sizes = given.maybe_ints("split_sizes")
    count = len(given.operation.outputs)
    size = x.size(axis)
    if sizes is None and size is not None:
        if size % count:
            raise InvalidArgumentError(f"{size} cannot be split into {count} of one size")
        sizes = [size // count] * count
    dtypes = [x.dtype] * count
    if sizes is None:
        return graph.ops("Split", [x], dtypes, axis=axis, num_outputs=count)
    return graph.ops("Split", [x, graph.ints(*sizes)], dtypes, axis=axis)


def _stack(graph: Graph, given: Given) -> Tensor:
    values = given.many("values")
    axis = existing_axis(given.integer("axis"), values[0].rank + 1)
    return graph.op("Concat", *(graph.unsqueeze(value, axis) for value in values), axis=axis)


TABLE: Mapping[str, Raise] = MappingProxyType(
    {
        "argsort": _argsort,
        "band_part": _band_part,
        "concat": _concat,
        "cumsum": _cumsum,
        "fill": _fill,
        "fill_like": _fill_like,
        "flatten2d": _flatten2d,
        "non_zero": _non_zero,
        "one_hot": _one_hot,
        "pad": _pad,
        "range_1d": _range_1d,
        "shape": _shape,
        "split": _split,
        "stack": _stack,
        "tile": _tile,
        "topk": _topk,
    }
)
