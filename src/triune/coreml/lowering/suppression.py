"""NonMaxSuppression: boxes that overlap better ones are dropped."""

from collections.abc import Sequence

import numpy as np

from triune.coreml.lowering.context import Context, Lowering, Refusal, like, static_shape
from triune.coreml.lowering.mb import Var, mb

MOST_BOXES = 4096
"""All pairs are compared at once: fp32 for so many boxes takes 64 MiB a class."""


def _non_max_suppression(c: Context) -> None:
    """Best box first, each drops those after it that it overlaps too much.

    Core ML's own operation is not used: what it puts in place of boxes that are not there is not written down.
    """
    boxes, scores = c.input(0), c.input(1)
    batch, classes, count = static_shape(scores, "the number of boxes")
    if count > MOST_BOXES:
        raise Refusal(f"the suppression of {count} boxes at once, {MOST_BOXES} at most; pick the best by TopK before")
    limit = int(c.known(2, "how many boxes are kept").reshape(-1)[0]) if c.has(2) else 0
    if limit <= 0:
        raise Refusal("no boxes are kept: Core ML has no empty tensors; give max_output_boxes_per_class")
    rows = batch * classes
    best, order = mb.topk(x=mb.reshape(x=scores, shape=[rows, count]), k=count, axis=1)
    edges = _edges(boxes, is_centered=bool(c.attributes.get("center_point_box", 0)))
    spread = mb.tile(x=mb.expand_dims(x=edges, axes=[1]), reps=[1, classes, 1, 1])
    places = mb.tile(x=mb.expand_dims(x=order, axes=[1]), reps=[1, 4, 1])
    ordered = mb.gather_along_axis(x=mb.reshape(x=spread, shape=[rows, 4, count]), indices=places, axis=2)
    is_kept = mb.logical_not(x=_dropped(c, ordered, rows, count))
    if c.has(4):
        threshold = c.input(4)
        is_kept = mb.logical_and(x=is_kept, y=mb.greater(x=best, y=_scalar(threshold)))
    kept = mb.cast(x=is_kept, dtype="int32")
    if limit < count:
        is_early = mb.less_equal(x=mb.cumsum(x=kept, axis=1), y=np.int32(limit))
        kept = mb.mul(x=kept, y=mb.cast(x=is_early, dtype="int32"))
    # Row by row, which is ONNX's order: images, classes, scores falling.
    found = mb.non_zero(x=kept)
    box = mb.gather_nd(x=order, indices=found)
    row, _ = mb.split(x=found, split_sizes=[1, 1], axis=1)
    image = mb.floor_div(x=row, y=np.int32(classes))
    kind = mb.mod(x=row, y=np.int32(classes))
    c.give(mb.concat(values=[image, kind, mb.expand_dims(x=box, axes=[1])], axis=1))


def _scalar(value: Var) -> Var:
    return mb.squeeze(x=value, axes=list(range(value.rank))) if value.rank else value


def _edges(boxes: Var, *, is_centered: bool) -> Var:
    """(images, boxes, 4) to (images, 4, boxes): top, left, bottom, right."""
    a, b, e, f = mb.split(x=mb.transpose(x=boxes, perm=[0, 2, 1]), split_sizes=[1, 1, 1, 1], axis=1)
    if is_centered:
        # x, y, width, height of the center.
        half = like(boxes, 0.5)
        width, height = mb.mul(x=e, y=half), mb.mul(x=f, y=half)
        sides = [mb.sub(x=b, y=height), mb.sub(x=a, y=width), mb.add(x=b, y=height), mb.add(x=a, y=width)]
    else:
        # Two opposite corners, in any order.
        sides = [mb.minimum(x=a, y=e), mb.minimum(x=b, y=f), mb.maximum(x=a, y=e), mb.maximum(x=b, y=f)]
    return mb.concat(values=sides, axis=1)


def _dropped(c: Context, ordered: Var, rows: int, count: int) -> Var:
    """Which boxes (rows, count) are dropped."""
    most = float(c.known(3, "the largest overlap").reshape(-1)[0]) if c.has(3) else 0.0
    top, left, bottom, right = mb.split(x=ordered, split_sizes=[1, 1, 1, 1], axis=1)
    width = _overlap(left, right)
    height = _overlap(top, bottom)
    shared = mb.mul(x=width, y=height)
    area = mb.mul(x=mb.sub(x=bottom, y=top), y=mb.sub(x=right, y=left))
    both = mb.sub(x=mb.add(x=area, y=mb.transpose(x=area, perm=[0, 2, 1])), y=shared)
    # No division: boxes without an area overlap nothing.
    is_much = mb.greater(x=shared, y=mb.mul(x=both, y=like(both, most)))
    is_after = np.triu(np.ones((1, count, count), np.bool_), 1)
    drops = mb.cast(x=mb.logical_and(x=is_much, y=is_after), dtype="int32")

    def go_on(step: Var, _dropped: Var) -> Var:
        return mb.less(x=step, y=np.int32(count))

    def run(step: Var, dropped: Var) -> Sequence[Var]:
        is_here = mb.sub(x=np.int32(1), y=mb.gather(x=dropped, indices=step, axis=1))
        more = mb.mul(x=mb.gather(x=drops, indices=step, axis=1), y=mb.expand_dims(x=is_here, axes=[1]))
        return [mb.add(x=step, y=np.int32(1)), mb.maximum(x=dropped, y=more)]

    start = mb.const(val=np.int32(0))
    none = mb.fill(shape=[rows, count], value=np.int32(0))
    _, dropped = mb.while_loop(_cond=go_on, _body=run, loop_vars=(start, none))
    return mb.not_equal(x=dropped, y=np.int32(0))


def _overlap(low: Var, high: Var) -> Var:
    """Of every two of the intervals (rows, 1, count) the length (rows, count, count) that they share."""
    begin = mb.maximum(x=low, y=mb.transpose(x=low, perm=[0, 2, 1]))
    end = mb.minimum(x=high, y=mb.transpose(x=high, perm=[0, 2, 1]))
    return mb.relu(x=mb.sub(x=end, y=begin))


TABLE: dict[str, Lowering] = {"NonMaxSuppression": _non_max_suppression}
