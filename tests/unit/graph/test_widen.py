import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from support.graphs import answers, model_of
from triune.graph.passes.infer import Infer
from triune.graph.passes.widen import Widen, half_interface

HALF, FLOAT = TensorProto.FLOAT16, TensorProto.FLOAT


def test_everything_is_wide_and_computes_so() -> None:
    """Weights, Constant, Cast, ConstantOfShape, and what lies in a branch."""
    third = np.float16(1 / 3)

    def branch(name: str, op: str) -> onnx.GraphProto:
        constant = helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.array([third])))
        return helper.make_graph(
            [constant, helper.make_node(op, ["h", "c"], [name])],
            name,
            [],
            [helper.make_tensor_value_info(name, HALF, [2])],
        )

    nodes = [
        helper.make_node("Cast", ["x"], ["n"], to=HALF),
        helper.make_node("Mul", ["n", "w"], ["h"]),
        helper.make_node("If", ["go"], ["b"], then_branch=branch("then", "Add"), else_branch=branch("else", "Sub")),
        helper.make_node("Shape", ["h"], ["s"]),
        helper.make_node("ConstantOfShape", ["s"], ["o"], value=numpy_helper.from_array(np.array([0.5], np.float16))),
        helper.make_node("Add", ["b", "o"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "half",
        [helper.make_tensor_value_info("x", FLOAT, [2]), helper.make_tensor_value_info("go", TensorProto.BOOL, [])],
        [helper.make_tensor_value_info("y", HALF, [2])],
        [numpy_helper.from_array(np.full(2, third), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    x = np.array([1000.1, -3.3], np.float32)
    feeds = {"x": x, "go": np.array(True)}
    narrow = ReferenceEvaluator(model).run(None, feeds)[0]
    wide = Widen()(model)
    onnx.checker.check_model(wide, full_check=True)
    assert HALF not in {tensor.data_type for tensor in wide.graph.initializer}
    found = ReferenceEvaluator(wide).run(None, feeds)[0]
    assert narrow.dtype == np.float16
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, x * np.float32(third) + np.float32(third) + 0.5, rtol=1e-6)
    assert np.abs(narrow - found).max() > 1e-3


def test_what_crosses_the_interface_stays_as_it_is() -> None:
    """An input that a branch reads and that is given out, and a constant that is given out."""
    model = model_of(
        """
        agraph (float16[2] x, bool go) => (float16[2] x, float16[2] y, float16[2] w, float[2] z)
          <float16[2] w = {14336, 16896}> {
          m = Mul (x, w)
          y = If (go) <then_branch = t () => (float16[2] a) { a = Mul (m, x) },
                       else_branch = e () => (float16[2] b) { b = Identity (x) }>
          z = Cast <to = 1> (m) }
        """
    )
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    wide = Infer()(half_interface(model.graph)(Widen()(copy)))
    onnx.checker.check_model(wide, full_check=True)
    kinds = [[value.type.tensor_type.elem_type for value in each.graph.output] for each in (model, wide)]
    assert kinds[0] == kinds[1]
    assert {tensor.data_type for tensor in wide.graph.initializer} == {FLOAT}
    x = np.array([600, -2], np.float16)
    results = answers(wide, {"x": x, "go": np.array(True)})
    for result, right in zip(results, [x, [np.inf, 12], [0.5, 3], [300, -6]], strict=True):
        np.testing.assert_array_equal(result, np.array(right, result.dtype))
