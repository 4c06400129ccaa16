"""NonMaxSuppression: boxes that overlap better ones are dropped."""

from collections.abc import Sequence

import numpy as np

from triune.coreai.library import Value, ops
from triune.coreai.lowering.context import Context, Lowering
from triune.coreai.lowering.dims import (
    Dim,
    along,
    as_scalar,
    cut,
    dims_of,
    expand,
    iota,
    known,
    product,
    retyped,
    scalar,
    shaped,
    spread,
)
from triune.coreai.lowering.loops import loop
from triune.coreai.lowering.values import axis, cast, concat, constant, like, transpose
from triune.graph.conversion.problems import Refusal

MOST_BOXES = 4096
"""All pairs are compared at once: fp32 for so many boxes takes 64 MiB a class."""


def _non_max_suppression(c: Context) -> None:
    """Best box first, each drops those after it that it overlaps too much."""
    boxes, scores = c.input(0), c.input(1)
    images, classes, count = dims_of(scores)
    if isinstance(count, int) and count > MOST_BOXES:
        raise Refusal(f"the suppression of {count} boxes at once, {MOST_BOXES} at most; pick the best by TopK before")
    known = c.constant(2)
    if not c.has(2) or (known is not None and int(known.reshape(-1)[0]) <= 0):
        raise Refusal("no boxes are kept: Core AI has no empty tensors; give max_output_boxes_per_class")
    rows = product([images, classes])
    flat = shaped(scores, [rows, count])
    order = ops.argsort(flat, axis(1), constant(np.bool_(True)), constant(np.bool_(True)))
    best = ops.gather_along_axis(flat, order, axis(1))
    edges = _edges(boxes, is_centered=bool(c.attributes.get("center_point_box", 0)))
    by_class = shaped(spread(expand(edges, [1]), [images, classes, 4, count]), [rows, 4, count])
    places = spread(expand(order, [1]), [rows, 4, count])
    ordered = ops.gather_along_axis(by_class, places, axis(2))
    most = scalar(c.input(3)) if c.has(3) else like(boxes, 0)
    is_kept = ops.not_(_dropped(ordered, most, rows, count))
    if c.has(4):
        is_kept = ops.and_(is_kept, ops.broadcasting_greater(best, scalar(c.input(4))))
    counted = ops.scan(cast(is_kept, np.int32), constant(np.uint32(1)), constant(np.bool_(False)), "sum")
    is_late = ops.broadcasting_greater(counted, scalar(c.input(2)))
    # Row by row, which is ONNX's order: images, classes, scores falling.
    found = ops.non_zero(ops.and_(is_kept, ops.not_(is_late)))
    box = ops.gather_nd(order, found)
    row = cut(found, 1, 0, 1)
    # Looked up, not computed of `row`: where no box is kept, arithmetic that broadcasts ends Apple's process (1.0.0b3).
    numbers = iota(rows)
    image = ops.gather_nd(ops.broadcasting_floor_divide(numbers, as_scalar(classes)), row)
    kind = ops.gather_nd(ops.broadcasting_modulo(numbers, as_scalar(classes)), row)
    c.give(concat([expand(each, [1]) for each in (image, kind, box)], 1))


def _edges(boxes: Value, *, is_centered: bool) -> Value:
    """(images, boxes, 4) to (images, 4, boxes): top, left, bottom, right."""
    turned = transpose(boxes, [0, 2, 1])
    a, b, e, f = (cut(turned, 1, place, place + 1) for place in range(4))
    if is_centered:
        # x, y, width, height of the center.
        width, height = (ops.broadcasting_mul(each, like(boxes, 0.5)) for each in (e, f))
        sides = [ops.sub(b, height), ops.sub(a, width), ops.add(b, height), ops.add(a, width)]
    else:
        # Two opposite corners, in any order.
        sides = [ops.minimum(a, e), ops.minimum(b, f), ops.maximum(a, e), ops.maximum(b, f)]
    return concat(sides, 1)


def _dropped(ordered: Value, most: Value, rows: Dim, count: Dim) -> Value:
    """Which boxes (rows, count) are dropped."""
    top, left, bottom, right = (cut(ordered, 1, place, place + 1) for place in range(4))
    shared = ops.mul(_overlap(left, right), _overlap(top, bottom))
    area = ops.mul(ops.sub(bottom, top), ops.sub(right, left))
    both = ops.sub(ops.broadcasting_add(area, transpose(area, [0, 2, 1])), shared)
    # No division: boxes without an area overlap nothing.
    is_much = ops.greater(shared, ops.broadcasting_mul(both, most))
    own = iota(count)
    is_after = ops.broadcasting_greater(along(own, 2, 3), along(own, 1, 3))
    drops = cast(ops.broadcasting_and(is_much, is_after), np.int32)
    limit = as_scalar(count)

    def go_on(step: Value, _dropped: Value) -> Value:
        return ops.greater(limit, step)

    def run(step: Value, dropped: Value) -> Sequence[Value]:
        following = ops.add(step, axis(1))
        is_here = ops.broadcasting_sub(axis(1), retyped(cut(dropped, 1, step, following), [*known([rows]), 1]))
        row = retyped(cut(drops, 1, step, following), [*known([rows]), 1, *known([count])])
        more = ops.broadcasting_mul(shaped(row, [rows, count]), is_here)
        return [ops.maximum(dropped, more)]

    _, dropped = loop([spread(axis(0), [rows, count])], go_on, run)
    return cast(dropped, np.bool_)


def _overlap(low: Value, high: Value) -> Value:
    """Of every two of the intervals (rows, 1, count) the length (rows, count, count) that they share."""
    begin = ops.broadcasting_maximum(low, transpose(low, [0, 2, 1]))
    end = ops.broadcasting_minimum(high, transpose(high, [0, 2, 1]))
    return ops.relu(ops.sub(end, begin))


TABLE: dict[str, Lowering] = {"NonMaxSuppression": _non_max_suppression}
