"""What ONNX's shape inference does not survive never reaches it."""

import onnx.shape_inference
import pytest
from onnx import TypeProto

from support.graphs import model_of
from triune.core.errors import UnsupportedError
from triune.graph.inference import infer_shapes
from triune.graph.normalize import normalize

FAR = 2**63 - 1


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f"y, m = LayerNormalization <axis = {FAR}> (x, s)", "'y' has axis 9223372036854775807, and no tensor"),
        ("y, m = LayerNormalization <axis = 2> (x, s)", "axes are from -2 to 1"),
        (f"y = RMSNormalization <axis = {-(2**31)}> (x, s)", "RMSNormalization 'y' has axis -2147483648"),
        ("a = Relu (x) y, m = LayerNormalization <axis = -3> (a, s)", "has axis -3, and its input rank 2"),
        ("y, m = Split <num_outputs = 3> (x)", "Split 'y' has 2 outputs, and its attribute num_outputs is 3"),
        ("y = GatherND <batch_dims = -100> (x, i)", "GatherND 'y' has batch_dims -100"),
    ],
)
def test_nodes_that_end_the_process_are_told(text: str, reason: str) -> None:
    model = model_of(f"agraph (float[2,3] x, float[3] s, int64[2,1] i) => (float[?,?] y) {{ {text} }}", opset=23)
    with pytest.raises(onnx.shape_inference.InferenceError, match=reason):
        infer_shapes(model)


@pytest.mark.parametrize(
    ("text", "imports"),
    [
        ('b = odd.Odd (x) y = RegexFullMatch <pattern = "a"> (b)', ', "odd" : 1'),
        ('b = odd.Odd (x) y = ai.onnx.ml.LabelEncoder <keys_strings = ["a"]> (b)', ', "odd" : 1, "ai.onnx.ml" : 4'),
        ("y = ai.onnx.ml.LabelEncoder ()", ', "ai.onnx.ml" : 4'),
        ("y = ai.onnx.ml.TreeEnsemble ()", ', "ai.onnx.ml" : 5'),
        ("y = EyeLike ()", ""),
    ],
)
def test_inputs_without_a_type_are_left_alone(text: str, imports: str) -> None:
    model = model_of(f"agraph (string[2] x) => (y) {{ {text} }}", opset=21, imports=imports)
    assert infer_shapes(model).graph.node == model.graph.node


def test_a_fragile_node_may_tell_what_the_next_is_given() -> None:
    text = """a, m = LayerNormalization <axis = 1> (x, s) b, n = LayerNormalization <axis = -1> (a, s)
      c, y = LayerNormalization <axis = 0> (n, t)"""
    model = model_of(f"agraph (float[2,3] x, float[3] s, float[1] t) => (y) {{ {text} }}", opset=21)
    model.graph.output[0].type.CopyFrom(TypeProto())
    found = infer_shapes(model)
    assert [dim.dim_value for dim in found.graph.output[0].type.tensor_type.shape.dim] == [1, 1]
    assert [node.op_type for node in (*model.graph.node, *found.graph.node)] == ["LayerNormalization"] * 6


@pytest.mark.parametrize(
    ("node", "length"),
    [
        ("n = Constant <value = int64[1] {4611686018427387904}> ()  y = Expand (x, n)", 2**62),
        ("n = Constant <value = int64[1] {4611686018427387904}> ()  y = ConstantOfShape (n)", 2**62),
        ("n = Constant <value = int64[1] {16777217}> ()  y = ConstantOfShape (n)", 2**24 + 1),
        ("n = Constant <value = int64[1] {4611686018427387904}> ()  y = Tile (x, n)", 2**63),
        (
            "a = Constant <value_int = 5> ()  b = Constant <value_int = -4611686018427387904> ()"
            "  d = Constant <value_int = -2> ()  y = Range (a, b, d)",
            2**61 + 3,
        ),
    ],
)
def test_vectors_that_inference_would_write_out_for_ever_are_told(node: str, length: int) -> None:
    op_type = node.split(" (")[-2].split()[-1]
    model = model_of(f"agraph (int64[2] x) => (int64[?] y) {{ {node} }}")
    with pytest.raises(onnx.shape_inference.InferenceError, match=f"{op_type} 'y' makes a vector of {length} elements"):
        infer_shapes(model, data_prop=True)
    with pytest.raises(UnsupportedError, match=f"^{op_type} 'y' makes a vector of {length} elements"):
        normalize(model)
    then = (
        f"agraph (bool c, int64[2] x) => (int64[?] z) {{ z = If (c) <then_branch = a () => (int64[?] y) {{ {node} }},"
    )
    model = model_of(f"{then} else_branch = b () => (int64[2] x2) {{ x2 = Identity (x) }}> }}")
    with pytest.raises(onnx.shape_inference.InferenceError, match=f"'y' makes a vector of {length} elements"):
        infer_shapes(model, data_prop=True)


def test_vectors_of_many_elements_are_inferred() -> None:
    text = "agraph (float[N] x) => (float[?] y) { n = Constant <value = int64[1] {65536}> ()  y = ConstantOfShape (n) }"
    inferred = infer_shapes(model_of(text), data_prop=True)
    assert inferred.graph.output[0].type.tensor_type.shape.dim[0].dim_value == 65536


@pytest.mark.parametrize(
    "node",
    [
        "n = Constant <value = int64[1] {33554432}> ()  y = Expand (x, n)",
        "a = Constant <value_float = 0.0> ()  b = Constant <value_float = 1e9> ()"
        "  d = Constant <value_float = 1.0> ()  y = Range (a, b, d)",
    ],
)
def test_long_vectors_that_are_no_shapes_are_inferred(node: str) -> None:
    inferred = infer_shapes(model_of(f"agraph (float[1] x) => (float[?] y) {{ {node} }}"), data_prop=True)
    assert inferred.graph.output[0].type.tensor_type.shape.dim[0].dim_value > 2**24


@pytest.mark.parametrize("made", ["y = Range (a, b, d)", "y = Expand (x, n)", "y = Tile (x, n)"])
@pytest.mark.parametrize("read", ["z = Slice (y, one, one)", "z = Squeeze (y)", "z = Mul (y, y)"])
def test_long_vectors_of_floats_are_told_where_inference_follows_them(made: str, read: str) -> None:
    text = f"""agraph (float[1] x) => (float[?] z)
        <float a = {{0}}, float b = {{1000000000}}, float d = {{1}}, int64[1] n = {{1000000000}}, int64[1] one = {{1}}>
        {{ {made}  {read} }}"""
    with pytest.raises(UnsupportedError, match="'y' makes a vector of 1000000000 elements"):
        normalize(model_of(text))
