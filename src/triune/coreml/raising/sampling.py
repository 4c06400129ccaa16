"""Sampling of images at points: crop_resize, resample and affine.

Bilinear sampling at the points of a grid is a product with a matrix on each side of the image. Row i of a matrix has
the weight of each pixel for point i: max(0, 1 - |point - pixel|).
"""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.coreml.mil import DType
from triune.coreml.raising.block import Raise
from triune.coreml.raising.given import Given
from triune.graph.raising.graph import Graph, Tensor

SAMPLING_MODES = frozenset({"STRICT_ALIGN_CORNERS", "ALIGN_CORNERS", "UNALIGN_CORNERS", "DEFAULT", "OFFSET_CORNERS"})
_PADDING = MappingProxyType({"constant": "zeros", "border": "border", "reflection": "border", "symmetric": "border"})
# For each padding mode that reflects images: the distance from the center of the first pixel to the line of reflection.
_EDGES = MappingProxyType({"reflection": 0.0, "symmetric": 0.5})
# For each mode, the positions of a box's coordinates: even positions are for rows, odd ones for columns.
_BOXES = MappingProxyType(
    {
        "CORNERS_HEIGHT_FIRST": (0, 1, 2, 3),
        "CORNERS_WIDTH_FIRST": (1, 0, 3, 2),
        "CENTER_SIZE_HEIGHT_FIRST": (0, 1, 2, 3),
        "CENTER_SIZE_WIDTH_FIRST": (1, 0, 3, 2),
    }
)


def grid(graph: Graph, first: Tensor, last: Tensor, size: Tensor, mode: str) -> Tensor:
    """The positions of `size` sample points between the pixels `first` and `last`, as in MIL's `resize_bilinear`.

    Args:
        graph: the graph that the nodes are added to.
        first: the position of the first pixel, fp32 of shape (..., 1).
        last: the position of the last pixel, of the same type and shape.
        size: the number of points, an INT64 vector of one element.
        mode: MIL's `sampling_mode` (SAMPLING_MODES), such as "ALIGN_CORNERS".

    Returns:
        fp32 of shape (..., size).
    """

    def number(value: float) -> Tensor:
        return graph.constant(value, DType.FP32)

    bounds = (graph.constant(0, DType.INT64), graph.scalar(size), graph.constant(1, DType.INT64))
    index = graph.cast(graph.op("Range", *bounds), DType.FP32)
    count = graph.cast(size, DType.FP32)
    reach = graph.op("Sub", last, first)
    match mode:
        case "STRICT_ALIGN_CORNERS" | "ALIGN_CORNERS":
            gaps = graph.op("Max", graph.op("Sub", count, number(1)), number(1))
            points = graph.op("Mul", index, graph.op("Div", reach, gaps))
            if mode == "ALIGN_CORNERS":
                is_single = graph.op("Equal", size, graph.ints(1), dtype=DType.BOOL)
                middle = graph.op("Mul", reach, number(0.5))
                points = graph.op("Where", is_single, middle, points, dtype=DType.FP32)
        case "DEFAULT":
            spacing = graph.op("Div", graph.op("Add", reach, number(1)), count)
            points = graph.op("Mul", index, spacing)
        case "OFFSET_CORNERS":
            spacing = graph.op("Div", graph.op("Max", reach, number(1)), count)
            points = graph.op("Mul", graph.op("Add", index, number(0.5)), spacing)
        case "UNALIGN_CORNERS":
            spacing = graph.op("Div", graph.op("Add", reach, number(1)), count)
            points = graph.op("Sub", graph.op("Mul", graph.op("Add", index, number(0.5)), spacing), number(0.5))
        case _:
            raise UnsupportedError(f"the sampling mode '{mode}' is not known")
    lowest, highest = graph.op("Min", reach, number(0)), graph.op("Max", reach, number(0))
    inside = graph.op("Min", graph.op("Max", points, lowest), highest)
    return graph.op("Add", first, inside)


