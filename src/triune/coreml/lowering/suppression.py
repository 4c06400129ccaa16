"""NonMaxSuppression: boxes that overlap better ones are dropped."""

import numpy as np

from triune.coreml.lowering.context import Context, Lowering, Refusal, like, static_shape
from triune.coreml.lowering.mb import Var, mb
from triune.coreml.lowering.options import Target


def _non_max_suppression(c: Context) -> None:
    """Each class of each image is an image of its own with one class, as MIL suppresses them."""
    if c.target.value < Target.IOS17.value:
        raise Refusal("Core ML's suppression before iOS17 keeps scores at the threshold; give --target iOS17 or later")
    boxes, scores = c.input(0), c.input(1)
    batch, classes, count = static_shape(scores, "the number of boxes")
    limit = int(c.known(2, "how many boxes are kept").reshape(-1)[0]) if c.has(2) else 0
    if limit <= 0:
        raise Refusal("no boxes are kept: Core ML has no empty tensors; give max_output_boxes_per_class")
    overlap = float(c.known(3, "the largest overlap").reshape(-1)[0]) if c.has(3) else 0.0
    limit = min(limit, count)
    corners = boxes if c.attributes.get("center_point_box", 0) else _centers(boxes)
    spread = mb.tile(x=mb.expand_dims(x=corners, axes=[1]), reps=[1, classes, 1, 1])
    rows = mb.reshape(x=spread, shape=[batch * classes, count, 4])
    points = mb.reshape(x=scores, shape=[batch * classes, count, 1])
    _, kept_scores, indices, numbers = mb.non_maximum_suppression(
        boxes=rows, scores=points, iou_threshold=like(boxes, overlap), max_boxes=np.int32(limit)
    )
    places = np.arange(limit, dtype=np.int32)[None, :]
    is_kept = mb.less(x=places, y=mb.expand_dims(x=numbers, axes=[1]))
    if c.has(4):
        threshold = c.input(4)
        threshold = mb.squeeze(x=threshold, axes=list(range(threshold.rank))) if threshold.rank else threshold
        above = mb.greater(x=mb.squeeze(x=kept_scores, axes=[2]), y=threshold)
        is_kept = mb.logical_and(x=is_kept, y=above)
    # Row by row, which is ONNX's order: images, classes, scores falling.
    found = mb.non_zero(x=mb.cast(x=is_kept, dtype="int32"))
    box = mb.gather_nd(x=indices, indices=found)
    row, _ = mb.split(x=found, split_sizes=[1, 1], axis=1)
    image = mb.floor_div(x=row, y=np.int32(classes))
    kind = mb.mod(x=row, y=np.int32(classes))
    c.give(mb.concat(values=[image, kind, mb.expand_dims(x=box, axes=[1])], axis=1))


def _centers(boxes: Var) -> Var:
    """From two opposite corners (y, x, y, x) in any order to (x, y, width, height) with the center's x and y."""
    y1, x1, y2, x2 = mb.split(x=boxes, split_sizes=[1, 1, 1, 1], axis=2)
    half = like(boxes, 0.5)
    return mb.concat(
        values=[
            mb.mul(x=mb.add(x=x1, y=x2), y=half),
            mb.mul(x=mb.add(x=y1, y=y2), y=half),
            mb.abs(x=mb.sub(x=x2, y=x1)),
            mb.abs(x=mb.sub(x=y2, y=y1)),
        ],
        axis=2,
    )


TABLE: dict[str, Lowering] = {"NonMaxSuppression": _non_max_suppression}
