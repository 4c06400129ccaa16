"""Compressed weights: blockwise scales, look-up tables, sparse bitmasks. Constants are decompressed while raising.

Weights that DequantizeLinear expresses exactly can stay quantized.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from triune.core.errors import UnsupportedError
from triune.coreai.raising.given import Given
from triune.coreai.raising.kernels import where
from triune.coreai.raising.quantization import shifted_scaled
from triune.coreai.raising.region import Raise
from triune.coreai.raising.types import element_type
from triune.coreai.raising.values import Sparse
from triune.graph.axes import existing_axis
from triune.graph.raising.compressed import dequantized, filled, looked_up, tables_of
from triune.graph.raising.graph import Graph, Tensor
from triune.graph.raising.palettes import palette
from triune.graph.raising.quantized_weights import quantized_weights
from triune.graph.raising.types import Array, DType

_WIDEST_BYTES = 4
"""The bytes of an element of decompressed weights, which are computed in fp32."""


def _constant(graph: Graph, value: Array, dtype: DType) -> Tensor:
    return Tensor(graph.root.fresh("weight"), dtype, value.shape, value.astype(dtype.numpy, copy=False))


def _blockwise_shift_scale(graph: Graph, given: Given) -> Tensor:
    """Compute `scale * (data - offset1) + offset2`, with one scale and offset for each block."""
    data, scale, offset1, offset2 = (given[name] for name in ("data", "scale", "offset1", "offset2"))
    dtype = given.dtype
    known = [each.constant for each in (data, scale, offset1, offset2) if each.constant is not None]
    if len(known) == 4:
        graph.root.stored.make(_WIDEST_BYTES, known[0].size)
        result = _constant(graph, dequantized(*known), dtype)
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


def _spread_in(graph: Graph, value: Tensor, like: Tensor) -> Tensor:
    """Write nodes that repeat each element of `value`, along each axis, so that it broadcasts to `like`."""
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
        graph.root.stored.make(_WIDEST_BYTES, indices.constant.size, *lut.constant.shape[-1:])
        whole = _constant(graph, looked_up(indices.constant, lut.constant, axis), lut.dtype)
        kept = palette(indices.constant, lut.constant, lut.dtype) if graph.root.keep_quantized else None
        if kept is not None:
            graph.root.quantized[whole.name] = kept
        return whole
    return _looked_up_in(graph, indices, lut, axis)


def _looked_up_in(graph: Graph, indices: Tensor, lut: Tensor, axis: int) -> Tensor:
    """Write nodes that look up each index in the tables, as `compressed.looked_up` does for constants."""
    shape, sizes = indices.shape or (), lut.shape or ()
    if None in shape or None in sizes:
        raise UnsupportedError(f"tables of {sizes} for indices of {shape}")
    known, tables = [size or 0 for size in shape], [size or 0 for size in sizes]
    first = graph.constant(tables_of(known, tables) * tables[-2], DType.INT64)
    place = graph.op("Add", graph.cast(indices, DType.INT64), first)
    vectors = graph.op("Gather", graph.reshape(lut, -1, tables[-1]), place, axis=0)
    perm = [*range(axis + 1), len(known), *range(axis + 1, len(known))]
    known[axis] *= tables[-1]
    return graph.reshape(graph.op("Transpose", vectors, perm=perm), *known)


def _build_sparse(graph: Graph, given: Given) -> Sparse:
    """Put `values`, in row-major order, where the mask is 1, and 0 elsewhere."""
    values, mask = given["values"], given["bitmask"]
    if values.constant is not None and mask.constant is not None:
        graph.root.stored.make(_WIDEST_BYTES, mask.constant.size)
        return Sparse(_constant(graph, filled(values.constant, mask.constant), values.dtype), mask)
    places = graph.op("Transpose", graph.op("NonZero", graph.cast(mask, DType.BOOL), dtype=DType.INT64), perm=[1, 0])
    zeros = graph.op("Expand", graph.like(0, values), graph.shape_of(mask))
    return Sparse(graph.op("ScatterND", zeros, places, values, shape=mask.shape), mask)


def _sparse_to_dense(graph: Graph, given: Given) -> Tensor:
    del graph
    return given.of(Sparse, "input").dense


def _lut_to_sparse(graph: Graph, given: Given) -> Sparse:
    """Look up the vectors of sparse indices. The result is sparse: each element of the indices' mask is repeated for
    the elements of its vector.
    """
    sparse, lut = given.of(Sparse, "indices"), given["lut"]
    indices, mask, size = sparse.dense, sparse.mask.constant, lut.size(-1)
    axis = existing_axis(given.integer("axis"), indices.rank)
    if mask is None or size is None:
        raise UnsupportedError("a mask, or the size of a table's vectors, that is only known when the program runs")
    graph.root.stored.make(_WIDEST_BYTES, mask.size, size)
    mask = np.repeat(mask, size, axis)
    if indices.constant is not None and lut.constant is not None:
        dense = _constant(graph, np.where(mask, looked_up(indices.constant, lut.constant, axis), 0), lut.dtype)
    else:
        found = _looked_up_in(graph, indices, lut, axis)
        dense = where(graph, graph.constant(mask, DType.BOOL), found, graph.like(0, lut))
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
