"""RoiAlign and DeformConv, which interpolate between the pixels of an image, and MaxRoiPool."""

import math

import numpy as np
from onnx import TensorProto, helper

from triune.graph.decompose.context import Context, Decomposition

_MOST_SAMPLES = 1 << 16
"""The largest number of samples along an axis: the interpolation matrix has a row for each."""

_MOST_BINS = 64
"""The most bins of MaxRoiPool along an axis, since each bin becomes separate nodes."""


def roi_align(c: Context) -> bool:
    """RoiAlign as matrix products: bilinear interpolation of an image at a grid of points is rows @ image @ columns^T.

    Each row of the matrices has the weights of the pixels for one point. For mode `avg`, the mean over a bin's samples,
    the rows of the samples are averaged first. Mode `max` takes the largest of each sample's four weighted corner
    pixels, so it needs four such products.

    Source: the definition in ONNX's standard, and `RoiAlign` of its reference evaluator.
    """
    shape, ratio = c.values.shape(c.input(0)), int(c.attributes.get("sampling_ratio", 0))
    if shape is None or len(shape) != 4 or shape[2] is None or shape[3] is None or ratio < 1:
        return False
    sizes = int(c.attributes.get("output_height", 1)), int(c.attributes.get("output_width", 1))
    if max(sizes) * ratio > _MOST_SAMPLES:
        return False
    b = c.build
    images = b.op("Gather", c.input(0), c.input(2))
    axes = [
        _Axis(c, position, sizes[1 - position], ratio, length) for position, length in ((1, shape[2]), (0, shape[3]))
    ]
    if c.attributes.get("mode", "avg") == "avg":
        c.give(_interpolated(c, images, *(axis.mean() for axis in axes)))
        return True
    corners = [_interpolated(c, images, rows, columns) for rows in axes[0].corners() for columns in axes[1].corners()]
    largest = b.op("Max", b.op("Max", *corners[:2]), b.op("Max", *corners[2:]))
    for axis, (size, after) in enumerate(zip(sizes, (sizes[1] * ratio, 1), strict=True)):
        shape_of_bins = [0, 0, size, ratio, after] if axis == 0 else [0, 0, sizes[0], size, ratio]
        largest = b.op("ReduceMax", b.op("Reshape", largest, b.ints(*shape_of_bins)), b.ints(3 + axis), keepdims=0)
    c.give(largest)
    return True


def _interpolated(c: Context, images: str, rows: str, columns: str) -> str:
    """Build `rows @ images @ columns^T` (R, C, h, w) from images (R, C, H, W), rows (R, h, H) and columns (R, w, W)."""
    b = c.build
    transposed = b.op("Transpose", b.op("Unsqueeze", columns, b.ints(1)), perm=[0, 1, 3, 2])
    return b.op("MatMul", b.op("MatMul", b.op("Unsqueeze", rows, b.ints(1)), images), transposed)


