"""Lowering of NonMaxSuppression, which drops boxes that overlap a box of a higher score."""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from triune.graph.conversion.context import Lowering, NodeContext
from triune.graph.conversion.lowering.builder import Builder, Dim, Operand
from triune.graph.conversion.problems import Refusal
from triune.graph.conversion.scope import V

MOST_BOXES: Final = 4096
"""The largest number of boxes that is accepted. All pairs are compared at once, which for 4096 boxes takes 64 MiB of
fp32 for each class.
"""


def non_max_suppression(c: NodeContext[V]) -> None:
    """NonMaxSuppression: sort boxes by score; each kept box drops the later ones whose IoU (intersection over union)
    with it is above the threshold.
    """
    b, boxes, scores = c.builder, c.input(0), c.input(1)
    images, classes, count = b.dims(scores)
    if isinstance(count, int) and count > MOST_BOXES:
        raise Refusal(
            f"it compares {count} boxes at once, {MOST_BOXES} are supported; select the best with TopK before"
        )
    limit = _number(c, 2)
    if not c.has(2) or (isinstance(limit, float) and limit <= 0):
        raise Refusal(f"no boxes are kept: {b.runtime} has no empty tensors; give max_output_boxes_per_class")
    rows = b.product([images, classes])
    best, order = b.top_k(b.reshape(scores, [rows, count]), count, 1, is_largest=True)
    edges = _edges(b, boxes, is_centered=bool(c.attributes.get("center_point_box", 0)))
    by_class = b.reshape(b.expand(b.unsqueeze(edges, [1]), [images, classes, 4, count]), [rows, 4, count])
    ordered = b.gather_elements(by_class, b.expand(b.unsqueeze(order, [1]), [rows, 4, count]), 2)
    is_kept = b.elementwise("Not", _dropped(b, ordered, _number(c, 3), rows, count))
    if c.has(4):
        is_kept = b.both(is_kept, b.greater(best, _number(c, 4)))
    if not isinstance(limit, float) or not isinstance(count, int) or limit < count:
        is_late = b.greater(b.cumsum(b.cast(is_kept, "int32"), 1), limit)
        is_kept = b.both(is_kept, b.elementwise("Not", is_late))
    # The results are in ONNX's order: by image, then class, then falling score.
    found = b.nonzero_indices(is_kept)
    box, row = b.gather_nd(order, found), b.slice(found, 1, 0, 1)
    # Look up image and class rather than computing them from `row`: if no box is kept, arithmetic that broadcasts kills
    # the process of Apple's Core AI interpreter (1.0.0b3).
    numbers = b.iota(rows)
    by_row = [b.div(numbers, classes), b.mod(numbers, classes)]
    c.give(b.concat([b.unsqueeze(each, [1]) for each in (*(b.gather_nd(each, row) for each in by_row), box)], 1))


def _number(c: NodeContext[V], index: int) -> Operand[V]:
    """An input of one element: a number if it is known at conversion time, else a scalar; 0 if it is omitted."""
    known = c.constant(index) if c.has(index) else np.zeros(())
    return c.builder.reshape(c.input(index), []) if known is None else float(known.reshape(-1)[0])


def _edges(b: Builder[V], boxes: V, *, is_centered: bool) -> V:
    """Boxes (images, boxes, 4) as edges (images, 4, boxes): top, left, bottom, right."""
    one, two, three, four = b.split(b.transpose(boxes, [0, 2, 1]), [1] * 4, 1)
    if is_centered:
        # Boxes are (x, y) of the center, width and height.
        width, height = b.mul(three, 0.5), b.mul(four, 0.5)
        sides = [b.sub(two, height), b.sub(one, width), b.add(two, height), b.add(one, width)]
    else:
        # Boxes are two opposite corners (y1, x1, y2, x2), in either order.
        sides = [b.minimum(one, three), b.minimum(two, four), b.maximum(one, three), b.maximum(two, four)]
    return b.concat(sides, 1)


def _dropped(b: Builder[V], ordered: V, most: Operand[V], rows: Dim[V], count: Dim[V]) -> V:
    """Compute whether each box is dropped, BOOL (rows, count). `ordered` has the edges of the boxes, by falling score:
    (rows, 4, count). A box is dropped if its IoU with a kept one is above `most`.
    """
    top, left, bottom, right = b.split(ordered, [1] * 4, 1)
    shared = b.mul(_overlap(b, left, right), _overlap(b, top, bottom))
    area = b.mul(b.sub(bottom, top), b.sub(right, left))
    both = b.sub(b.add(area, b.transpose(area, [0, 2, 1])), shared)
    # Compare intersection > threshold * union rather than IoU > threshold, which divides by 0 for boxes of area 0.
    is_much = b.greater(shared, b.mul(both, most))
    own = b.iota(count)
    is_after = b.greater(b.unsqueeze(own, [0, 1]), b.unsqueeze(own, [0, 2]))
    drops = b.cast(b.both(is_much, is_after), "int32")

    def run(step: V, dropped: V) -> Sequence[V]:
        is_here = b.sub(1, b.take(dropped, step, 1))
        return [b.maximum(dropped, b.mul(b.take(drops, step, 1), b.unsqueeze(is_here, [1])))]

    (dropped,) = b.loop(count, [b.full([rows, count], 0, "int32")], run)
    return b.cast(dropped, np.bool_)


def _overlap(b: Builder[V], low: V, high: V) -> V:
    """The lengths (rows, count, count) of the overlaps of all pairs of intervals (rows, 1, count)."""
    begin = b.maximum(low, b.transpose(low, [0, 2, 1]))
    end = b.minimum(high, b.transpose(high, [0, 2, 1]))
    return b.elementwise("Relu", b.sub(end, begin))


TABLE: Mapping[str, Lowering] = {"NonMaxSuppression": non_max_suppression}
