"""Resize the last dimensions, by scale factors or to sizes, and crop them.

ONNX's Resize is used where its sample points are those of MIL. Otherwise the image is multiplied by a matrix of weights
on each side (see `sampling`).
"""

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.coreml.mil import DType
from triune.coreml.raising.block import Raise
from triune.coreml.raising.given import Given
from triune.coreml.raising.sampling import SAMPLING_MODES, grid, resampled
from triune.coreml.raising.tensor_transformation import cropped
from triune.graph.raising.graph import Graph, Tensor

# For each sampling mode of MIL, ONNX's coordinate transformation that is equal to it. Other modes have no
# transformation that is equal for every size.
_TRANSFORMATIONS = MappingProxyType(
    {"STRICT_ALIGN_CORNERS": "align_corners", "DEFAULT": "asymmetric", "UNALIGN_CORNERS": "half_pixel"}
)


def _resize(
    graph: Graph, x: Tensor, sizes: Sequence[Tensor], mode: str, transformation: str, nearest: str = "floor"
) -> Tensor:
    """Write Resize of the last dimensions to `sizes`, each an INT64 vector of one element."""
    count = len(sizes)
    if x.rank < count:
        raise InvalidArgumentError(f"{count} of {x.rank} dimensions are to be resized")
    # ONNX Runtime resizes only dimensions after batch and channels: reshape all others to these two.
    outer = [graph.dim(x, axis) for axis in range(x.rank - count)]
    inner = [graph.dim(x, axis) for axis in range(x.rank - count, x.rank)]
    one = graph.ints(1)
    flat = graph.op("Reshape", x, graph.concat(one, graph.ints(-1), *inner)) if x.rank != count + 2 else x
    leading = (
        [graph.dim(x, 0), graph.dim(x, 1)]
        if x.rank == count + 2
        else [one, graph.op("Shape", flat, dtype=DType.INT64, start=1, end=2)]
    )
    wanted = graph.concat(*leading, *sizes)
    attributes: dict[str, Any] = {"nearest_mode": nearest} if mode == "nearest" else {}
    result = graph.op(
        "Resize", flat, None, None, wanted, mode=mode, coordinate_transformation_mode=transformation, **attributes
    )
    return graph.op("Reshape", result, graph.concat(*outer, *sizes)) if flat is not x else result


def _scaled_sizes(graph: Graph, given: Given) -> list[Tensor]:
    """The sizes for `scale_factor_height` and `scale_factor_width`: floor(size * factor).

    Known sizes are computed in fp64, as coremltools does.
    """
    x = given["x"]
    sizes: list[Tensor] = []
    for axis, name in ((x.rank - 2, "scale_factor_height"), (x.rank - 1, "scale_factor_width")):
        factor, size = given.array(name).reshape(-1)[0], x.size(axis)
        if size is not None:
            sizes.append(graph.ints(math.floor(factor * size)))
        else:
            wide = graph.cast(graph.dim(x, axis), DType.FP32)
            product = graph.op("Floor", graph.op("Mul", wide, graph.like(factor, wide)))
            sizes.append(graph.cast(product, DType.INT64))
    return sizes


def _upsample_nearest_neighbor(graph: Graph, given: Given) -> Tensor:
    return _resize(graph, given["x"], _scaled_sizes(graph, given), "nearest", "asymmetric")


def _upsample_bilinear(graph: Graph, given: Given) -> Tensor:
    """Raise upsample_bilinear. If `half_pixel_centers` is not given, it is the opposite of `align_corners`."""
    is_aligned = given.flag("align_corners")
    is_half = given.maybe_array("half_pixel_centers")
    is_half_pixel = not is_aligned if is_half is None else bool(is_half.reshape(-1)[0])
    if is_aligned and is_half_pixel:
        raise InvalidArgumentError("both 'align_corners' and 'half_pixel_centers' are true")
    transformation = "align_corners" if is_aligned else "half_pixel" if is_half_pixel else "asymmetric"
    return _resize(graph, given["x"], _scaled_sizes(graph, given), "linear", transformation)


def _target_sizes(graph: Graph, given: Given) -> list[Tensor]:
    return [graph.ints(given.integer(f"target_size_{name}")) for name in ("height", "width")]


