"""Compressed weights: blockwise scales, look-up tables, sparse bitmasks. Constants are computed while raising.

Those that DequantizeLinear writes exactly can be kept quantized.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.coreai.raising.given import Given
from triune.coreai.raising.kernels import where
from triune.coreai.raising.quantization import shifted_scaled
from triune.coreai.raising.region import Raise
from triune.coreai.raising.types import element_type
from triune.coreai.raising.values import Sparse
from triune.graph.axes import existing_axis
from triune.graph.raising.graph import Graph, Tensor
from triune.graph.raising.quantized_weights import quantized_weights
from triune.graph.raising.types import Array, DType

# A small file must not become a large one in memory; Core ML's own compression has vectors of 8 at most.
_LARGEST_VECTOR = 256


def _constant(graph: Graph, value: Array, dtype: DType) -> Tensor:
    return Tensor(graph.root.fresh("weight"), dtype, value.shape, value.astype(dtype.numpy, copy=False))


def _blockwise_shift_scale(graph: Graph, given: Given) -> Tensor:
    """Scale * (data - offset1) + offset2, block by block."""
    data, scale, offset1, offset2 = (given[name] for name in ("data", "scale", "offset1", "offset2"))
    dtype = given.dtype
    known = [each.constant for each in (data, scale, offset1, offset2) if each.constant is not None]
    if len(known) == 4:
        result = _constant(graph, _dequantized(known[0], known[1], known[2], known[3]), dtype)
        if graph.root.keep_quantized and not known[3].any() and dtype in (DType.FP32, DType.FP16):
            _keep(graph, given, result, known)
        return result
    spread = [_spread_in(graph, each, data) for each in (scale, offset1, offset2)]
    return shifted_scaled(graph, data, spread[0], spread[1], spread[2], dtype)


def _keep(graph: Graph, given: Given, result: Tensor, known: Sequence[Array]) -> None:
    element = element_type(given.operation.data.type)
    narrow = {4: {"int8": DType.INT4, "uint8": DType.UINT4}, 8: {"int8": DType.INT8, "uint8": DType.UINT8}}
    kind = narrow.get(element.bits, {}).get(element.carried.value)
    if kind is not None:
        weights = quantized_weights(known[0], kind, known[1].astype(result.dtype.numpy), result.dtype, known[2])
        if weights is not None:
            graph.root.quantized[result.name] = weights


def _dequantized(data: Array, scale: Array, offset1: Array, offset2: Array) -> Array:
    """In fp32; one value of each parameter for each block of shape data.shape / scale.shape."""
    result = data.astype(np.float32)
    if offset1.any():
        result -= _spread(offset1, data.shape).astype(np.float32)
    result *= _spread(scale, data.shape).astype(np.float32)
    if offset2.any():
        result += _spread(offset2, data.shape).astype(np.float32)
    return result


def _spread(value: Array, shape: Sequence[int]) -> Array:
    """`value` with each element repeated until it has as many as `shape`.

    Raises:
        InvalidArgumentError: a dimension is not a multiple.
    """
    if value.ndim != len(shape) or any(not have or want % have for have, want in zip(value.shape, shape, strict=False)):
        raise InvalidArgumentError(f"blocks of {list(value.shape)} do not divide {list(shape)}")
    for axis, size in enumerate(shape):
        # Dimensions of 1 broadcast.
        if value.shape[axis] not in (1, size):
            value = np.repeat(value, size // value.shape[axis], axis)
    return value


def _spread_in(graph: Graph, value: Tensor, like: Tensor) -> Tensor:
    """As `_spread`, while the program runs: what broadcasts against `like`."""
    for axis in range(value.rank):
        have, want = value.size(axis), like.size(axis)
        if have in (1, want):
            continue
        if have is None or want is None or want % have:
            raise UnsupportedError(f"blocks of {value.shape} in data of {like.shape}")
        times = [1] * (value.rank + 1)
        times[axis + 1] = want // have
        shape = tuple(want if each == axis else size for each, size in enumerate(value.shape or ()))
        tiled = graph.op("Tile", graph.unsqueeze(value, axis + 1), graph.ints(*times))
        sizes = [0 if size is None else size for size in shape]
        value = Tensor(graph.reshape(tiled, *sizes).name, value.dtype, shape)
    return value


def _lut_to_dense(graph: Graph, given: Given) -> Tensor:
    indices, lut, axis = given["indices"], given["lut"], given.axis("axis", "indices")
    if indices.constant is not None and lut.constant is not None:
        return _constant(graph, _looked_up(indices.constant, lut.constant, axis), lut.dtype)
    return _looked_up_in(graph, indices, lut, axis)


def _tables(shape: Sequence[int], lut: Sequence[int]) -> Array:
    """The number of the table that each index is of; tables are [blocks along each dimension..., values, vector]."""
    if len(lut) != len(shape) + 2:
        raise InvalidArgumentError(f"'lut' is of shape {list(lut)} for indices of {list(shape)}")
    if lut[-1] > _LARGEST_VECTOR:
        raise UnsupportedError(f"'lut' has vectors of {lut[-1]}; at most {_LARGEST_VECTOR} are supported")
    if any(not have or want % have for have, want in zip(lut[:-2], shape, strict=True)):
        raise InvalidArgumentError(f"tables of {list(lut[:-2])} do not divide {list(shape)}")
    table = np.zeros(tuple(shape), np.int64)
    for axis, (have, want) in enumerate(zip(lut[:-2], shape, strict=True)):
        places = np.arange(want, dtype=np.int64) // (want // have)
        table = table * have + places.reshape([-1] + [1] * (len(shape) - 1 - axis))
    return table


def _looked_up(indices: Array, lut: Array, axis: int) -> Array:
    """What the tables have for each index; vectors lie along `axis`."""
    table = _tables(indices.shape, lut.shape)
    vectors = lut.reshape(-1, *lut.shape[-2:])[table, indices]
    if lut.shape[-1] == 1:
        return vectors[..., 0]
    shape = list(indices.shape)
    shape[axis] *= lut.shape[-1]
    return np.moveaxis(vectors, -1, axis + 1).reshape(shape)


def _looked_up_in(graph: Graph, indices: Tensor, lut: Tensor, axis: int) -> Tensor:
    """As `_looked_up`, while the program runs."""
    shape, sizes = indices.shape or (), lut.shape or ()
    if None in shape or None in sizes:
        raise UnsupportedError(f"tables of {sizes} for indices of {shape}")
    known, tables = [size or 0 for size in shape], [size or 0 for size in sizes]
    first = graph.constant(_tables(known, tables) * tables[-2], DType.INT64)
    place = graph.op("Add", graph.cast(indices, DType.INT64), first)
    vectors = graph.op("Gather", graph.reshape(lut, -1, tables[-1]), place, axis=0)
    perm = [*range(axis + 1), len(known), *range(axis + 1, len(known))]
    known[axis] *= tables[-1]
    return graph.reshape(graph.op("Transpose", vectors, perm=perm), *known)


def _build_sparse(graph: Graph, given: Given) -> Sparse:
    """`values` where the mask is 1, in row-major order; 0 elsewhere."""
    values, mask = given["values"], given["bitmask"]
    if values.constant is not None and mask.constant is not None:
        return Sparse(_constant(graph, _filled(values.constant, mask.constant), values.dtype), mask)
    places = graph.op("Transpose", graph.op("NonZero", graph.cast(mask, DType.BOOL), dtype=DType.INT64), perm=[1, 0])
    zeros = graph.op("Expand", graph.like(0, values), graph.shape_of(mask))
    return Sparse(graph.op("ScatterND", zeros, places, values, shape=mask.shape), mask)


def _filled(values: Array, mask: Array) -> Array:
    count = int(np.count_nonzero(mask))
    if values.shape != (count,):
        raise InvalidArgumentError(f"there are {values.size} values for {count} places in the mask")
    dense = np.zeros(mask.shape, values.dtype)
    dense[mask != 0] = values
    return dense


def _sparse_to_dense(graph: Graph, given: Given) -> Tensor:
    del graph
    return given.of(Sparse, "input").dense


def _lut_to_sparse(graph: Graph, given: Given) -> Sparse:
    """What the tables have for the indices where the mask is 1, which is repeated along the vectors."""
    sparse, lut = given.of(Sparse, "indices"), given["lut"]
    indices, mask, size = sparse.dense, sparse.mask.constant, lut.size(-1)
    axis = existing_axis(given.integer("axis"), indices.rank)
    if mask is None or size is None:
        raise UnsupportedError("a mask, or the size of a table's vectors, that is only known when the program runs")
    mask = np.repeat(mask, size, axis)
    if indices.constant is not None and lut.constant is not None:
        dense = _constant(graph, np.where(mask, _looked_up(indices.constant, lut.constant, axis), 0), lut.dtype)
    else:
        looked_up = _looked_up_in(graph, indices, lut, axis)
        dense = where(graph, graph.constant(mask, DType.BOOL), looked_up, graph.like(0, lut))
    return Sparse(dense, _constant(graph, mask, sparse.mask.dtype))


TABLE: Mapping[str, Raise] = MappingProxyType(
    {
        "blockwise_shift_scale": _blockwise_shift_scale,
        "build_sparse_with_bitmask": _build_sparse,
        "lut_to_dense": _lut_to_dense,
        "lut_to_sparse_with_bitmask": _lut_to_sparse,
        "sparse_with_bitmask_to_dense": _sparse_to_dense,
    }
)
