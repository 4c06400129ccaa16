"""Non-maximum suppression."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
from onnx import helper

from triune.coreml.mil import DType
from triune.coreml.raising.block import Raise
from triune.coreml.raising.given import Given
from triune.graph.raising.graph import Graph, Tensor, elem_type


def _non_maximum_suppression(graph: Graph, given: Given) -> Sequence[Tensor]:
    """Write non-maximum suppression: for each image, keep boxes in the order of their scores, except those that overlap
    a kept box too much.

    Boxes are sorted by falling score; the score of a box is that of its best class. With `per_class_suppression` only
    boxes of one class suppress each other. If no box reaches `score_threshold`, the best one is taken. The results are
    padded to `max_boxes`: with zeros, and the indices with -1. From iOS 17 on boxes lie along the last axis, and there
    are neither a `score_threshold` nor the output with their number.
    """
    is_older = len(given.operation.outputs) == 4
    boxes, scores = (graph.cast(given[name], DType.FP32) for name in ("boxes", "scores"))
    if not is_older:
        boxes, scores = (graph.op("Transpose", each, perm=[0, 2, 1]) for each in (boxes, scores))
    num_images = given["scores"].size(0)
    chosen: Sequence[Tensor]
    if num_images is None:
        chosen = _of_all_images(graph, given, boxes, scores)
    else:
        results = [
            _of_image(graph, given, *(_image(graph, each, image) for each in (boxes, scores)))
            for image in range(num_images)
        ]
        chosen = [graph.concat(*column) for column in zip(*results, strict=True)]
    if not is_older:
        chosen = [*(graph.op("Transpose", each, perm=[0, 2, 1]) for each in chosen[:2]), chosen[2]]
    return chosen


def _image(graph: Graph, images: Tensor, image: int) -> Tensor:
    return graph.op("Slice", images, graph.ints(image), graph.ints(image + 1), graph.ints(0))


def _of_all_images(graph: Graph, given: Given, boxes: Tensor, scores: Tensor) -> Sequence[Tensor]:
    """Write a Scan over the images, whose number is not known."""
    body = graph.subgraph()
    image = [Tensor(graph.root.fresh(f"{graph.prefix}/{name}"), DType.FP32) for name in ("boxes", "scores")]
    found = _of_image(body, given, *(body.unsqueeze(each, 0) for each in image))
    results = [body.squeeze(each, 0) for each in found]
    inputs, outputs = (
        [helper.make_tensor_value_info(each.name, elem_type(each.dtype), None) for each in tensors]
        for tensors in (image, results)
    )
    return graph.ops(
        "Scan",
        [boxes, scores],
        [each.dtype for each in results],
        body=body.proto(f"{graph.prefix}/image", inputs, outputs),
        num_scan_inputs=2,
    )


def _of_image(graph: Graph, given: Given, boxes: Tensor, scores: Tensor) -> Sequence[Tensor]:
    """Write the suppression for one image: boxes [1, B, 4] and scores [1, B, K]."""
    limit = given.integer("max_boxes")
    best = graph.op("ReduceMax", scores, graph.ints(2), keepdims=0)
    by_class = graph.unsqueeze(best, 1)
    if given.flag("per_class_suppression"):
        # ONNX's NonMaxSuppression works class by class. So a box gets its score in the row of its best class, and -inf
        # in the rows of all other classes.
        winner = graph.op("ArgMax", scores, dtype=DType.INT64, axis=2, keepdims=0)
        size = graph.scalar(graph.op("Shape", scores, dtype=DType.INT64, start=2))
        classes = graph.op("Range", graph.constant(0, DType.INT64), size, graph.constant(1, DType.INT64))
        is_own = graph.op("Equal", graph.unsqueeze(winner, 1), graph.reshape(classes, 1, -1, 1), dtype=DType.BOOL)
        by_class = graph.op("Where", is_own, by_class, graph.like(-np.inf, best), dtype=DType.FP32)
    threshold = given.maybe_array("score_threshold")
    lowest = float(np.finfo(np.float32).min) if threshold is None else float(threshold.reshape(-1)[0])
    selected = graph.op(
        "NonMaxSuppression",
        boxes,
        by_class,
        graph.ints(limit),
        graph.constant([given.number("iou_threshold")], DType.FP32),
        graph.constant([lowest], DType.FP32),
        dtype=DType.INT64,
        center_point_box=1,
    )
    found = graph.reshape(graph.op("Slice", selected, graph.ints(2), graph.ints(3), graph.ints(1)), -1)
    # Take at least one box: the best of all if none is selected.
    flat = graph.reshape(best, -1)
    fallback = graph.op("ArgMax", flat, dtype=DType.INT64, axis=0, keepdims=1)
    count = graph.op("Max", graph.op("Shape", found, dtype=DType.INT64), graph.ints(1))
    at_least_one = graph.op("Slice", graph.op("Concat", found, fallback, axis=0), graph.ints(0), count, graph.ints(0))
    order = graph.ops(
        "TopK", [graph.op("Gather", flat, at_least_one, axis=0), count], [DType.FP32, DType.INT64], axis=0
    )[1]
    sorted_boxes = graph.op("Gather", at_least_one, order, axis=0)
    indices = graph.op("Slice", sorted_boxes, graph.ints(0), graph.ints(limit), graph.ints(0))
    number = graph.op("Shape", indices, dtype=DType.INT64)
    missing = graph.op("Sub", graph.ints(limit), number)
    zero = graph.ints(0)
    pads = graph.concat(zero, zero, zero, zero, missing, zero)
    picked = [graph.op("Pad", graph.op("Gather", each, indices, axis=1), pads) for each in (boxes, scores)]
    padded = graph.op("Pad", indices, graph.concat(zero, missing), graph.constant(-1, DType.INT64))
    return [*picked, graph.unsqueeze(padded, 0), number]


TABLE: Mapping[str, Raise] = MappingProxyType({"non_maximum_suppression": _non_maximum_suppression})