def _weights(graph: Graph, points: Tensor, size: Tensor) -> Tensor:
    """The weights max(0, 1 - |point - pixel|) of all `size` pixels for each point: (..., points, size)."""
    bounds = (graph.constant(0, DType.INT64), graph.scalar(size), graph.constant(1, DType.INT64))
    pixels = graph.cast(graph.op("Range", *bounds), DType.FP32)
    distance = graph.op("Abs", graph.op("Sub", graph.unsqueeze(points, -1), pixels))
    return graph.op("Relu", graph.op("Sub", graph.constant(1, DType.FP32), distance))


def resampled(graph: Graph, x: Tensor, points: Tensor, size: Tensor, *, is_row: bool) -> Tensor:
    """Sample fp32 images along one axis, the last one if `is_row`, else the one before it, at `points` that may lie
    between pixels.
    """
    weights = _weights(graph, points, size)
    if not is_row:
        return graph.op("MatMul", weights, x)
    # Transpose (..., points, size) to (..., size, points).
    return graph.op("MatMul", x, _transposed_weights(graph, weights, points))


def _transposed_weights(graph: Graph, weights: Tensor, points: Tensor) -> Tensor:
    rank = 1 if points.shape is None else len(points.shape)
    return graph.op("Transpose", weights, perm=[*range(rank - 1), rank, rank - 1])


def _crop_resize(graph: Graph, given: Given) -> Tensor:
    """Cut boxes out of images and resize them. Sample points outside the image get `pad_value`.

    Up to iOS 16 `roi` (N, 1, 4, 1, 1) has boxes that are cut out of every image, and (N, 1, 5, 1, 1) has the index of
    the image before each box. From iOS 17 on there are `boxes` (N, 4), and `box_indices` with the index of the image
    for each; if these are not given, they are 0, 1, 2, ...
    """
    x = graph.cast(given["x"], DType.FP32)
    if given.maybe("roi") is not None:
        roi = given["roi"]
        width = roi.size(2)
        boxes = graph.reshape(roi, -1, 4 if width is None else width)
        images, is_each = _images_of_roi(graph, x, boxes, width)
        first = 0 if is_each else 1
    else:
        boxes, is_each, first = given["boxes"], False, 0
        indices = given.maybe("box_indices")
        if indices is None:
            bounds = (graph.constant(0, DType.INT64), graph.scalar(graph.dim(boxes, 0)), graph.constant(1, DType.INT64))
            indices = graph.op("Range", *bounds)
        images = graph.op("Gather", x, graph.cast(indices, DType.INT64), axis=0)
    rank = 5 if is_each else 4
    ys, xs = _points_of_boxes(graph, given, graph.cast(boxes, DType.FP32), first, x, rank)
    height, width_of = graph.dim(x, 2), graph.dim(x, 3)
    rows = resampled(graph, images, ys, height, is_row=False)
    result = resampled(graph, rows, xs, width_of, is_row=True)
    inside = graph.op(
        "And",
        graph.unsqueeze(_is_inside(graph, ys, height), -1),
        graph.unsqueeze(_is_inside(graph, xs, width_of), -2),
    )
    pad_value = graph.constant(given.array("pad_value").reshape(()), DType.FP32)
    chosen = graph.op("Where", inside, result, pad_value, dtype=DType.FP32)
    if given.maybe("roi") is not None and not is_each:
        chosen = graph.unsqueeze(chosen, 1)
    return graph.cast(chosen, given["x"].dtype)


def _images_of_roi(graph: Graph, x: Tensor, boxes: Tensor, width: int | None) -> tuple[Tensor, bool]:
    """Choose the images from which boxes are cut. `width` is how many numbers describe a box.

    Returns:
        the image of each box, and False; or all images [1, ...], and True, if each box is cut out of all of them.
    """
    match width:
        case 4:
            return graph.unsqueeze(x, 0), True
        case 5:
            index = graph.op("Slice", boxes, graph.ints(0), graph.ints(1), graph.ints(1))
            return graph.op("Gather", x, graph.reshape(graph.cast(index, DType.INT64), -1), axis=0), False
        case _:
            raise InvalidArgumentError(f"'roi' holds {width} numbers for each box; 4 or 5 are known")


