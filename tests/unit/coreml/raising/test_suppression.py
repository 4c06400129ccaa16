"""non_maximum_suppression, against the loop that its description is."""

import numpy as np
import pytest

from support.mil_programs import mb, run
from triune.coreml.mil import Array

IMAGES, BOXES, CLASSES = 3, 40, 4


def overlap(a: Array, b: Array) -> float:
    low = np.maximum(a[:2] - a[2:] / 2, b[:2] - b[2:] / 2)
    high = np.minimum(a[:2] + a[2:] / 2, b[:2] + b[2:] / 2)
    shared = float(np.prod(np.maximum(high - low, 0)))
    return shared / (float(np.prod(a[2:])) + float(np.prod(b[2:])) - shared)


def chosen(boxes: Array, scores: Array, threshold: float, lowest: float, limit: int, by_class: bool) -> list[int]:
    kept: list[int] = []
    for index in np.argsort(-scores.max(1)):
        is_covered = any(
            overlap(boxes[index], boxes[other]) > threshold
            and (not by_class or scores[index].argmax() == scores[other].argmax())
            for other in kept
        )
        if scores[index].max() > lowest and not is_covered:
            kept.append(int(index))
    return kept[:limit]


@pytest.mark.parametrize("target", ["iOS15", "iOS17"])
@pytest.mark.parametrize("by_class", [False, True])
@pytest.mark.parametrize("limit", [5, 30])
@pytest.mark.parametrize("is_dynamic", [False, True])
def test_suppression(target: str, by_class: bool, limit: int, is_dynamic: bool) -> None:
    generator = np.random.default_rng(limit)
    boxes = np.concatenate(
        [generator.uniform(0, 10, (IMAGES, BOXES, 2)), generator.uniform(1, 4, (IMAGES, BOXES, 2))], 2
    ).astype(np.float32)
    scores = generator.random((IMAGES, BOXES, CLASSES)).astype(np.float32)
    is_older = target == "iOS15"
    more = {"score_threshold": np.float32(0.7)} if is_older else {}
    inputs = {"boxes": boxes, "scores": scores}
    if not is_older:
        inputs = {name: np.ascontiguousarray(each.swapaxes(1, 2)) for name, each in inputs.items()}
    outputs = run(
        lambda given: mb.non_maximum_suppression(
            boxes=given.boxes, scores=given.scores, iou_threshold=np.float32(0.3), max_boxes=limit,
            per_class_suppression=by_class, **more,
        ),
        inputs,
        target,
        is_dynamic=is_dynamic,
    )  # fmt: skip
    if not is_older:
        outputs[:2] = [each.swapaxes(1, 2) for each in outputs[:2]]
    assert len(outputs) == (4 if is_older else 3)
    for image in range(IMAGES):
        kept = chosen(boxes[image], scores[image], 0.3, 0.7 if is_older else -1, limit, by_class)
        count = len(kept)
        assert outputs[2][image].tolist() == kept + [-1] * (limit - count)
        np.testing.assert_array_equal(outputs[0][image], np.pad(boxes[image][kept], ((0, limit - count), (0, 0))))
        np.testing.assert_array_equal(outputs[1][image], np.pad(scores[image][kept], ((0, limit - count), (0, 0))))
        if is_older:
            assert outputs[3][image] == count


def test_the_best_box_stays_where_none_reaches_the_threshold() -> None:
    boxes = np.array([[[1, 1, 1, 1], [4, 4, 1, 1]]], np.float32)
    scores = np.array([[[0.1], [0.2]]], np.float32)
    outputs = run(
        lambda given: mb.non_maximum_suppression(
            boxes=given.boxes, scores=given.scores, iou_threshold=np.float32(0.3), score_threshold=np.float32(0.5),
            max_boxes=2,
        ),
        {"boxes": boxes, "scores": scores},
    )  # fmt: skip
    assert outputs[2].tolist() == [[1, -1]]
    assert outputs[3].tolist() == [1]
