"""Let exported classifiers choose labels by the scores by which scikit-learn chooses them."""

from typing import Final

from onnx import ModelProto, NodeProto

_FORMS: Final = frozenset(
    [
        ("Div", "Add", "Reciprocal", "Add", "Exp", "Mul"),
        ("Div", "Add", "Div", "Add", "Clip"),
    ]
)
"""The operators from probabilities back to scores in what skl2onnx writes for `SGDClassifier`: of "log_loss" and of
"modified_huber".
"""

_OPERATORS: Final = frozenset(op_type for form in _FORMS for op_type in form)


def choose_by_scores(model: ModelProto) -> None:
    """Given an ArgMax of probabilities that are made of the scores of a linear model, class by class. Result: an ArgMax
    of the scores, as `SGDClassifier.predict` has it.

    Probabilities of several classes are equal where they are clipped ("modified_huber") or rounded to 1 ("log_loss"),
    and the first of them would be taken.
    """
    producers = {name: node for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        if node.op_type == "ArgMax" and (scores := _scores(producers, node.input[0])) is not None:
            node.input[0] = scores


def _scores(producers: dict[str, NodeProto], name: str) -> str | None:
    """The scores from which probabilities are computed; None if they are not made as skl2onnx makes them."""
    seen: list[str] = []
    while (node := producers.get(name)) is not None and node.op_type in _OPERATORS:
        before = producers.get(node.input[0])
        if node.op_type == "Add" and before is not None and before.op_type == "MatMul":
            return name if tuple(seen) in _FORMS else None
        seen.append(node.op_type)
        name = node.input[0]
    return None