class _Axis:
    """The coordinates of the sample points of each region (R of them) along one axis of the image."""

    def __init__(self, c: Context, position: int, size: int, ratio: int, length: int) -> None:
        """Args:
        c: the node.
        position: the index of the axis among a region's coordinates: 0 for x, 1 for y.
        size: the number of bins along the axis.
        ratio: the number of samples in each bin.
        length: the number of pixels of the image.
        """
        self._b = b = c.build
        self._size, self._ratio, self._length = size, ratio, length
        is_half = c.attributes.get("coordinate_transformation_mode", "half_pixel") == "half_pixel"
        scale = b.constant(c.attributes.get("spatial_scale", 1.0), np.float32)
        start, end = (
            b.op("Mul", b.op("Slice", c.input(1), b.ints(at), b.ints(at + 1), b.ints(1)), scale)
            for at in (position, position + 2)
        )
        extent = b.op("Sub", end, start)
        if is_half:
            start = b.op("Sub", start, b.constant(0.5, np.float32))
        else:
            extent = b.op("Max", extent, b.constant(1, np.float32))
        steps = (np.arange(size)[:, None] + (np.arange(ratio) + 0.5) / ratio).reshape(-1) / size
        points = b.op("Add", start, b.op("Mul", extent, b.constant(steps, np.float32)))
        is_inside = b.op(
            "And",
            b.op("GreaterOrEqual", points, b.constant(-1, np.float32)),
            b.op("LessOrEqual", points, b.constant(length, np.float32)),
        )
        # `_share` is (R, size * ratio, 1): 1 for samples inside the image, 0 for the others.
        self._share = b.op("Unsqueeze", b.cast(is_inside, 1), b.ints(2))
        clipped = b.op("Clip", points, b.constant(0, np.float32), b.constant(length - 1, np.float32))
        self._points = b.op("Unsqueeze", clipped, b.ints(2))
        self._pixels = b.constant(np.arange(length), np.float32)

    def mean(self) -> str:
        """Build the weight of each pixel in the mean of each bin: (R, size, length), for R regions, `size` bins and
        `length` pixels.
        """
        b = self._b
        distance = b.op("Abs", b.op("Sub", self._points, self._pixels))
        weights = b.op("Relu", b.op("Sub", b.constant(1, np.float32), distance))
        shared = b.op("Mul", weights, self._share)
        by_bin = b.op("Reshape", shared, b.ints(-1, self._size, self._ratio, self._length))
        return b.op("ReduceMean", by_bin, b.ints(2), keepdims=0)

    def corners(self) -> list[str]:
        """Build two matrices (R, size * ratio, length): the weight of the pixel before each sample, and of the pixel
        after it.
        """
        b = self._b
        before = b.op("Floor", self._points)
        rest = b.op("Sub", self._points, before)
        one = b.constant(1, np.float32)
        weights = [(before, b.op("Sub", one, rest)), (b.op("Add", before, one), rest)]
        return [
            b.op("Mul", b.cast(b.op("Equal", self._pixels, position), 1), b.op("Mul", weight, self._share))
            for position, weight in weights
        ]


def max_roi_pool(c: Context) -> bool:
    """MaxRoiPool: for each bin of a region, the largest of the pixels of its rows and columns; 0 if it has none.

    A region is (image, x1, y1, x2, y2), with both corners in it, in pixels after `spatial_scale`, rounded half away
    from zero. Bins may overlap: the first pixel is rounded down, the end is rounded up.

    Source: ONNX Runtime's MaxRoiPool and Caffe's ROIPooling; the standard says no more than that it is max pooling.
    """
    shape, bins = c.values.shape(c.input(0)), [int(each) for each in c.attributes["pooled_shape"]]
    if shape is None or len(shape) != 4 or shape[2] is None or shape[3] is None or max(bins) > _MOST_BINS:
        return False
    b = c.build
    regions = c.input(1) if c.values.elem_type(c.input(1)) == TensorProto.FLOAT else b.cast(c.input(1), 1)
    index = b.op("Squeeze", b.op("Slice", regions, b.ints(0), b.ints(1), b.ints(1)), b.ints(1))
    pixels = b.op("Gather", c.input(0), b.cast(index, TensorProto.INT64))
    dtype = helper.tensor_dtype_to_np_dtype(c.values.elem_type(c.input(0)))
    zero = b.constant(0, dtype)
    for axis, position, count, length in ((2, 2, bins[0], shape[2]), (3, 1, bins[1], shape[3])):
        start, extent = _whole_region(c, regions, position)
        size = b.op("Div", extent, b.constant(count, np.float32))
        # Replace pixels outside a bin by the image's smallest pixel: the type's lowest number would overflow fp16.
        least = b.op("ReduceMin", pixels, b.ints(axis), keepdims=1)
        at = b.constant(np.arange(length).reshape((-1, 1) if axis == 2 else (1, -1)), np.float32)
        largest: list[str] = []
        for each in range(count):
            first = b.op("Floor", b.op("Mul", size, b.constant(each, np.float32)))
            end = b.op("Ceil", b.op("Mul", size, b.constant(each + 1, np.float32)))
            first, end = (
                b.op("Clip", b.op("Add", place, start), b.constant(0, np.float32), b.constant(length, np.float32))
                for place in (first, end)
            )
            is_within = b.op("And", b.op("GreaterOrEqual", at, first), b.op("Less", at, end))
            found = b.op("ReduceMax", b.op("Where", is_within, pixels, least), b.ints(axis), keepdims=1)
            largest.append(b.op("Where", b.op("LessOrEqual", end, first), zero, found))
        pixels = b.op("Concat", *largest, axis=axis)
    c.give(pixels)
    return True


