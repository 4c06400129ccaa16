"""Operators of which nothing is known but their names."""

import pytest

from support.graphs import model_of
from triune.graph.conversion.options import ConversionOptions
from triune.graph.conversion.prepare import prepare
from triune.graph.conversion.unknown import empty_unknown
from triune.graph.weight_files import WeightFile

_IMPORTS = ', "own" : 1, "other" : 1, "com.microsoft" : 1, "ai.onnx.ml" : 3'
_NODES = {
    "own.Mystery <big = [1, 2]> (x)": 0,
    "com.microsoft.MatMulNBits <K = 4, N = 4, bits = 4, block_size = 16> (x, x, x)": 4,
    "com.microsoft.QuickGelu <alpha = 1.5> (x)": 1,
    "ai.onnx.ml.Scaler <scale = [2.0], offset = [1.0]> (x)": 2,
    "own.scaled <by = 3.0> (x)": 1,
    "LeakyRelu <alpha = 0.5> (x)": 1,
}


@pytest.mark.parametrize("node", _NODES)
def test_attributes_are_dropped_of_what_nobody_knows(node: str) -> None:
    model = model_of(
        f"""agraph (float[4] x) => (float[4] y) {{ y = {node} }}
        <domain: "own", opset_import: ["" : 10]> scaled <by> (a) => (b) {{ b = Elu <alpha: float = @by> (a) }}""",
        imports=_IMPORTS,
    )
    empty_unknown(model)
    assert len(model.graph.node[0].attribute) == _NODES[node]


def test_they_are_dropped_in_bodies_and_functions_and_bodies_stay() -> None:
    model = model_of(
        """agraph (bool c, float[4] x) => (float[4] y) {
            y = If (c) <
                then_branch = yes () => (float[4] z) { z = own.Mystery <big = [1, 2]> (x) },
                else_branch = no () => (float[4] z) { z = own.twice (x) }> }
        <domain: "own", opset_import: ["" : 21, "other" : 1]> twice (a) => (b) { b = other.Mystery <big = [1]> (a) }""",
        imports=_IMPORTS,
    )
    empty_unknown(model)
    bodies = [attribute.g for attribute in model.graph.node[0].attribute]
    assert [len(body.node[0].attribute) for body in bodies] == [0, 0]
    assert len(model.functions[0].node[0].attribute) == 0


def test_a_conversion_drops_them_of_its_own_copy() -> None:
    model = model_of("agraph (float[4] x) => (float[4] y) { y = own.Mystery <big = [1, 2]> (x) }", imports=_IMPORTS)
    with WeightFile() as file:
        (left,) = prepare(model, ConversionOptions(), None, print, file).model.graph.node
    assert (left.op_type, len(left.attribute)) == ("Mystery", 0)
    assert len(model.graph.node[0].attribute) == 1
