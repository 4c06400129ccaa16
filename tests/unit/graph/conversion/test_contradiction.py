"""ONNX's words for models that are none."""

from support.graphs import model_of
from triune.graph.conversion.contradiction import contradiction_within


def test_inputs_that_an_operator_lacks_are_told() -> None:
    """Inference asks no operator of another domain how many it has."""
    model = model_of(
        "agraph (float[2,3] x) => (float[2,1] y) { y = ai.onnx.ml.TreeEnsemble () }", imports=', "ai.onnx.ml" : 5'
    )
    assert "input size 0 not in range" in str(contradiction_within(model))


def test_what_onnx_takes_has_none() -> None:
    model = model_of("agraph (float[2,3] x) => (float[2,3] y) { y = odd.Odd (x) }", imports=', "odd" : 1')
    assert contradiction_within(model) is None