def _whole_region(c: Context, regions: str, position: int) -> tuple[str, str]:
    """Build the first pixel of each region along an axis, and how many pixels it has, at least 1: (R, 1, 1, 1).

    Args:
        c: the node.
        regions: (R, 5) of fp32.
        position: the index of the first pixel among a region's five numbers; that of the last is 2 more.
    """
    b = c.build
    ends: list[str] = []
    for at in (position, position + 2):
        column = b.op("Unsqueeze", b.op("Slice", regions, b.ints(at), b.ints(at + 1), b.ints(1)), b.ints(2, 3))
        exact = b.op("Mul", column, b.constant(c.attributes.get("spatial_scale", 1.0), np.float32))
        size = b.op("Abs", exact)
        whole = b.op("Floor", size)
        is_up = b.op("GreaterOrEqual", b.op("Sub", size, whole), b.constant(0.5, np.float32))
        ends.append(b.op("Mul", b.op("Add", whole, b.cast(is_up, 1)), b.op("Sign", exact)))
    one = b.constant(1, np.float32)
    return ends[0], b.op("Max", b.op("Add", b.op("Sub", ends[1], ends[0]), one), one)


def deform_conv(c: Context) -> bool:
    """DeformConv: GridSample at the offset position of each kernel element, then a 1x1 convolution of all samples."""
    shape, weight = c.values.shape(c.input(0)), c.values.static_shape(c.input(1))
    offsets = c.values.shape(c.input(2))
    if shape is None or weight is None or offsets is None or len(shape) != 4 or None in (*shape[1:], *offsets[2:]):
        return False
    b = c.build
    channels, height, width = (int(dim or 0) for dim in shape[1:])
    groups = int(c.attributes.get("offset_group", 1))
    kernel, result = weight[2:], [int(dim or 0) for dim in offsets[2:]]
    count, positions = math.prod(kernel), math.prod(result)
    split = b.op("Reshape", c.input(2), b.ints(-1, count, 2, positions))
    grid: list[str] = []
    for axis, length in ((1, width), (0, height)):
        moved = b.op("Gather", split, b.constant(axis, np.int64), axis=2)
        points = b.op("Add", moved, b.constant(_points(c, axis, kernel, result), np.float32))
        # Convert pixels to GridSample's coordinates, in which -1 and 1 are the borders of the image.
        scaled = b.op("Mul", points, b.constant(2 / length, np.float32))
        grid.append(b.op("Unsqueeze", b.op("Add", scaled, b.constant(1 / length - 1, np.float32)), b.ints(3)))
    images = b.op("Reshape", c.input(0), b.ints(-1, channels // groups, height, width))
    samples = b.op("GridSample", images, b.op("Concat", *grid, axis=3), mode="linear", padding_mode="zeros")
    if c.input(4):
        samples = b.op("Mul", samples, b.op("Reshape", c.input(4), b.ints(-1, 1, count, positions)))
    columns = b.op("Reshape", samples, b.ints(-1, channels * count, *result))
    flat = b.op("Reshape", c.input(1), b.ints(weight[0], weight[1] * count, 1, 1))
    bias = [c.input(3)] if c.input(3) else []
    c.give(b.op("Conv", columns, flat, *bias, group=int(c.attributes.get("group", 1)), kernel_shape=[1, 1]))
    return True


def _points(
    c: Context, axis: int, kernel: tuple[int, ...], result: list[int]
) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """The coordinate along an axis, in pixels and before offsets are added, of each kernel element at each position of
    the result: (elements, positions).
    """
    stride = c.attributes.get("strides", [1, 1])[axis]
    dilation = c.attributes.get("dilations", [1, 1])[axis]
    elements, positions = np.indices(kernel)[axis].reshape(-1, 1), np.indices(result)[axis].reshape(1, -1)
    return elements * dilation + positions * stride - float(c.attributes.get("pads", [0] * 4)[axis])


TABLE: dict[str, Decomposition] = {"RoiAlign": roi_align, "MaxRoiPool": max_roi_pool, "DeformConv": deform_conv}
