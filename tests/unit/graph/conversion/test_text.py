"""What classifiers give beside numbers: text and dictionaries."""

from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

from support.contrib.case import computed, floats, lowered_opset
from support.contrib.forests import forest
from triune.graph.conversion.text import numbers_of
from triune.graph.normalize import foreign_ops, normalize


def pipeline(labels: list[Any], *, classifier: str = "LinearClassifier") -> ModelProto:
    """Scaler, classifier and ZipMap, as converters of scikit-learn write them."""
    is_text = isinstance(labels[0], str)
    kind = "strings" if is_text else "int64s"
    if classifier == "LinearClassifier":
        own = {
            "coefficients": floats(len(labels), 5).reshape(-1).tolist(),
            "intercepts": floats(len(labels)).tolist(),
            "post_transform": "SOFTMAX",
            f"classlabels_{'strings' if is_text else 'ints'}": labels,
        }
    else:
        own = forest("class", targets=range(len(labels))) | {f"classlabels_{kind}": labels}
    label = TensorProto.STRING if is_text else TensorProto.INT64
    nodes = [
        helper.make_node("Scaler", ["x"], ["scaled"], domain="ai.onnx.ml", offset=[0.5] * 5, scale=[2.0] * 5),
        helper.make_node(classifier, ["scaled"], ["label", "scores"], domain="ai.onnx.ml", **own),
        helper.make_node("ZipMap", ["scores"], ["probability"], domain="ai.onnx.ml", **{f"classlabels_{kind}": labels}),
    ]
    key = helper.make_tensor_type_proto(TensorProto.FLOAT, [])
    dictionary = helper.make_sequence_type_proto(helper.make_map_type_proto(label, key))
    graph = helper.make_graph(
        nodes,
        "pipeline",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 5])],
        [
            helper.make_tensor_value_info("label", label, [None]),
            helper.make_value_info("probability", dictionary),
        ],
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


@pytest.mark.parametrize("classifier", ["LinearClassifier", "TreeEnsembleClassifier"])
@pytest.mark.parametrize("labels", [["cat", "dog", "eel"], [7, 2, 5]])
def test_pipelines_of_scikit_learn_give_their_scores(labels: list[Any], classifier: str) -> None:
    model, x = pipeline(labels, classifier=classifier), floats(6, 5)
    kept, notes = numbers_of(model)
    normal = normalize(kept)
    assert foreign_ops(normal) == []
    label, rows = computed(model, {"x": x})
    scores = [[row[each] for each in labels] for row in rows]
    *others, actual = computed(lowered_opset(normal), {"x": x})
    np.testing.assert_allclose(actual, scores, rtol=1e-4, atol=1e-5)
    if isinstance(labels[0], str):
        assert others == []
        assert "'cat', 'dog', 'eel'" in notes[0]
        assert "'label' is text" in notes[1]
    else:
        np.testing.assert_array_equal(others[0], label)
        assert "7, 2, 5" in notes[0]
        assert len(notes) == 1


def test_models_of_numbers_are_not_copied() -> None:
    model = ModelProto()
    assert numbers_of(model) == (model, [])
    assert numbers_of(model)[0] is model


def test_a_model_of_text_alone_keeps_it() -> None:
    model = pipeline(["cat", "dog"])
    del model.graph.output[1:]
    del model.graph.node[2:]
    kept, notes = numbers_of(model)
    assert ([value.name for value in kept.graph.output], notes) == (["label"], [])