def _points_of_boxes(
    graph: Graph, given: Given, boxes: Tensor, first: int, x: Tensor, rank: int
) -> tuple[Tensor, Tensor]:
    """The sample points in each box: positions of rows (N, 1, ..., height) and of columns (N, 1, ..., width).

    Their rank is `rank` - 1, one less than that of the result.
    """
    mode, sampling = given.text("box_coordinate_mode"), given.text("sampling_mode")
    if mode not in _BOXES or sampling not in SAMPLING_MODES:
        raise UnsupportedError(f"boxes in mode '{mode}' or sampling in mode '{sampling}' are not known")
    numbers = [
        graph.op("Slice", boxes, graph.ints(first + at), graph.ints(first + at + 1), graph.ints(1))
        for at in _BOXES[mode]
    ]
    scale = graph.constant(given.number("spatial_scale"), DType.FP32)
    points: list[Tensor] = []
    for axis, (start, end) in enumerate((numbers[0::2], numbers[1::2])):
        if mode.startswith("CENTER"):
            half = graph.op("Mul", end, graph.constant(0.5, DType.FP32))
            start, end = graph.op("Sub", start, half), graph.op("Add", start, half)
        factor = scale
        if given.flag("normalized_coordinates"):
            size = graph.cast(graph.dim(x, axis + 2), DType.FP32)
            factor = graph.op("Mul", scale, graph.op("Sub", size, graph.constant(1, DType.FP32)))
        start, end = graph.op("Mul", start, factor), graph.op("Mul", end, factor)
        count = graph.ints(given.integer("target_height" if axis == 0 else "target_width"))
        found = grid(graph, start, end, count, sampling)
        spread = graph.unsqueeze(found, *range(1, rank - 2))
        points.append(Tensor(spread.name, DType.FP32, (None,) * (rank - 1)))
    return points[0], points[1]


def _is_inside(graph: Graph, points: Tensor, size: Tensor) -> Tensor:
    # Because of rounding errors, a point on the border may be slightly outside: allow this fraction of a pixel.
    slack = 1e-4
    last = graph.op("Add", graph.cast(size, DType.FP32), graph.constant(slack - 1, DType.FP32))
    return graph.op(
        "And",
        graph.op("GreaterOrEqual", points, graph.constant(-slack, DType.FP32), dtype=DType.BOOL),
        graph.op("LessOrEqual", points, last, dtype=DType.BOOL),
    )


def _resample(graph: Graph, given: Given) -> Tensor:
    return _sampled(graph, given, graph.cast(given["coordinates"], DType.FP32))


def _affine(graph: Graph, given: Given) -> Tensor:
    """Sample the point (a0 * x + a1 * y + a2, b0 * x + b1 * y + b2) of the image for the output's pixel at (x, y).

    a0 to b2 are the transform matrix; x and y go from -1 to 1 over the output.
    """
    if not given.flag("align_corners") or given.text("coordinates_mode").lower() != "normalized_minus_one_to_one":
        raise UnsupportedError("affine without 'align_corners', or with other coordinates than from -1 to 1")
    height, width = given.integer("output_height"), given.integer("output_width")
    rows, columns = (np.linspace(-1, 1, size) if size > 1 else np.array([-1.0]) for size in (height, width))
    xs, ys = np.meshgrid(columns, rows)
    base = graph.constant(np.stack([xs, ys, np.ones_like(xs)], axis=-1).reshape(1, -1, 3), DType.FP32)
    matrices = graph.reshape(graph.cast(given["transform_matrix"], DType.FP32), -1, 2, 3)
    points = graph.op("MatMul", base, graph.op("Transpose", matrices, perm=[0, 2, 1]))
    points = graph.reshape(points, -1, height, width, 2)
    shape = graph.concat(graph.dim(given["x"], 0), graph.ints(height, width, 2))
    return _sampled(graph, given, graph.op("Expand", points, shape))


