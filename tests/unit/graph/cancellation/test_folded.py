"""Layers into which the mean of their operand is folded."""

from typing import Any

import numpy as np
from onnx import numpy_helper

from support.graphs import model_of
from triune.graph.cancellation import FoldedMean, folded_means
from triune.graph.values import Values

_NOISE = np.random.default_rng(0)


def _found(text: str, **constants: Any) -> list[FoldedMean]:
    model = model_of(text)
    for name, array in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(array.astype(np.float32), name))
    return list(folded_means(model.graph, Values(model.graph), ["x"]))


def test_the_mean_that_a_bias_cancels_in_more_results_than_operands_is_certain() -> None:
    weight, mean = _NOISE.standard_normal((2, 8)), np.array([1013, 52.5])
    (found,) = _found(
        "g (float[4,2] x) => (float[4,8] y) { m = MatMul (x, w) y = Add (b, m) }", w=weight, b=-mean @ weight
    )
    assert found.is_certain
    assert [node.op_type for node in found.nodes] == ["MatMul", "Add"]
    np.testing.assert_allclose(found.mean, mean, rtol=1e-3)


def test_the_mean_of_a_picture_is_one_number_a_channel() -> None:
    weight = _NOISE.standard_normal((4, 1, 3, 3)) / 10
    (found,) = _found(
        "g (float[1,1,9,9] x) => (float[1,4,7,7] y) { y = Conv (x, w, b) }",
        w=weight,
        b=-300 * weight.sum(axis=(1, 2, 3)),
    )
    assert found.is_certain
    np.testing.assert_allclose(found.mean, [[[300]]], rtol=1e-3)


def test_a_mean_of_more_operands_than_results_may_be_an_accident() -> None:
    weight = _NOISE.standard_normal((8, 2))
    (found,) = _found("g (float[4,8] x) => (float[4,2] y) { y = Gemm (x, w, b) }", w=weight, b=np.array([300, 400]))
    assert not found.is_certain


def test_ordinary_biases_and_those_that_no_mean_explains_are_none() -> None:
    weight, bias = _NOISE.standard_normal((2, 8)), _NOISE.standard_normal(8)
    text = "g (float[4,2] x) => (float[4,8] y) { y = Gemm (x, w, b) }"
    assert _found(text, w=weight, b=bias) == []
    assert _found(text, w=weight, b=1000 * bias) == []
