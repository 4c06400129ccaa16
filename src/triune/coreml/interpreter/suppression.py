"""Non-maximum suppression: among overlapping boxes it keeps the one with the highest score."""

from typing import Any

import numpy as np

from triune.coreml.interpreter.values import Family
from triune.coreml.mil import Array


def non_maximum_suppression(
    boxes: Array,
    scores: Array,
    iou_threshold: Any,
    score_threshold: Any,
    max_boxes: Any,
    per_class_suppression: Any,
) -> tuple[Array, ...]:
    """Keep the best boxes that do not overlap a better one too much.

    The score of a box is that of its best class. Boxes are (x, y, width, height), where (x, y) is the center. Up to iOS
    16 they are (n, B, 4) with scores (n, B, K) and a `score_threshold`; from iOS 17 on, (n, 4, B) and (n, K, B) without
    one. The result has `max_boxes` boxes: missing ones are zeros with the index -1. If no score reaches the threshold,
    the best box is kept.

    Returns:
        the kept boxes, their scores, their indices and, up to iOS 16, their number.
    """
    if score_threshold is None:
        parts = _suppress(
            boxes.swapaxes(1, 2),
            scores.swapaxes(1, 2),
            float(iou_threshold),
            -np.inf,
            int(max_boxes),
            bool(per_class_suppression),
        )
        return parts[0].swapaxes(1, 2), parts[1].swapaxes(1, 2), parts[2]
    return _suppress(
        boxes, scores, float(iou_threshold), float(score_threshold), int(max_boxes), bool(per_class_suppression)
    )


def _suppress(
    boxes: Array, scores: Array, iou_threshold: float, score_threshold: float, max_boxes: int, is_per_class: bool
) -> tuple[Array, Array, Array, Array]:
    num = boxes.shape[0]
    out_boxes = np.zeros((num, max_boxes, 4), boxes.dtype)
    out_scores = np.zeros((num, max_boxes, scores.shape[2]), scores.dtype)
    out_indices = np.full((num, max_boxes), -1, np.int32)
    counts = np.zeros(num, np.int32)
    for at in range(num):
        kept = _kept(boxes[at], scores[at], iou_threshold, score_threshold, is_per_class)[:max_boxes]
        counts[at] = len(kept)
        out_boxes[at, : len(kept)] = boxes[at, kept]
        out_scores[at, : len(kept)] = scores[at, kept]
        out_indices[at, : len(kept)] = kept
    return out_boxes, out_scores, out_indices, counts


def _kept(boxes: Array, scores: Array, iou_threshold: float, score_threshold: float, is_per_class: bool) -> list[int]:
    """The indices of the boxes of one image that are kept, the best first."""
    best, classes = scores.max(axis=1), scores.argmax(axis=1)
    order = [int(at) for at in np.argsort(-best, kind="stable")]
    kept: list[int] = []
    for at in order:
        if best[at] < score_threshold:
            break
        rivals = [other for other in kept if not is_per_class or classes[other] == classes[at]]
        if all(_iou(boxes[at], boxes[other]) <= iou_threshold for other in rivals):
            kept.append(at)
    return kept or order[:1]


def _iou(a: Array, b: Array) -> float:
    """The area of the intersection of two boxes, divided by that of their union; 0 for boxes without area."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    low = np.maximum(a[:2] - a[2:] / 2, b[:2] - b[2:] / 2)
    high = np.minimum(a[:2] + a[2:] / 2, b[:2] + b[2:] / 2)
    shared = float(np.prod(np.maximum(0, high - low)))
    union = float(np.prod(a[2:]) + np.prod(b[2:])) - shared
    return shared / union if union > 0 else 0.0


FAMILY: Family = {"non_maximum_suppression": non_maximum_suppression}
