"""Values of subgraphs with the name of a value that the graph around them computes later."""

import numpy as np
import onnx
import onnx.parser
from onnx.reference import ReferenceEvaluator

from triune.graph.normalize import normalize
from triune.graph.shadows import rename_shadows

MODEL = """<ir_version: 8, opset_import: ["" : 18]>
g (float[3] x) => (float[3] z) {
    k = Constant <value_int = 3> () go = Constant <value = bool {1}> ()
    y = Loop (k, go, x) <body = b (int64 i, bool c, float[3] s) => (bool d, float[3] t) {
        d = Identity (c) u = Tanh (s) v = If (d) <then_branch = p () => (float[3] w) { w = Neg (u) },
            else_branch = q () => (float[3] w) { w = Identity (u) }> t = Add (v, x) }>
    u = Identity (y) w = Relu (u) z = Add (u, w) }"""


def _results(model: onnx.ModelProto) -> np.ndarray:
    return ReferenceEvaluator(model).run(None, {"x": np.float32([1, -2, 0.5])})[0]


def test_they_get_names_of_their_own() -> None:
    model = onnx.parser.parse_model(MODEL)
    right = _results(model)
    rename_shadows(model.graph)
    onnx.checker.check_model(model)
    np.testing.assert_array_equal(_results(model), right)
    (loop,) = (node for node in model.graph.node if node.op_type == "Loop")
    (body,) = (attribute.g for attribute in loop.attribute)
    assert {name for node in body.node for name in node.output}.isdisjoint({"u", "w", "y", "z"})


def test_passes_do_not_take_one_for_the_other() -> None:
    model = onnx.parser.parse_model(MODEL)
    np.testing.assert_allclose(_results(normalize(model)), _results(model), rtol=1e-6)


def test_names_of_sibling_branches_stay() -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 18]>
        g (float[3] x, bool c) => (float[3] y) {
            y = If (c) <then_branch = p () => (float[3] w) { w = Neg (x) }, else_branch = q () => (float[3] w) {
                w = Abs (x) }> }"""
    )
    before = model.SerializeToString(deterministic=True)
    rename_shadows(model.graph)
    assert model.SerializeToString(deterministic=True) == before
