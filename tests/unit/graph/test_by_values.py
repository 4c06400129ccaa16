"""What the values of a graph's inputs decide: shapes, and how long a run takes."""

from collections.abc import Sequence

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper, parser

from triune.graph.by_values import by_values


def model(text: str, *, domains: str = "") -> ModelProto:
    """The graph of ONNX's text form: its inputs, outputs, initializers and nodes."""
    return parser.parse_model(f'<ir_version: 8, opset_import: ["" : 18{domains}]> {text}')


BODY = """{ body = b (int64 i, bool go, float[b,4] a) => (bool still, float[b,4] c)
    { still = Identity(go)  c = Add(a, a) } }"""


@pytest.mark.parametrize(
    "nodes",
    [
        "y = Relu(x)",
        "y = MatMul(x, w)",
        # Shapes that shapes decide.
        "s = Shape(x)  y = Reshape(x, s)",
        "s = Shape(x)  z = ConstantOfShape(s)  y = Add(x, z)",
        "y = Expand(x, one)",
        "y, i = TopK(x, one)",
        "r = ReduceSum<keepdims = 1>(x, one)  y = Add(x, r)",
        # A condition that is always the same.
        "y = If(yes) <then_branch = t () => (float[b,4] p) { p = Relu(x) }, "
        "else_branch = e () => (float[b,4] q) { q = Neg(x) }>",
    ],
)
def test_shapes_alone_decide(nodes: str) -> None:
    found = by_values(graph(nodes))
    assert found.time == ""
    assert found.shapes == frozenset()


def graph(nodes: str) -> ModelProto:
    weights = "<float[4,4] w = {0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0}, int64[1] one = {1}, bool yes = {1}>"
    return model(f"g (float[b,4] x, int64[1] n, bool go) => (float[b,4] y) {weights} {{ {nodes} }}")


@pytest.mark.parametrize(
    ("nodes", "decider", "is_sized"),
    [
        ("y = Loop(n, go, x) <body = " + BODY[BODY.index("=") + 1 : BODY.rindex("}")] + ">", "Loop", True),
        ("y = Loop(one, yes, x) <body = " + BODY[BODY.index("=") + 1 : BODY.rindex("}")] + ">", "Loop", False),
        ("i = NonZero(x)  t = Transpose(i)  y = Cast<to = 1>(t)", "NonZero", True),
        ("k = NonZero(n)  s = Shape(k)  z = ConstantOfShape(s)  c = Cast<to = 1>(z)  y = Add(x, c)", "NonZero", True),
        ("y, i = TopK(x, n)", "TopK", True),
        ("y = Expand(x, n)", "Expand", True),
        ("y = Tile(x, n)", "Tile", True),
        ("y = Reshape(x, n)", "Reshape", True),
        ("y = ConstantOfShape(n)", "ConstantOfShape", True),
        ("m = Squeeze(n)  o = Squeeze(one)  r = Range(m, m, o)  y = Cast<to = 1>(r)", "Range", True),
        ("y = Resize(x, , , n)", "Resize", True),
        ("s = Shape(x)  m = Mul(s, n)  y = Expand(x, m)", "Expand", True),
        ("r = RandomUniform<shape = [1]>()  i = Cast<to = 7>(r)  y = Expand(x, i)", "Expand", True),
        ("y = ReduceSum(x, n)", "ReduceSum", True),
        ("y = Compress<axis = 0>(x, go)", "Compress", True),
        (
            "y = If(go) <then_branch = t () => (float[b,4] p) { p = Relu(x) }, "
            "else_branch = e () => (float[b,4] q) { q = Neg(x) }>",
            "If",
            True,
        ),
        # Within a branch that is always taken.
        (
            "y = If(yes) <then_branch = t () => (float[b,4] p) { p = Expand(x, n) }, "
            "else_branch = e () => (float[b,4] q) { q = Neg(x) }>",
            "Expand",
            True,
        ),
        ("r, h = RNN<hidden_size = 4>(x, w, w, , n)  y = Neg(x)", "RNN", False),
        ("r = RoiAlign(x, x, n)  y = Neg(x)", "RoiAlign", False),
    ],
)
def test_values_decide(nodes: str, decider: str, is_sized: bool) -> None:
    found = by_values(graph(nodes))
    assert found.time.startswith(f"{decider} '")
    assert found.shapes == ({"y"} if is_sized else set())


def test_an_operator_that_nobody_knows_may_do_anything() -> None:
    for nodes, domain in (("y = my.Thing(x)", "my"), ("y = ThingOfTomorrow(x)", "")):
        text = f"g (float[b,4] x) => (float[b,4] y) {{ {nodes} }}"
        assert "Thing" in by_values(model(text, domains=f', "{domain}" : 1' if domain else "")).time


def test_a_default_that_a_request_may_replace_is_an_input() -> None:
    sizes = numpy_helper.from_array(np.array([2, 4]), "n")
    found = by_values(expanding(["x", "n"], sizes))
    assert found.time.startswith("Expand")
    assert by_values(expanding(["x"], sizes)).time == ""


def expanding(inputs: Sequence[str], sizes: TensorProto) -> ModelProto:
    kinds = {"x": (TensorProto.FLOAT, ["b", 4]), "n": (TensorProto.INT64, [2])}
    return helper.make_model(
        helper.make_graph(
            [helper.make_node("Expand", ["x", "n"], ["y"])],
            "g",
            [helper.make_tensor_value_info(name, *kinds[name]) for name in inputs],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["b", 4])],
            [sizes],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
    )


def test_functions_are_looked_into_and_only_once_for_the_same() -> None:
    """Each calls the one before it twice: 2 to the 60 calls, were they all followed."""
    head = 'opset_import: ["" : 18, "f" : 1]'
    functions = [f'<domain: "f", {head}> f0 (a, n) => (c) {{ c = Expand(a, n) }}']
    functions += [
        f'<domain: "f", {head}> f{each} (a, n) => (c) {{ d = f.f{each - 1}(a, n)  c = f.f{each - 1}(d, n) }}'
        for each in range(1, 61)
    ]
    for sizes, is_decided in (("n", True), ("one", False)):
        graph = f"g (float[b,4] x, int64[1] n) => (float[b,4] y) <int64[1] one = {{1}}> {{ y = f.f60(x, {sizes}) }}"
        found = by_values(model(" ".join([graph, *functions]), domains=', "f" : 1'))
        assert found.time.startswith("Expand") == is_decided
        assert (found.shapes == {"y"}) == is_decided


def test_a_function_that_calls_itself_is_not_followed_for_ever() -> None:
    text = (
        "g (float[b,4] x) => (float[b,4] y) { y = f.f(x) } "
        '<domain: "f", opset_import: ["" : 18, "f" : 1]> f (a) => (c) { c = f.f(a) }'
    )
    assert by_values(model(text, domains=', "f" : 1')).shapes == {"y"}