def _sampled(graph: Graph, given: Given, coordinates: Tensor) -> Tensor:
    """Sample images at coordinates (batch, height, width, (x, y)) with ONNX's GridSample, in fp32."""
    x = graph.cast(given["x"], DType.FP32)
    mode, padding = given.text("sampling_mode").lower(), given.text("padding_mode").lower()
    if mode not in ("bilinear", "nearest") or padding not in _PADDING:
        raise UnsupportedError(f"the sampling mode '{mode}' or padding mode '{padding}' is not known")
    pixels = _pixels(graph, given, x, coordinates)
    if padding in _EDGES:
        pixels = _reflected(graph, pixels, _sizes(graph, x), _EDGES[padding])
    # GridSample without align_corners counts from -1 at the left edge of the first pixel to 1 at the right edge of the
    # last. So pixel i is at (2 * i + 1) / size - 1.
    doubled = graph.op("Add", graph.op("Mul", pixels, graph.constant(2, DType.FP32)), graph.constant(1, DType.FP32))
    points = graph.op("Sub", graph.op("Div", doubled, _sizes(graph, x)), graph.constant(1, DType.FP32))
    offset = None
    if padding == "constant" and float(given.array("padding_value").reshape(-1)[0]) != 0:
        # GridSample pads with zeros. So the padding value is subtracted from the image before, and added to the result.
        offset = graph.constant(given.array("padding_value").reshape(()), DType.FP32)
        x = graph.op("Sub", x, offset)
    result = graph.op(
        "GridSample",
        x,
        points,
        mode="linear" if mode == "bilinear" else "nearest",
        padding_mode=_PADDING[padding],
        align_corners=0,
    )
    if offset is not None:
        result = graph.op("Add", result, offset)
    return graph.cast(result, given["x"].dtype)


def _sizes(graph: Graph, x: Tensor) -> Tensor:
    """The sizes of the images as (width, height), the order of coordinates."""
    return graph.cast(graph.concat(graph.dim(x, 3), graph.dim(x, 2)), DType.FP32)


def _pixels(graph: Graph, given: Given, x: Tensor, coordinates: Tensor) -> Tensor:
    """Convert coordinates, by `coordinates_mode`, to pixels; 0 is the center of the first pixel."""
    kind = given.text("coordinates_mode").lower()
    one, half = graph.constant(1, DType.FP32), graph.constant(0.5, DType.FP32)
    match kind:
        case "unnormalized":
            return coordinates
        case "normalized_minus_one_to_one":
            unit = graph.op("Mul", graph.op("Add", coordinates, one), half)
        case "normalized_zero_to_one":
            unit = coordinates
        case _:
            raise UnsupportedError(f"the coordinates mode '{kind}' is not known")
    sizes = _sizes(graph, x)
    if given.flag("align_corners"):
        return graph.op("Mul", unit, graph.op("Sub", sizes, one))
    return graph.op("Sub", graph.op("Mul", unit, sizes), half)


def _reflected(graph: Graph, pixels: Tensor, sizes: Tensor, edge: float) -> Tensor:
    """Reflect coordinates outside the image at lines `edge` before the first and after the last pixel's center.

    GridSample's own reflection is not used: it rounds to the nearest pixel first, and MIL afterwards.
    """
    start = graph.constant(-edge, DType.FP32)
    span = graph.op("Add", sizes, graph.constant(2 * edge - 1, DType.FP32))
    # Divide by at least 1e-6: for an image of one pixel and `edge` 0, the two lines of reflection have the distance 0.
    span = graph.op("Max", span, graph.constant(1e-6, DType.FP32))
    distance = graph.op("Abs", graph.op("Sub", pixels, start))
    turn = graph.op("Mod", distance, graph.op("Add", span, span), fmod=1)
    back = graph.op("Sub", span, graph.op("Abs", graph.op("Sub", turn, span)))
    return graph.op("Add", back, start)


TABLE: Mapping[str, Raise] = MappingProxyType({"affine": _affine, "crop_resize": _crop_resize, "resample": _resample})
