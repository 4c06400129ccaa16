"""Steps of optimizers."""

from support.graphs import model_of
from triune.graph.conversion.unconverted import why_unconverted
from triune.graph.normalize import normalize


def test_a_step_whose_tensors_lack_something_says_so() -> None:
    model = model_of(
        """agraph (float r, int64 t, float[2] x, float[2] g) => (float[2] y)
             { y = ai.onnx.preview.training.Adagrad (r, t, x, g) }""",
        imports=', "ai.onnx.preview.training" : 1',
    )
    (node,) = normalize(model).graph.node
    assert "2 inputs behind R and T, and each of its tensors has 3" in why_unconverted(node, "Core ML")