def _resize_nearest_neighbor(graph: Graph, given: Given) -> Tensor:
    return _resize(graph, given["x"], _target_sizes(graph, given), "nearest", "asymmetric")


def _resize_bilinear(graph: Graph, given: Given) -> Tensor:
    return _linear(graph, given["x"], _target_sizes(graph, given), given.text("sampling_mode"))


def _linear(graph: Graph, x: Tensor, sizes: Sequence[Tensor], mode: str) -> Tensor:
    if mode not in SAMPLING_MODES:
        raise UnsupportedError(f"the sampling mode '{mode}' is not known")
    transformation = _TRANSFORMATIONS.get(mode)
    is_larger = all(size.constant is not None and (size.constant > 1).all() for size in sizes)
    if mode == "ALIGN_CORNERS" and is_larger:
        transformation = "align_corners"
    if transformation is not None:
        return _resize(graph, x, sizes, "linear", transformation)
    if len(sizes) > 2:
        raise UnsupportedError(f"the sampling mode '{mode}' for {len(sizes)} dimensions")
    return _by_matrices(graph, x, sizes, mode)


def _by_matrices(graph: Graph, x: Tensor, sizes: Sequence[Tensor], mode: str) -> Tensor:
    zero = graph.constant(np.zeros(1), DType.FP32)
    result = graph.cast(x, DType.FP32)
    for axis, size in zip(range(x.rank - len(sizes), x.rank), sizes, strict=True):
        length = graph.cast(graph.dim(x, axis), DType.FP32)
        last = graph.op("Sub", length, graph.constant([1], DType.FP32))
        points = grid(graph, zero, last, size, mode)
        result = resampled(graph, result, points, graph.dim(x, axis), is_row=axis == x.rank - 1)
    return graph.cast(result, x.dtype)


def _resize_to(graph: Graph, given: Given) -> Tensor:
    """Raise iOS 17's resize: to the last `resized_dims` elements of `shape`. 0 there keeps the size of `x`."""
    x, shape, count = given["x"], given["shape"], given.integer("resized_dims")
    if not 0 < count <= x.rank:
        raise InvalidArgumentError(f"'resized_dims' is {count} for {x.rank} dimensions")
    sizes: list[Tensor] = []
    for index in range(count):
        own = graph.dim(x, x.rank - count + index)
        if shape.constant is not None:
            size = int(shape.constant.reshape(-1)[index - count])
            sizes.append(graph.ints(size) if size else own)
            continue
        wanted = graph.op("Gather", graph.cast(shape, DType.INT64), graph.ints(index - count), axis=0)
        is_own = graph.op("Equal", wanted, graph.ints(0), dtype=DType.BOOL)
        sizes.append(graph.op("Where", is_own, own, wanted, dtype=DType.INT64))
    mode, sampling = given.text("interpolation_mode"), given.text("sampling_mode")
    if mode == "LINEAR":
        return _linear(graph, x, sizes, sampling)
    transformation = "align_corners" if sampling == "ALIGN_CORNERS" else _TRANSFORMATIONS.get(sampling)
    if mode != "NEAREST_NEIGHBOR" or transformation is None:
        raise UnsupportedError(f"the interpolation mode '{mode}' with the sampling mode '{sampling}'")
    # MIL's resize takes the pixel nearest to the sample point. The operations before iOS 17 take the pixel before it.
    return _resize(graph, x, sizes, "nearest", transformation, "round_prefer_floor")


def _crop(graph: Graph, given: Given) -> Tensor:
    x = given["x"]
    crops = np.stack([given.array("crop_height").reshape(2), given.array("crop_width").reshape(2)])
    return cropped(graph, x, (x.rank - 2, x.rank - 1), crops)


TABLE: Mapping[str, Raise] = MappingProxyType(
    {
        "crop": _crop,
        "resize": _resize_to,
        "resize_bilinear": _resize_bilinear,
        "resize_nearest_neighbor": _resize_nearest_neighbor,
        "upsample_bilinear": _upsample_bilinear,
        "upsample_nearest_neighbor": _upsample_nearest_neighbor,
    }
)
